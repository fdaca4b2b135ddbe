"""Llama (Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models"); also the
architecture of SmolLM2.

    ids (B, T)
      token embedding                                 embed_tokens              (B, T, C)
      num_hidden_layers times:
        x = x + attention(rms_norm(x))                input_layernorm, self_attn
        x = x + mlp(rms_norm(x))                      post_attention_layernorm, mlp
      rms_norm                                        norm
      scores                                          lm_head, or embed_tokens again (tied)      (B, T, V)

What changed since GPT-2: positions are not added to the words but turn queries and keys (rotary
embedding), so that attention sees distances; groups of heads share keys and values, which makes the
cache small; the norm does not subtract the mean; the MLP has a gate; there are no biases. Names are
those of Hugging Face's ``LlamaForCausalLM``. Models that changed one thing more (Mistral, Qwen2,
Qwen3, SmolLM3) are Llamas with another configuration: see llama_kin.py.

The paper: https://arxiv.org/abs/2302.13971; rotary embedding: https://arxiv.org/abs/2104.09864;
groups of heads: https://arxiv.org/abs/2305.13245; the gate: https://arxiv.org/abs/2002.05202.
"""  # noqa: W505

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import functional as F
from ..nn import Embedding, Linear, Module, RMSNorm, init
from ..nn.attention import join_heads, split_heads
from ..tensor import Tensor
from .base import KVCache, LanguageModel, LayerCache, as_ids, check_length
from .checks import check_divisible, check_positive
from .fast.decoding import next_logits
from .folder import fields as known
from .folder.config import config_from_dict, config_to_dict
from .folder.rope import rotary_fields, with_rotary_settings
from .rope import RopeScaling, rotary_speeds

Rotary = tuple[np.ndarray, np.ndarray]  # cosines and sines


@dataclass(frozen=True)
class LlamaConfig:
    """The sizes of a Llama; field names and defaults are Hugging Face's."""

    vocab_size: int = 32000
    hidden_size: int = 4096  # C, the width
    intermediate_size: int = 11008  # width of the MLP
    num_hidden_layers: int = 32
    num_attention_heads: int = 32  # H
    num_key_value_heads: int | None = None  # G; None: as many as heads
    head_dim: int | None = None  # D; None: hidden_size / num_attention_heads
    max_position_embeddings: int = 2048  # the context
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0  # the slowest pair of features turns once in about 2 pi theta positions
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | tuple[int, ...] | None = 2  # one id or several
    pad_token_id: int | None = None
    rope_scaling: RopeScaling | None = None  # for texts longer than those of the training: see rope.py

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    qk_norm: ClassVar[bool] = False  # whether queries and keys are normalised

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
        check_positive(self, "num_attention_heads", "max_position_embeddings")
        if self.head_dim is None:
            check_divisible(self, "hidden_size", "num_attention_heads")
        if self.num_key_value_heads is not None:
            check_divisible(self, "num_attention_heads", "num_key_value_heads")
        if self.D % 2 or self.D < 2:
            raise ValueError(f"LlamaConfig: the head size must be even, features turn in pairs; got {self.D}")
        if not self.rope_theta > 1:
            raise ValueError(f"LlamaConfig: rope_theta must be above 1; got {self.rope_theta}")
        if self.rope_scaling:
            self._check_scaling(self.rope_scaling)

    def _check_scaling(self, scaling: RopeScaling) -> None:
        if scaling.rope_type == "dynamic" and self.D == 2:
            raise ValueError("LlamaConfig: dynamic rope_scaling needs heads of more than 2 features")
        if scaling.rope_type in ("linear", "dynamic") and scaling.original != self.max_position_embeddings:
            raise ValueError(
                f"LlamaConfig: {scaling.rope_type} rope_scaling goes on from max_position_embeddings = "
                f"{self.max_position_embeddings}; got original = {scaling.original}"
            )

    @property
    def kv_heads(self) -> int:
        """G, the number of key and value heads."""
        return self.num_attention_heads if self.num_key_value_heads is None else self.num_key_value_heads

    @property
    def D(self) -> int:
        """The size of a head."""
        return self.hidden_size // self.num_attention_heads if self.head_dim is None else self.head_dim

    @property
    def context(self) -> int:
        """How many tokens the model can see."""
        s = self.rope_scaling
        return max(self.max_position_embeddings, int(s.original * s.factor) if s else 0)

    @property
    def qkv_bias(self) -> bool:
        """Whether the projections to queries, keys and values have biases."""
        return self.attention_bias

    def window(self, layer: int) -> int | None:
        """How far back a layer sees, in tokens; None: to the beginning."""
        return None

    def turns(self, layer: int) -> bool:
        """Whether a layer turns queries and keys, and so sees distances."""
        return True

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str = "config.json") -> LlamaConfig:
        """Read the fields of a ``config.json``, which may hold the rotary settings in three ways.
        """
        plain = with_rotary_settings(fields, cls.max_position_embeddings, source)
        return config_from_dict(cls, plain, source=source, **known.LLAMA)

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``, in the older and the newer way of writing the rotary
        settings.
        """
        fields = {
            "model_type": self.model_type,
            "architectures": [self.architecture],
            **config_to_dict(self, neutral=known.LLAMA["neutral"]),
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.D,
            "rope_parameters": rotary_fields(self.rope_theta, self.rope_scaling),
        }
        del fields["rope_scaling"]  # it stands in rope_parameters
        return fields


def rotary_angles(positions: np.ndarray, config: LlamaConfig) -> Rotary:
    """The cosine and sine by which each pair of features is turned at each position.

    positions: (..., T) -> two arrays (..., T, D / 2). Pair i turns by position x theta^(-2 i / D):
    the first pairs quickly, the last ones slowly, as the hands of a clock.
    """
    speeds, amplitude = rotary_speeds(config.D, config.rope_theta), 1.0
    if config.rope_scaling:
        speeds = config.rope_scaling.speeds(config.D, config.rope_theta, int(positions.max()) + 1)
        amplitude = config.rope_scaling.amplitude
    angles = positions[..., None] * speeds
    return (amplitude * np.cos(angles)).astype(np.float32), (amplitude * np.sin(angles)).astype(np.float32)


class Attention(Module):
    """Every position asks those before it, and itself; H / G heads share the keys and values of a
    group.
    """

    def __init__(self, config: LlamaConfig, rng: np.random.Generator, layer: int = 0) -> None:
        C, D, bias = config.hidden_size, config.D, config.qkv_bias
        self.heads, self.kv_heads = config.num_attention_heads, config.kv_heads  # H, G
        self.window, self.turns, self.qk_norm = config.window(layer), config.turns(layer), config.qk_norm
        self.q_proj = Linear(C, self.heads * D, bias, rng)
        self.k_proj = Linear(C, self.kv_heads * D, bias, rng)
        self.v_proj = Linear(C, self.kv_heads * D, bias, rng)
        self.o_proj = Linear(self.heads * D, C, config.attention_bias, rng)
        if self.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(D, config.rms_norm_eps), RMSNorm(D, config.rms_norm_eps)

    def forward(self, x: Tensor, rotary: Rotary, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        q = split_heads(self.q_proj(x), self.heads)  # (B, H, T, D)
        k = split_heads(self.k_proj(x), self.kv_heads)  # (B, G, T, D)
        v = split_heads(self.v_proj(x), self.kv_heads)  # (B, G, T, D)
        if self.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.turns:
            q, k = F.rotary_embedding(q, *rotary), F.rotary_embedding(k, *rotary)
        starts = None
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, G, S, D), with those of all earlier tokens
            starts = cache.starts
        y = F.scaled_dot_product_attention(q, k, v, causal=True, window=self.window, starts=starts)  # (B, H, T, D)
        return self.o_proj(join_heads(y))


class MLP(Module):
    """down(silu(gate(x)) * up(x)): one projection decides how much of another passes (Shazeer
    2020).
    """

    def __init__(self, config: LlamaConfig, rng: np.random.Generator) -> None:
        C, inner, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(C, inner, bias, rng)
        self.up_proj = Linear(C, inner, bias, rng)
        self.down_proj = Linear(inner, C, bias, rng)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Block(Module):
    """Attention, then MLP, each on a normalised copy of x and added to it."""

    def __init__(self, config: LlamaConfig, rng: np.random.Generator, layer: int = 0) -> None:
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, rng, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, rng)

    def forward(self, x: Tensor, rotary: Rotary, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.self_attn(self.input_layernorm(x), rotary, cache)
        x = x + self.mlp(self.post_attention_layernorm(x))
        return x


class Transformer(Module):
    """Embedding, blocks and the last norm: everything but the scores."""

    def __init__(self, config: LlamaConfig, rng: np.random.Generator) -> None:
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, rng, config.initializer_range)
        self.layers = [Block(config, rng, i) for i in range(config.num_hidden_layers)]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, ids: np.ndarray, positions: np.ndarray, cache: KVCache | None = None) -> Tensor:
        """Ids (B, T), positions (T,) or (B, T) -> (B, T, C)."""
        x = self.embed_tokens(ids)  # (B, T, C)
        rotary = rotary_angles(positions, self.config)  # the same for all layers
        for i, layer in enumerate(self.layers):
            x = layer(x, rotary, cache and cache.layer(i))
        return self.norm(x)


class Llama(LanguageModel):
    """``model(ids) -> logits``: ids (B, T) integers -> (B, T, V) Tensor."""

    def __init__(self, config: LlamaConfig, rng: np.random.Generator | int | None = None) -> None:
        rng = np.random.default_rng(rng)
        self.config, self.context = config, config.context
        self.reads_on = config.rope_scaling is None or config.rope_scaling.rope_type != "dynamic"
        self.model = Transformer(config, rng)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, False, rng)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = config.initializer_range
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    # 2 num_hidden_layers such products are added to x: together they begin as large
                    # as one of them
                    std /= math.sqrt(2 * config.num_hidden_layers)
                parameter.data = init.normal(rng, parameter.shape, std).data
            elif name.endswith("bias"):
                parameter.data = np.zeros_like(parameter.data)

    def forward(self, ids: Any, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """Score every next token, or only that after the last of ids.

        With a cache, ids are the tokens after those that it holds.
        """
        x = self.states(ids, cache)  # (B, T, C)
        return self.scores(x[:, -1:] if last_only else x)  # (B, T or 1, V)

    def states(self, ids: Any, cache: KVCache | None = None) -> Tensor:
        """What the last layer says of every position: (B, T) -> (B, T, C)."""
        ids = as_ids("Llama", ids)
        T, past = ids.shape[1], cache.length if cache else 0
        check_length("Llama", T, past, self.context)
        positions = cache.positions(T) if cache else np.arange(T)
        x = self.model(ids, positions, cache)
        if cache:
            cache.length += T
        return x

    def scores(self, x: Tensor) -> Tensor:
        """The score of every token of the vocabulary: (..., C) -> (..., V)."""
        return F.linear(x, self.model.embed_tokens.weight) if self.config.tie_word_embeddings else self.lm_head(x)

    def new_cache(self, batch_size: int, length: int, starts: np.ndarray | None = None) -> KVCache:
        """An empty cache for ``batch_size`` rows of up to ``length`` tokens."""
        c, dtype = self.config, self.cache_dtype or self.model.embed_tokens.weight.dtype
        return KVCache(c.num_hidden_layers, batch_size, length, c.kv_heads, c.D, dtype, starts)

    def next_logits(self, ids: np.ndarray, cache: KVCache) -> np.ndarray:
        """Read ids (B, T) after what the cache holds; return the scores (B, V) of the token that
        comes next.
        """
        return next_logits(self, ids, cache)
