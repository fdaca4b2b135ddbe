"""A GGUF file as a model folder in one file: its settings as the fields of ``config.json``, its
tensors under Hugging Face's names.

    llama.embedding_length            hidden_size
    blk.3.attn_q.weight               model.layers.3.self_attn.q_proj.weight
    tokenizer.chat_template           chat_template.jinja
    tokenizer.ggml.eos_token_id       eos_token_id of generation_config.json

One thing differs in the numbers: llama.cpp turns pairs of neighbours, (0, 1), (2, 3) ..., where we
turn the two halves of a head, (0, D/2), (1, D/2 + 1) ... So the file of a Llama holds the rows of the
projections to queries and keys in another order, and they are put back. Which architectures it is
so for: llama_model_rope_type in llama.cpp.
"""  # noqa: W505

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...files import GGUF, StoredBlocks
from ...files.blocks import dequantize
from ..rope import RopeScaling, rotary_speeds
from .config import way_on

__all__ = ["ARCHITECTURES", "LAYER_NAMES", "OTHER_NAMES", "chat_template", "config_fields", "generation_fields",
           "in_pairs", "weights"]  # fmt: skip

PAIRS = ("llama", "smollm3")  # architectures whose files turn neighbours
ARCHITECTURES = (*PAIRS, "qwen2", "qwen3")  # each called as its model_type

SIZES = {  # setting -> field
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
}
# Settings that are read below, and those that change nothing in the position given.
READ = frozenset(
    """
    attention.head_count_kv attention.key_length attention.value_length attention.layer_norm_rms_epsilon vocab_size
    rope.freq_base rope.dimension_count rope.scaling.type rope.scaling.factor rope.scaling.original_context_length
    rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow
    """.split()
)
NEUTRAL = {
    "attention.causal": True, "expert_count": 0, "expert_used_count": 0, "rope.scaling.attn_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0, "rope.scaling.yarn_ext_factor": 1.0, "use_parallel_residual": False,
}  # fmt: skip
IGNORED = ("rope.scaling.finetuned", "tensor_data_layout")

LAYER_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
OTHER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
FREQUENCIES = "rope_freqs.weight"  # by what the speed of each pair of features is divided, in files of Llama 3


@dataclass(frozen=True)
class RowsInHalves:
    """A stored projection with the rows of each head in our order."""

    stored: StoredBlocks
    heads: int

    @property
    def dtype(self) -> str:
        """The kind of numbers."""
        return self.stored.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """As in NumPy."""
        return self.stored.shape

    def blocks(self) -> np.ndarray:
        """The bytes of the blocks (a copy): (rows, blocks of a row, bytes of a block) uint8."""
        rows = self.stored.blocks()
        return rows.reshape(self.heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)

    def read(self) -> np.ndarray:
        """The array in float32."""
        return dequantize(self.blocks(), self.stored.kind).reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.read(), dtype, copy=copy)


def in_pairs(rows: np.ndarray, heads: int) -> np.ndarray:
    """A projection (rows, ...) with the rows of each head in llama.cpp's order: the inverse."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def config_fields(file: GGUF, ignore_unknown: Collection[str] = ()) -> dict[str, Any]:
    """The fields of ``config.json`` that the settings stand for.

    Raises ValueError, with the file's name, for an architecture or a setting that is not
    implemented, and for one that is missing or of a wrong type.
    """
    kind = file.get("general.architecture", str)
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ValueError(f"{file.path}: general.architecture must be one of {known}; got {kind!r:.60}")
    own = {key.removeprefix(f"{kind}."): value for key, value in file.settings.items() if key.startswith(f"{kind}.")}
    unknown = [
        f"{kind}.{name}"
        for name, value in own.items()
        if name not in SIZES and name not in READ and name not in IGNORED and f"{kind}.{name}" not in ignore_unknown
        and not (name in NEUTRAL and type(value) is type(NEUTRAL[name]) and value == NEUTRAL[name])
    ]  # fmt: skip
    if unknown:
        named = ", ".join(f"{name} = {file.settings[name]!r:.60}" for name in unknown[:10])
        raise ValueError(f"{file.path}: unknown, and may change the result: {named}{way_on(unknown)}")
    fields: dict[str, Any] = {"model_type": kind}
    fields |= {field: file.get(f"{kind}.{name}", int) for name, field in SIZES.items()}
    heads = fields["num_attention_heads"]
    fields["num_key_value_heads"] = file.get(f"{kind}.attention.head_count_kv", int, heads)
    D = file.get(f"{kind}.attention.key_length", int, fields["hidden_size"] // max(heads, 1))
    for name in ("attention.value_length", "rope.dimension_count"):
        if (size := file.get(f"{kind}.{name}", int, D)) != D:
            raise ValueError(f"{file.path}: {kind}.{name} must be the size of a head, {D}; got {size}")
    embedding = file.tensors.get("token_embd.weight")
    stored = embedding.shape[0] if embedding and len(embedding.shape) == 2 else 0
    fields |= {
        "head_dim": D,
        "vocab_size": file.get(f"{kind}.vocab_size", int, stored),
        "rms_norm_eps": _decimal(file.get(f"{kind}.attention.layer_norm_rms_epsilon", float)),
        "rope_theta": _decimal(file.get(f"{kind}.rope.freq_base", float, 10000.0)),
        "rope_scaling": _rope_scaling(file, kind),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": "blk.0.attn_output.bias" in file.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in file.tensors,
    }
    fields |= {f"{name}_token_id": _token(file, name) for name in ("bos", "eos")}
    if (pad := _token(file, "padding")) is not None:
        fields["pad_token_id"] = pad
    if FREQUENCIES in file.tensors:
        fields["rope_scaling"] = _llama3_scaling(file, fields)
    return {name: value for name, value in fields.items() if value is not None or name.endswith("token_id")}


def _decimal(value: float) -> float:
    """The shortest decimal number that is this one in float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _token(file: GGUF, name: str) -> int | None:
    """The id of a special token, None where the file names none or one that it does not have."""
    id = file.settings.get(f"tokenizer.ggml.{name}_token_id")
    tokens = file.settings.get("tokenizer.ggml.tokens")
    return id if type(id) is int and (not isinstance(tokens, list) or 0 <= id < len(tokens)) else None


def _rope_scaling(file: GGUF, kind: str) -> dict[str, Any] | None:
    """How angles are scaled, as ``rope_scaling`` of a ``config.json`` says it."""
    scaling = file.get(f"{kind}.rope.scaling.type", str, "none")
    if scaling == "none":
        return None
    found: dict[str, Any] = {"rope_type": scaling, "factor": file.get(f"{kind}.rope.scaling.factor", float)}
    for name, field in (
        ("original_context_length", "original_max_position_embeddings"),
        ("yarn_beta_fast", "beta_fast"),
        ("yarn_beta_slow", "beta_slow"),
    ):
        if f"{kind}.rope.scaling.{name}" in file.settings:
            found[field] = file.settings[f"{kind}.rope.scaling.{name}"]
    return found


def _llama3_scaling(file: GGUF, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of Llama 3's angles: the file has what comes out of them.

    All published ones have low_freq_factor 1, high_freq_factor 4 and an original context of 8,192;
    the factor is the largest of the quotients.
    """
    stored = file.tensors[FREQUENCIES].read().ravel().astype(np.float64)
    D, theta = fields["head_dim"], fields["rope_theta"]
    with np.errstate(all="ignore"):
        factor = float(np.round(stored.max(), 3))
        if stored.size == D // 2 and D > 0 and D % 2 == 0 and theta > 1 and 1 <= factor < 1e6:
            scaling = RopeScaling("llama3", factor, 8192)
            if np.allclose(rotary_speeds(D, theta) / scaling.speeds(D, theta, 1), stored, rtol=1e-4):
                return {
                    "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                }  # fmt: skip
    raise ValueError(f"{file.path}: {FREQUENCIES} holds other numbers than those of Llama 3, which is not implemented")


def weights(file: GGUF, fields: Mapping[str, Any]) -> dict[str, StoredBlocks | RowsInHalves]:
    """The tensors under Hugging Face's names; those that have no such name keep their own."""
    found: dict[str, StoredBlocks | RowsInHalves] = {}
    for name, stored in file.tensors.items():
        if name == FREQUENCIES:
            continue
        ours = hugging_face_name(name)
        if ours in found:
            raise ValueError(f"{file.path}: {ours} is there twice")
        found[ours] = stored
        if fields["model_type"] in PAIRS and (which := re.search(r"\.([qk])_proj\.(weight|bias)$", ours)):
            heads = fields["num_attention_heads" if which[1] == "q" else "num_key_value_heads"]
            if heads > 0 and stored.shape[0] == heads * fields["head_dim"]:  # else its shape is refused later
                found[ours] = RowsInHalves(stored, heads)
    return found


def hugging_face_name(name: str) -> str:
    """blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight; an unknown name stays.

    >>> hugging_face_name("output_norm.weight")
    'model.norm.weight'
    """
    parts = re.fullmatch(r"(?:blk\.(0|[1-9]\d{0,5})\.)?(\w+)\.(weight|bias)", name)
    names = LAYER_NAMES if parts and parts[1] else OTHER_NAMES
    if parts is None or parts[2] not in names:
        return name
    before = f"model.layers.{parts[1]}." if parts[1] else ""
    return f"{before}{names[parts[2]]}.{parts[3]}"


def generation_fields(file: GGUF) -> dict[str, Any]:
    """The fields of ``generation_config.json``: where a text begins and ends."""
    ends = [_token(file, name) for name in ("eos", "eot", "eom")]
    fields = {
        "bos_token_id": _token(file, "bos"),
        "eos_token_id": list(dict.fromkeys(id for id in ends if id is not None)) or None,
        "pad_token_id": _token(file, "padding"),
    }
    return {name: value for name, value in fields.items() if value is not None}


def chat_template(file: GGUF) -> str | None:
    """The chat template, or None."""
    return file.get("tokenizer.chat_template", str) if "tokenizer.chat_template" in file.settings else None
