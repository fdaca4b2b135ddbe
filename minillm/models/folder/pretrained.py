"""Model folders: what is trained here opens in ``transformers``, and what was trained elsewhere
opens here.

A folder in Hugging Face's layout::

    config.json               how to build the model: its architecture and sizes
    model.safetensors         its parameters by name; large models come in shards, with an index
    generation_config.json    how to sample, and which tokens stop           (these and the following: optional)
    tokenizer.json, tokenizer_config.json, chat_template.jinja
    README.md                 the model card

Reading a folder of strangers, nothing is guessed: a field that may change the result and that we do
not implement, a tensor too many, missing or of another shape is an error that names it, and says
how to go on.
"""  # noqa: W505

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import files
from ...nn import Module, init
from ..fast.int8 import quantized_from_pretrained, unquantized_fields
from ..fast.stored import stored_model
from ..gpt2 import GPT2, GPT2Config
from ..llama import Llama, LlamaConfig
from ..llama_kin import MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config
from ..recurrent import RecurrentLM, RecurrentLMConfig
from ..t5 import T5, T5Config
from . import gguf
from .config import way_on
from .saving import CONFIG, read_chat_template, save_pretrained

__all__ = ["from_pretrained", "read_chat_template", "save_pretrained"]

LAYER_COUNTS = ("n_layer", "num_layers", "num_hidden_layers", "num_decoder_layers")
FLOATS = ("F64", "F32", "F16", "BF16")
Stored = files.StoredTensor | files.StoredBlocks | gguf.RowsInHalves


@dataclass(frozen=True)
class Family:
    """An architecture's classes, and what is peculiar about its files."""

    model: Any
    config: Any
    base: str = ""  # files of the model without its head, the first GPT-2 among them, leave this off every name
    ignored: str = "$^"  # names of stored arrays that are no parameters: masks, tables of angles
    tied: Mapping[str, str] = field(default_factory=dict)  # second name of a parameter -> its name


_LLAMA = Family(
    Llama, LlamaConfig,
    base="model.",
    ignored=r"(model\.)?((layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|original_inv_freq|(cos|sin)_cached)"
            r"|(embeddings\.)?position_ids|(layers\.\d+\.self_attn\.)?(bias|masked_bias|causal_mask))",
    tied={"lm_head.weight": "model.embed_tokens.weight"},
)  # fmt: skip
FAMILIES = {
    "gpt2": Family(
        GPT2, GPT2Config,
        base="transformer.",
        ignored=r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
        tied={"lm_head.weight": "transformer.wte.weight"},
    ),
    "llama": _LLAMA,
    "t5": Family(
        T5, T5Config,
        ignored=r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
        tied={name: "shared.weight" for name in
              ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")},
    ),
    **{kin.model_type: replace(_LLAMA, config=kin) for kin in (MistralConfig, Qwen2Config, Qwen3Config, SmolLM3Config)},
    "minillm_recurrent": Family(
        RecurrentLM, RecurrentLMConfig, tied={"lm_head.weight": "embedding.weight"}
    ),
}  # fmt: skip

# ---- reading -------------------------------------------------------------------------------------


def from_pretrained(
    folder: files.Pathlike, dtype: Any = np.float32, ignore_unknown: Collection[str] = (), stored: bool = False
) -> Any:
    """Open a model folder, or a GGUF file: ``GPT2``, ``Llama``, ``T5``, ``RecurrentLM`` or
    ``QuantizedModel``, as ``config.json`` or the file says.

    dtype: of the parameters, float32 or float64. Files of float16, bfloat16 and blocks of fewer
    bits are converted. Parameters that the file holds in ``dtype`` are not copied: they are windows
    into the mapped file, whose pages arrive when they are first touched, and become the process's
    own when training first writes to them; the file never changes. The model comes ready for use
    (``model.eval()``); call ``model.train()`` to tune it. ignore_unknown: names of fields of
    ``config.json``, and of stored tensors, to read on without. stored: keep the matrices of a GGUF
    file in its blocks (a `StoredModel`, which cannot be trained), where compiled loops can read
    them there.

    Raises FileNotFoundError when there is no model, and ValueError, naming the file, when a file is
    damaged, the architecture or a field is not implemented, or tensors are missing, unexpected or
    of another shape (all are listed).
    """
    path, dtype = Path(folder), np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"from_pretrained: dtype must be float32 or float64; got {dtype}")
    if isinstance(ignore_unknown, str):
        raise ValueError(f"from_pretrained: ignore_unknown must be a list of names; got the string {ignore_unknown!r}")
    if not path.exists():
        raise FileNotFoundError(f"from_pretrained: {files.no_such_folder(path)}")
    if path.is_file() and (why := files.about_pickles(path)):
        raise ValueError(f"from_pretrained: {why}")
    if files.is_gguf(path):
        gguf_file = files.open_gguf(folder)
        content, rounded, source = gguf.config_fields(gguf_file, ignore_unknown), None, str(path)
        weights: Mapping[str, Stored] = gguf.weights(gguf_file, content)
    else:
        source = str(path / CONFIG)
        if not (path / CONFIG).exists() and (why := files.about_adapters(path)):
            raise FileNotFoundError(f"from_pretrained: {path}: {why}")
        content = files.read_json(source)
        rounded = unquantized_fields(content, source)
        content = content if rounded is None else rounded
        _family(content, source)  # refused before the weights are looked for
        weights = files.open_weights(path)
    family = _family(content, source)
    known = {own.name for own in fields(family.config)} - {"rope_scaling"}  # never left out: what is known counts
    content = {name: value for name, value in content.items() if name in known or name not in ignore_unknown}
    config = family.config.from_dict(content, source=source)
    weights = {name: tensor for name, tensor in weights.items() if name not in ignore_unknown}
    for name in LAYER_COUNTS:  # a stranger may ask for 10^9 layers: building them one by one would never end
        if (getattr(config, name, None) or 0) > len(weights):
            raise ValueError(f"{source}: {name} = {getattr(config, name)}, but there are only {len(weights)} tensors")
    try:
        if rounded is not None:
            if dtype != np.float32:
                raise ValueError("int8 weights are multiplied in float32; dtype must be float32")
            return quantized_from_pretrained(family.model, config, weights)
        with init.skipped():
            model = family.model(config)
        for parameter in model.parameters():
            parameter.data = np.broadcast_to(dtype.type(0), parameter.shape)
        by_parameter = _by_parameter(weights, model, family)
        if stored and _complete(model, by_parameter):
            again = functools.partial(from_pretrained, path, ignore_unknown=ignore_unknown)
            if (compact := stored_model(model, by_parameter, again)) is not None:
                return compact
        _fill(model, by_parameter)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return model.eval()


def _family(content: Mapping[str, Any], source: str) -> Family:
    """Which architecture a ``config.json`` is about.

    Its ``architectures`` says with which head a model was saved, and may be anything: the tensors
    say what is there.
    """
    kind = content.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"{source}: model_type must be one of {', '.join(FAMILIES)}; got {kind!r:.80}")
    return FAMILIES[kind]


def _fill(model: Module, stored: Mapping[str, Stored]) -> None:
    """Give the parameters their stored values."""
    own = {name for name, _ in model.named_parameters()}
    try:
        model.load_state_dict(stored, copy=False)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{error}{way_on([name for name in stored if name not in own])}") from None


def _complete(model: Module, stored: Mapping[str, Stored]) -> bool:
    """Whether every parameter is there in its shape, and nothing else; if not, `_fill` lists what
    is wrong.
    """
    own = {name: parameter.shape for name, parameter in model.named_parameters()}
    return own == {name: tuple(tensor.shape) for name, tensor in stored.items()}


def _by_parameter(
    weights: Mapping[str, Stored], model: Module, family: Family
) -> dict[str, Stored]:
    """Sort stored tensors by the names of the parameters, without reading them.

    A tied parameter may be stored under one of its names, or under several with equal values. What
    is unknown keeps its name, and ``load_state_dict`` will complain about it.
    """
    own = {name for name, _ in model.named_parameters()}
    found: dict[str, Stored] = {}
    second = {}
    for name, tensor in weights.items():
        target = name if name in own or family.base + name not in own else family.base + name
        if target not in own and re.fullmatch(family.ignored, name):
            continue
        if target in found:
            raise ValueError(f"{target} is there twice, with {family.base!r} before its name and without")
        if isinstance(tensor, files.StoredTensor) and tensor.dtype not in FLOATS:
            raise ValueError(f"{name} has dtype {tensor.dtype}; parameters are F32, F16, BF16 or F64")
        if target not in own and target in family.tied:
            second[name] = tensor
        else:
            found[target] = tensor
    for name, tensor in second.items():
        original = found.setdefault(family.tied[name], tensor)
        if original is not tensor and not np.array_equal(tensor.read(), original.read()):
            raise ValueError(f"{name} differs from {family.tied[name]}, though the configuration ties them together")
    return found
