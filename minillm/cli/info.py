"""``minillm info``: what is in a folder, or in this installation."""

from __future__ import annotations

import argparse
import os
import platform
import textwrap
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "info",
        help="describe a model folder, or this installation",
        description="Describe a model folder: architecture, parameters by part, memory, tokenizer. Without one: "
        "versions, threads, and which way the matrix products take.",
    )
    p.add_argument(
        "folder", metavar="RUN", nargs="?", help="a run folder, or any model folder in Hugging Face's layout"
    )
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    print(of_folder(options.folder) if options.folder else of_installation())
    return 0


def of_installation() -> str:
    """Versions, threads, and which way the matrix products take."""
    from .. import __version__, kernels
    from ..training.environment import version

    rows = {
        "minillm": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "numba", "llvmlite", "regex")},
        "cores": str(os.cpu_count()),
        "threads": f"{kernels.get_num_threads()} (MINILLM_THREADS, or --threads)",
        "kernels": f"{kernels.KERNELS} ({kernels.REASON})",
        "matmul": kernels.matmul_path(),
        "threading layer": kernels.threading_layer(),
        "optional": ", ".join(
            f"{name} {version(name)}"
            for name in ("matplotlib", "jinja2", "sentencepiece")
            if version(name) != "not installed"
        )
        or "none installed",
    }
    return _table(rows)


def of_folder(folder: str | os.PathLike[str]) -> str:
    """Architecture, parameters by part, memory, tokenizer and special tokens of a model folder."""
    from ..models import QuantizedModel
    from ..training.run import load_model

    path = Path(folder)
    model, tokenizer, generation = load_model(path)
    parts: Counter[str] = Counter()
    in_int8, state = isinstance(model, QuantizedModel), model.state_dict()
    for name, array in state.items():
        if not (in_int8 and name.endswith("_scale")):
            parts[_part(name)] += array.size
    total, stored = model.num_parameters(), sum(array.nbytes for array in state.values())
    fields = model.config.to_dict()
    special = {} if tokenizer is None else tokenizer.special_tokens
    stops = generation.eos_token_id
    if stops is None and tokenizer is not None:
        stops = tokenizer.eos_id
    ends = [*([stops] if isinstance(stops, int) else stops or ()), *(generation.end_of_turn_token_id or ())]
    names = {id: name for name, id in special.items()}
    width = len(f"{total:,}")
    memory = f"{4 * total / 1e6:,.1f} MB in float32, {total / 1e6:,.1f} MB in int8"
    rows = {
        "architecture": f"{type(model).__name__} (model_type {fields['model_type']})",
        "context": "unlimited" if model.context is None else f"{model.context:,} tokens",
        "parameters": f"{total:,}",
        **{f"  {kind}": f"{parts[kind]:>{width},}  {parts[kind] / total:6.1%}" for kind in KINDS if parts[kind]},
        "memory": f"{stored / 1e6:,.1f} MB in int8, with the scales" if in_int8 else memory,
        **({} if model.context is None else {"cache": f"{_cache_size(model):,} bytes for each token of a text"}),
        "file": f"{sum(file.stat().st_size for file in path.glob('*.safetensors')) / 1e6:,.1f} MB on the disk",
        "tokenizer": "none: the model was trained on token ids"
        if tokenizer is None
        else f"{type(tokenizer).__name__}, {tokenizer.vocab_size:,} tokens",
        "special tokens": _list(f"{name} = {id}" for name, id in special.items()),
        "stops at": _list(f"{names[id]} ({id})" if id in names else f"token {id}" for id in dict.fromkeys(ends)),
        "settings": _list(f"{name} {value:.9g}" for name, value in fields.items() if type(value) in (int, float)),
    }
    return _table(rows)


KINDS: dict[str, tuple[str, ...]] = {  # of parameters: the words in their names that tell them
    "embedding": ("wte", "wpe", "embed_tokens", "shared", "embedding"),
    "attention": ("attn", "self_attn", "SelfAttention"),
    "cross-attention": ("EncDecAttention",),
    "mlp": ("mlp", "DenseReluDense"),
    "recurrence": ("recurrent",),
    "head": ("lm_head",),
    "norms": (),  # what is left
}


def _part(name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` -> mlp: the place of a parameter in every layer."""
    words = name.split(".")[:-1]
    return next((kind for kind, marks in KINDS.items() if any(word in marks for word in words)), "norms")


def _cache_size(model: Any) -> int:
    """The bytes that a token of a text takes while the text goes on: its keys and values in all
    layers.
    """
    cache = model.new_cache(1, 1)
    return sum(array.nbytes for array in (*cache.keys, *cache.values))


def _list(entries: Iterable[str]) -> str:
    """Entries one after another, in lines that fit a terminal."""
    return "\n".join(textwrap.wrap(", ".join(entries), 92)) or "none"


def _table(rows: dict[str, str]) -> str:
    width = max(len(name) for name in rows)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {value.replace(chr(10), indent)}" for name, value in rows.items())
