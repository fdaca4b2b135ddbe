"""Fine-tuning: a training that begins with the weights and the tokenizer of a model that is there.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from .. import data, models
from ..nn import init
from .recipe import ENCODED, STARTED, Recipe
from .run import LoadedRun, load_run

__all__ = ["open_start", "started_recipe"]

KEPT = ("model", "tokenizer", "vocab_size", "layers", "heads", "kv_heads", "width", "attention")
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout_rate")  # of GPT-2 and T5
SIZES = {  # fields of the configurations: layers, heads, width
    models.GPT2: ("gpt2", "n_layer", "n_head", "n_embd"),
    models.Llama: ("llama", "num_hidden_layers", "num_attention_heads", "hidden_size"),
    models.T5: ("t5", "num_layers", "num_heads", "d_model"),
    models.RecurrentLM: ("rnn", "num_layers", "", "hidden_size"),
}


def started_recipe(start: str | os.PathLike[str], data_path: str | None = None, **chosen: Any) -> Recipe:
    """The recipe of a training that begins with a model folder: kind, sizes and tokenizer are the
    folder's.

    Raises ValueError for a setting that would change them, a context that is longer than what the
    model sees, and what `open_start` refuses.
    """
    for name in KEPT:
        if chosen.get(name) is not None:
            raise ValueError(f"{name} must be left out: it is as {start} has it, whose weights training starts from")
    model = open_start(start).model
    config = model.config
    kind, layers, heads, width = next(sizes for family, sizes in SIZES.items() if isinstance(model, family))
    if kind == "rnn" and config.cell == "lstm":
        kind = "lstm"
    encoded = data_path is not None and data.holds_shards(data_path)
    made = Recipe(
        data_path,
        start=str(Path(start).resolve()),
        model=kind,
        tokenizer=ENCODED if encoded else STARTED,
        vocab_size=config.vocab_size,
        layers=getattr(config, layers),
        heads=getattr(config, heads) if heads else None,
        kv_heads=config.kv_heads if kind == "llama" else None,
        attention=config.attention if not heads else None,
        width=getattr(config, width),
        **chosen,
    )
    if model.context is None or made.context <= model.context:
        return made
    if chosen.get("context") is not None:
        raise ValueError(f"context must be at most {model.context}, all that the model sees; got {made.context}")
    return made.replace(context=model.context)


def open_start(folder: str | os.PathLike[str], dropout: float | None = None) -> LoadedRun:
    """The model and the tokenizer to start with; dropout: another than the folder says.

    Raises ValueError for weights in int8, which cannot learn, and for a tokenizer with tokens that
    the model does not know.
    """
    loaded = load_run(folder)
    model = loaded.model
    if isinstance(model, models.QuantizedModel):
        raise ValueError(f"{folder}: weights in int8 cannot learn: start from the folder that they were rounded from")
    if loaded.tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"{folder}: the tokenizer has tokens that the model does not know: they must belong together")
    if dropout is not None:
        known = {field.name for field in dataclasses.fields(model.config)}
        config = dataclasses.replace(model.config, **{name: dropout for name in DROPOUTS if name in known})
        with init.skipped():
            changed = type(model)(config)
        changed.load_state_dict(model.state_dict(), copy=False)
        loaded = loaded._replace(model=changed)
    return loaded
