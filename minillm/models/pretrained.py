"""Model folders: what is trained here opens in ``transformers``, and what was trained elsewhere opens here.

A folder in Hugging Face's layout::

    config.json               how to build the model: its architecture and sizes
    model.safetensors         its parameters by name; large models come in shards, with an index
    generation_config.json    how to sample, and which tokens stop           (these and the following: optional)
    tokenizer.json, tokenizer_config.json, chat_template.jinja
    README.md                 the model card

Reading a folder of strangers, nothing is guessed: a field that may change the result and that we do not implement, a
tensor too many, missing or of another shape is an error that names it.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..nn import Module, init
from .quantized import quantized_from_pretrained, unquantized_fields

__all__ = ["from_pretrained", "read_chat_template", "save_pretrained"]

CONFIG = "config.json"
LAYER_COUNTS = ("n_layer", "num_layers", "num_hidden_layers", "num_decoder_layers")


@dataclass(frozen=True)
class Family:
    """Where an architecture's classes are, and what is peculiar about its files."""

    module: str
    model: str
    config: str
    architecture: str  # the class in transformers
    base: str = ""  # files of the model without its head, the first GPT-2 among them, leave this off every name
    ignored: str = "$^"  # names of stored arrays that are no parameters: masks, tables of angles
    tied: Mapping[str, str] = field(default_factory=dict)  # name of a second copy -> name of the parameter


FAMILIES = {
    "gpt2": Family(
        "gpt2", "GPT2", "GPT2Config", "GPT2LMHeadModel",
        base="transformer.",
        ignored=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
        tied={"lm_head.weight": "transformer.wte.weight"},
    ),
    "llama": Family(
        "llama", "Llama", "LlamaConfig", "LlamaForCausalLM",
        base="model.",
        ignored=r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
        tied={"lm_head.weight": "model.embed_tokens.weight"},
    ),
    "t5": Family(
        "t5", "T5", "T5Config", "T5ForConditionalGeneration",
        ignored=r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
        tied={name: "shared.weight" for name in
              ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")},
    ),
    "minillm_recurrent": Family("recurrent", "RecurrentLM", "RecurrentLMConfig", "RecurrentLM"),
}  # fmt: skip

# What belongs to a model folder, and is kept as it is when a model is tuned and saved elsewhere.
COMPANIONS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)


# ---- reading ---------------------------------------------------------------------------------------------------------


def from_pretrained(folder: files.Pathlike, dtype: Any = np.float32) -> Any:
    """Open a model folder: ``GPT2``, ``Llama``, ``T5``, ``RecurrentLM`` or ``QuantizedModel``, as ``config.json`` says.

    dtype: of the parameters, float32 or float64. Files of float16 and bfloat16 are converted. Parameters that the file
    holds in ``dtype`` are not copied: they are windows into the mapped file, whose pages arrive when they are first
    touched, and become the process's own when training first writes to them; the file never changes. The model comes
    ready for use (``model.eval()``); call ``model.train()`` to tune it.

    Raises FileNotFoundError when there is no model, and ValueError, naming the file, when a file is damaged, the
    architecture or a field is not implemented, or tensors are missing, unexpected or of another shape (all are listed).
    """
    folder, dtype = Path(folder), np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"from_pretrained: dtype must be float32 or float64; got {dtype}")
    source = str(folder / CONFIG)
    fields = files.read_json(source)
    rounded = unquantized_fields(fields, source)
    fields = fields if rounded is None else rounded
    family = _family(fields, source)
    room = importlib.import_module(f".{family.module}", __package__)
    config = getattr(room, family.config).from_dict(fields, source=source)
    weights = files.open_weights(folder)
    for name in LAYER_COUNTS:  # a stranger may ask for 10^9 layers: building them one by one would never end
        if (getattr(config, name, None) or 0) > len(weights):
            raise ValueError(f"{source}: {name} = {getattr(config, name)}, but there are only {len(weights)} tensors")
    try:
        if rounded is not None:
            if dtype != np.float32:
                raise ValueError("int8 weights are multiplied in float32; dtype must be float32")
            return quantized_from_pretrained(getattr(room, family.model), config, weights)
        with init.skipped():
            model = getattr(room, family.model)(config)
        for parameter in model.parameters():
            parameter.data = np.broadcast_to(dtype.type(0), parameter.shape)
        model.load_state_dict(_by_parameter(weights, model, family), copy=False)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return model.eval()


def _family(fields: Mapping[str, Any], source: str) -> Family:
    """Which architecture a ``config.json`` is about."""
    kind, architectures = fields.get("model_type"), fields.get("architectures")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{source}: model_type must be one of {', '.join(FAMILIES)}; got {kind!r:.80}")
    expected = FAMILIES[kind].architecture
    if architectures is not None and architectures != [expected]:
        raise ValueError(f"{source}: architectures must be [{expected!r}] for {kind}; got {architectures!r:.80}")
    return FAMILIES[kind]


def _by_parameter(
    weights: Mapping[str, files.StoredTensor], model: Module, family: Family
) -> dict[str, files.StoredTensor]:
    """Sort stored tensors by the names of the parameters, without reading them.

    Second copies of a tied parameter are left out when they are equal to it; what is unknown keeps its name, and
    ``load_state_dict`` will complain about it.
    """
    own = {name for name, _ in model.named_parameters()}
    found: dict[str, files.StoredTensor] = {}
    copies = []
    for name, tensor in weights.items():
        target = name if name in own or family.base + name not in own else family.base + name
        if target in found:
            raise ValueError(f"{target} is there twice, with {family.base!r} before its name and without")
        if tensor.dtype not in ("F64", "F32", "F16", "BF16"):
            raise ValueError(f"{name} has dtype {tensor.dtype}; parameters are F32, F16, BF16 or F64")
        if target in own or target not in family.tied and not re.fullmatch(family.ignored, name):
            found[target] = tensor
        elif target in family.tied:
            copies.append(target)
    for name in copies:
        original = found.get(family.tied[name])
        if original is not None and not np.array_equal(weights[name].read(), original.read()):
            raise ValueError(f"{name} differs from {family.tied[name]}, though the configuration ties them together")
    return found


def read_chat_template(folder: files.Pathlike) -> str | None:
    """Return the chat template of a model folder, or None: ``chat_template.jinja``, or in ``tokenizer_config.json``."""
    folder = Path(folder)
    if (folder / "chat_template.jinja").exists():
        return files.read_text(folder / "chat_template.jinja")
    if not (folder / "tokenizer_config.json").exists():
        return None
    template = files.read_json(folder / "tokenizer_config.json", limit=10_000_000).get("chat_template")
    if isinstance(template, list):  # several, each with a name
        named = [item for item in template if isinstance(item, dict) and item.get("name") == "default"]
        template = named[0].get("template") if named else template
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{folder / 'tokenizer_config.json'}: chat_template must be a text")
    return template


# ---- writing ---------------------------------------------------------------------------------------------------------


def save_pretrained(
    model: Any,
    folder: files.Pathlike,
    *,
    tokenizer: Any = None,
    generation_config: Any = None,
    chat_template: str | None = None,
    model_card: str | None = None,
    keep_from: files.Pathlike | None = None,
) -> None:
    """Write a model folder that ``transformers`` and ``from_pretrained`` open.

    tokenizer: anything with ``save(folder)``. generation_config: a mapping, or an object with ``to_dict()``.
    chat_template: text of a Jinja template. model_card: text of README.md. keep_from: a model folder (the one the model
    was tuned from) whose tokenizer, generation settings and chat template are taken over as they are, where not given.

    A new folder appears whole or not at all. In a folder that exists, other files stay, and whoever opens it, after a
    crash too, finds the old model, the new one or none. Raises OSError when the disk fails.
    """
    folder = Path(folder)
    writing = files.atomic_update(folder, commit=CONFIG) if folder.is_dir() else files.atomic_folder(folder)
    with writing as into:
        state = model.state_dict()
        dtypes = {str(array.dtype) for array in state.values()}
        config = model.config_dict() | ({"dtype": dtypes.pop()} if len(dtypes) == 1 else {})
        files.write_json(into / CONFIG, config)
        files.write_safetensors(into / "model.safetensors", state)
        if tokenizer is not None:
            tokenizer.save(into)
        if generation_config is not None:
            fields = generation_config if isinstance(generation_config, Mapping) else generation_config.to_dict()
            # transformers looks here, and no longer into config.json, for how a decoder begins
            begin = ("decoder_start_token_id", "pad_token_id") if model.is_encoder_decoder else ()
            files.write_json(into / "generation_config.json", {name: config[name] for name in begin} | dict(fields))
        if keep_from is not None:
            _take_over(Path(keep_from), into)
            chat_template = read_chat_template(keep_from) if chat_template is None else chat_template
        if chat_template is not None:
            files.write_text(into / "chat_template.jinja", chat_template)
        if model_card is not None:
            files.write_text(into / "README.md", model_card)


def _take_over(source: Path, into: Path) -> None:
    """Copy the companions of a model that were not written anew."""
    for name in COMPANIONS:
        if (source / name).is_file() and not os.path.exists(into / name):
            shutil.copyfile(source / name, into / name)
