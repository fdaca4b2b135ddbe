"""What ``minillm info`` says: about a model folder, and about this installation."""

from __future__ import annotations

import os
import platform
from collections import Counter
from importlib import metadata
from pathlib import Path

from . import __version__
from .models import QuantizedModel
from .run import load_run

__all__ = ["of_folder", "of_installation"]


def of_installation() -> str:
    """Versions, threads, and which way the matrix products take."""
    import numba

    from . import kernels
    from .kernels.matmul import matmul_path

    rows = {
        "minillm": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in ("numpy", "numba", "llvmlite", "regex")},
        "cores": str(os.cpu_count()),
        "threads": f"{kernels.get_num_threads()} (MINILLM_THREADS, or --threads)",
        "kernels": f"{kernels.KERNELS} (MINILLM_KERNELS)",
        "matmul": matmul_path(),
        "threading layer": " or ".join(vars(numba.config)["THREADING_LAYER_PRIORITY"]),
        "optional": ", ".join(
            f"{name} {_version(name)}"
            for name in ("matplotlib", "jinja2", "sentencepiece")
            if _version(name) != "absent"
        )
        or "none installed",
    }
    return _table(rows)


def of_folder(folder: str | os.PathLike[str]) -> str:
    """Architecture, parameters by part, memory, tokenizer and special tokens of a model folder."""
    path = Path(folder)
    model, tokenizer, generation = load_run(path)
    parts: Counter[str] = Counter()
    in_int8, state = isinstance(model, QuantizedModel), model.state_dict()
    for name, array in state.items():
        if not (in_int8 and name.endswith("_scale")):
            parts[_part(name)] += array.size
    total, stored = model.num_parameters(), sum(array.nbytes for array in state.values())
    config = model.config.to_dict()
    sizes = {name: value for name, value in config.items() if isinstance(value, (int, float)) and value is not True}
    rows = {
        "architecture": f"{type(model).__name__} ({config.get('model_type')})",
        "context": "unlimited" if model.context is None else f"{model.context:,} tokens",
        "parameters": f"{total:,}",
        **{f"  {name}": f"{count:,} ({count / total:.0%})" for name, count in parts.items()},
        "memory": f"{stored / 1e6:,.1f} MB in int8, with the scales"
        if in_int8
        else f"{4 * total / 1e6:,.1f} MB in float32, {total / 1e6:,.1f} MB in int8",
        "tokenizer": f"{type(tokenizer).__name__}, {tokenizer.vocab_size:,} tokens",
        "special tokens": ", ".join(f"{name} = {id}" for name, id in tokenizer.special_tokens.items()) or "none",
        "stops at": str(generation.eos_token_id if generation.eos_token_id is not None else tokenizer.eos_id),
        "settings": ", ".join(f"{name} {value:g}" for name, value in sizes.items() if value is not False),
    }
    return _table(rows)


def _part(name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` -> mlp: the place of a parameter in every layer."""
    words = [word for word in name.split(".")[:-1] if not word.isdigit()]
    kinds = {
        "embedding": ("wte", "wpe", "embed_tokens", "shared", "embedding", "embed"),
        "head": ("lm_head",),
        "attention": ("attn", "self_attn", "SelfAttention", "EncDecAttention", "attention"),
        "mlp": ("mlp", "DenseReluDense", "feed_forward"),
        "recurrence": ("rnn", "gru", "lstm", "cell", "recurrent"),
    }
    for kind, marks in kinds.items():
        if any(word in marks for word in words):
            return kind
    return "norms and others"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"


def _table(rows: dict[str, str]) -> str:
    width = max(len(name) for name in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
