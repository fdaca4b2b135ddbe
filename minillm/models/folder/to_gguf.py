"""A Llama, or one of its kin, as the settings and tensors of a GGUF file: gguf.py's inverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..llama import Llama
from ..rope import rotary_speeds
from .gguf import FREQUENCIES, LAYER_NAMES, OTHER_NAMES, PAIRS, SIZES, in_pairs

__all__ = ["FILE_TYPES", "LazyTensors", "to_gguf"]

FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7}  # general.file_type


class LazyTensors(Mapping[str, np.ndarray]):
    """Arrays by name, each made when it is asked for."""

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._makers = dict(makers)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def to_gguf(model: Any, kind: str) -> tuple[dict[str, Any], LazyTensors, dict[str, str]]:
    """Settings, tensors, and the kind of numbers of each tensor.

    kind: of the matrices, f32, f16 or q8_0; norms and biases stay float32, and so does f16 for
    q8_0 where rows are no multiple of 32. Raises ValueError for a model that llama.cpp would
    compute otherwise.
    """
    if kind not in FILE_TYPES:
        raise ValueError(f"to_gguf: kind must be one of {', '.join(FILE_TYPES)}; got {kind!r:.40}")
    if type(model) is not Llama:
        raise ValueError(f"only Llamas and their kin can be written to a GGUF file; got a {type(model).__name__}")
    c = model.config
    architecture = "llama" if c.model_type == "mistral" else c.model_type
    _refuse(c, architecture)
    settings: dict[str, Any] = {
        "general.architecture": architecture,
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": 2,
    }
    settings |= {f"{architecture}.{name}": int(getattr(c, field)) for name, field in SIZES.items()}
    settings |= {
        f"{architecture}.{name}": value
        for name, value in {
            "attention.head_count_kv": c.kv_heads,
            "attention.key_length": c.D,
            "attention.value_length": c.D,
            "attention.layer_norm_rms_epsilon": float(c.rms_norm_eps),
            "rope.dimension_count": c.D,
            "rope.freq_base": float(c.rope_theta),
            "vocab_size": c.vocab_size,
        }.items()
    }
    s = c.rope_scaling
    makers: dict[str, Callable[[], np.ndarray]] = {}
    if s is not None and s.rope_type == "llama3":
        quotients = rotary_speeds(c.D, c.rope_theta) / s.speeds(c.D, c.rope_theta, 1)
        makers[FREQUENCIES] = lambda: quotients.astype(np.float32)
    elif s is not None:
        settings |= {
            f"{architecture}.rope.scaling.type": s.rope_type,
            f"{architecture}.rope.scaling.factor": float(s.factor),
            f"{architecture}.rope.scaling.original_context_length": s.original,
        }
    for name, array in model.plain_state().items():
        makers[_name(name)] = _maker(name, array, c, architecture)
    tensors = LazyTensors(makers)
    return settings, tensors, {name: _kind(tensors[name], kind) for name in tensors}


def _refuse(config: Any, architecture: str) -> None:
    s, layers = config.rope_scaling, range(config.num_hidden_layers)
    if any((config.window(i) or config.context) < config.context for i in layers):
        raise ValueError("layers with a sliding window have no place in a GGUF file of this architecture")
    if [config.turns(i) for i in layers] != [architecture != "smollm3" or (i + 1) % 4 != 0 for i in layers]:
        raise ValueError("llama.cpp turns queries and keys in other layers: every fourth of a SmolLM3 does not")
    if s is not None and s.rope_type not in ("linear", "llama3", "yarn"):
        raise ValueError(f"rope scaling of the type {s.rope_type} has no place in a GGUF file")
    usual = s is None or (s.original, s.low_freq_factor, s.high_freq_factor) == (8192, 1, 4)
    if s is not None and s.rope_type == "llama3" and not usual:
        raise ValueError("rope scaling of the type llama3 is written with the settings of Llama 3 only")
    if s is not None and s.rope_type == "yarn" and (
        (s.beta_fast, s.beta_slow, s.truncate, s.attention_factor) != (32, 1, True, None) or s.mscale
    ):
        raise ValueError("rope scaling of the type yarn is written with its usual settings only")


def _name(name: str) -> str:
    """model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight."""
    *parts, last = name.split(".")
    if parts[:2] == ["model", "layers"]:
        theirs = {ours: theirs for theirs, ours in LAYER_NAMES.items()}
        return f"blk.{parts[2]}.{theirs['.'.join(parts[3:])]}.{last}"
    theirs = {ours: theirs for theirs, ours in OTHER_NAMES.items()}
    return f"{theirs['.'.join(parts)]}.{last}"


def _maker(name: str, array: np.ndarray, config: Any, architecture: str) -> Callable[[], np.ndarray]:
    part = name.split(".")[-2]
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.kv_heads}.get(part)
    if heads is None or architecture not in PAIRS:
        return lambda: array
    return lambda: in_pairs(array, heads)


def _kind(array: np.ndarray, kind: str) -> str:
    if array.ndim < 2:
        return "F32"
    return "F16" if kind == "q8_0" and array.shape[-1] % 32 else kind.upper()
