"""``minillm info``: what is in a folder, or in this installation."""

from __future__ import annotations

import argparse
import math
import os
import platform
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .drawing import drawing
from .parser import add_ignore_unknown
from .values import positive

if TYPE_CHECKING:
    from ..files import GGUF


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "info",
        help="describe a model folder, a GGUF file, or this installation",
        description="Describe a model folder or a GGUF file: architecture, parameters by part, memory, tokenizer. "
        "Without one: versions, threads, and which way the matrix products take.",
    )
    p.add_argument(
        "folder", metavar="RUN", nargs="?", help="a run folder, any folder in Hugging Face's layout, or a GGUF file"
    )
    p.add_argument("--context", type=positive(), metavar="N", help="memory for N tokens; default: all it can see")
    add_ignore_unknown(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    told = of_folder(options.folder, options.context, options.ignore_unknown) if options.folder else of_installation()
    print(told)
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
        "recurrent steps": kernels.recurrent_path(),
        "threading layer": kernels.threading_layer(),
        "process": "tuned (MINILLM_PROCESS=plain leaves its settings alone)"
        if kernels.KERNELS == "numba" and kernels.settings.may_tune_process()
        else "left alone",
        "optional": ", ".join(
            f"{name} {version(name)}"
            for name in ("matplotlib", "jinja2", "sentencepiece")
            if version(name) != "not installed"
        )
        or "none installed",
    }
    return _table(rows)


def of_folder(
    folder: str | os.PathLike[str], context: int | None = None, ignore_unknown: Collection[str] = ()
) -> str:
    """Architecture, parameters by part, memory, tokenizer and special tokens of a model folder, or
    of a GGUF file.

    context: tokens of the text for which the memory is told; None: all that the model sees.
    """
    from .. import files
    from ..models import QuantizedModel, StoredModel
    from ..models.folder.pretrained import FAMILIES
    from ..models.folder.saving import read_chat_template
    from ..training.run import load_model

    path = Path(folder)
    file = files.open_gguf(path) if files.is_gguf(path) else None
    model, tokenizer, generation = load_model(file or path, ignore_unknown, stored=True)
    template = read_chat_template(file or path)
    parts: Counter[str] = Counter()
    for name, size in _sizes(model).items():
        parts[_part(name)] += size
    total = model.num_parameters()
    fields = model.config.to_dict()
    kind = FAMILIES[fields["model_type"]].model if isinstance(model, StoredModel) else type(model)
    special = {} if tokenizer is None else tokenizer.special_tokens
    stops = generation.eos_token_id
    if stops is None and tokenizer is not None:
        stops = tokenizer.eos_id
    ends = [*([stops] if isinstance(stops, int) else stops or ()), *(generation.end_of_turn_token_id or ())]
    names = {id: name for name, id in special.items()}
    width = len(f"{total:,}")
    memory = f"{4 * total / 1e6:,.1f} MB in float32, {total / 1e6:,.1f} MB in int8"
    if isinstance(model, QuantizedModel):
        stored = sum(array.nbytes for array in model.state_dict().values())
        memory = f"{stored / 1e6:,.1f} MB in int8, with the scales"
    rows = {
        "architecture": f"{kind.__name__} (model_type {fields['model_type']})",
        **({"": drawn} if (drawn := drawing(model.config)) else {}),
        "context": "unlimited" if model.context is None else f"{model.context:,} tokens",
        "parameters": f"{total:,}",
        **{f"  {part}": f"{parts[part]:>{width},}  {parts[part] / total:6.1%}" for part in KINDS if parts[part]},
        "memory": memory,
        **({} if model.context is None else _cache(model, context)),
        **({"file": _size(path)} if file is None else _of_file(file, model)),
        "runs": _way(model),
        "tokenizer": "none: the model was trained on token ids"
        if tokenizer is None
        else f"{type(tokenizer).__name__}, {tokenizer.vocab_size:,} tokens",
        "special tokens": _list(f"{name} = {id}" for name, id in special.items()),
        "chat template": _shown(template),
        "stops at": _list(f"{names[id]} ({id})" if id in names else f"token {id}" for id in dict.fromkeys(ends)),
        **({} if tokenizer is None else {"try": _commands(path, template is not None)}),
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


def _sizes(model: Any) -> Mapping[str, int]:
    """How many numbers were learned for each parameter, by its name."""
    from ..models import QuantizedModel, StoredModel

    if isinstance(model, StoredModel):  # whose state would have to be made of the blocks
        return model.sizes
    state, in_int8 = model.state_dict(), isinstance(model, QuantizedModel)
    return {name: array.size for name, array in state.items() if not (in_int8 and name.endswith("_scale"))}


def _part(name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` -> mlp: the place of a parameter in every layer."""
    words = name.split(".")[:-1]
    return next((kind for kind, marks in KINDS.items() if any(word in marks for word in words)), "norms")


def _cache(model: Any, context: int | None) -> dict[str, str]:
    """What a text takes while it goes on: the keys and values of its tokens in all layers."""
    cache, tokens = model.new_cache(1, 1), min(context or model.context, model.context)
    each = sum(array.nbytes for array in (*cache.keys, *cache.values))
    return {
        "cache": f"{each:,} bytes for each token of a text, in {cache.keys.dtype}",
        f"  for {tokens:,}": f"{each * tokens / 1e6:,.1f} MB, beside the weights",
    }


def _size(folder: Path) -> str:
    return f"{sum(file.stat().st_size for file in folder.glob('*.safetensors')) / 1e6:,.1f} MB on the disk"


def _of_file(file: GGUF, running: Any) -> dict[str, str]:
    """How large the tensors of a GGUF file are, which of them are of which kind of numbers, and
    what they take while the model runs.
    """
    from ..models.fast.stored import StoredModel, kind_in_memory
    from ..models.folder.gguf import hugging_face_name

    weights: Counter[str] = Counter()
    parts: dict[str, dict[str, None]] = {}
    for name, stored in file.tensors.items():
        weights[stored.dtype] += math.prod(stored.shape)
        parts.setdefault(stored.dtype, {})[_part(hugging_face_name(name))] = None
    total, size = sum(weights.values()), sum(stored.nbytes for stored in file.tensors.values())
    width = len(f"{total:,}")
    rows = {
        "file": f"GGUF, {size / 1e6:,.1f} MB of weights, {8 * size / total:.2f} bits each",
        **{f"  {kind}": f"{n:>{width},}  {', '.join(parts[kind])}" for kind, n in weights.most_common()},
    }
    if isinstance(running, StoredModel):
        changed = [f"{kind} as {kind_in_memory(kind)}" for kind in weights if kind_in_memory(kind) != kind]
        rows["  in memory"] = f"{running.nbytes / 1e6:,.1f} MB, {running.nbytes / size:.2f} of the file" + (
            f" ({', '.join(changed)})" if changed else ""
        )
    return rows


def _way(model: Any) -> str:
    """How the next token is computed here."""
    from .. import kernels
    from ..models.fast.arrays import arrays_of
    from ..models.fast.stored import StoredModel

    if kernels.KERNELS == "numpy":
        return f"on the NumPy definitions ({kernels.REASON})"
    if isinstance(model, StoredModel) or arrays_of(model) is not None:
        way = f"compiled, all layers in one call for each token, on {kernels.get_num_threads()} threads"
        return way + ", from the stored blocks" * isinstance(model, StoredModel)
    return "compiled kernels, layer by layer"


def _commands(path: Path, answers: bool) -> str:
    """What to type to hear the model."""
    from ..files import shell_path

    name = shell_path(path)
    return f"minillm chat {name}\nminillm why {name} 'Hello!'" if answers else f"minillm generate {name}"


def _shown(template: str | None) -> str:
    """The beginning of a chat template, in lines that fit a terminal."""
    if template is None:
        return "none"
    shown = "".join(c if c.isprintable() else "\u23ce" if c == "\n" else "?" for c in template)
    return "\n".join(textwrap.wrap(textwrap.shorten(shown, 270, placeholder=" ..."), 92)) or "empty"


def _list(entries: Iterable[str]) -> str:
    """Entries one after another, in lines that fit a terminal."""
    return "\n".join(textwrap.wrap(", ".join(entries), 92)) or "none"


def _table(rows: dict[str, str]) -> str:
    width = max(len(name) for name in rows)
    indent = "\n" + " " * (width + 2)
    return "\n".join(f"{name:<{width}}  {value.replace(chr(10), indent)}" for name, value in rows.items())
