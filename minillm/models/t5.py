"""T5 (Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer").

    the question, ids (B, S)                              the answer so far, decoder_ids (B, T)
      embedding                 shared                      embedding                              shared
      num_layers times:                                     num_decoder_layers times:
        x = x + self_attention(rms_norm(x))                   x = x + self_attention(rms_norm(x))            causal
                                                              x = x + cross_attention(rms_norm(x),
                                                              memory)
        x = x + feed_forward(rms_norm(x))                     x = x + feed_forward(rms_norm(x))
      rms_norm                                              rms_norm
      memory (B, S, C)  ------------------------------->    scores                shared again (tied), or lm_head
                                                            logits (B, T, V)

Reading and writing are two stacks here: the encoder reads the question in both directions at once,
the decoder writes the answer from left to right and asks the memory at every step. In
self-attention queries, keys and values are made of the same sequence; in cross-attention the
queries come from the answer, keys and values from the memory.

Positions enter as a learned bias on the scores that depends on the distance alone, in buckets that
grow wider with it; the first layer of each stack owns the table. Scores are not divided by sqrt(D):
T5 lets the first values of its queries do that. No biases anywhere else. T5 v1.1 has a gate in its
feed-forward (``gated-gelu``, Shazeer 2020) and a head of its own. Names are those of Hugging Face's
``T5ForConditionalGeneration``.

The paper: https://arxiv.org/abs/1910.10683; the gate: https://arxiv.org/abs/2002.05202.
"""  # noqa: W505

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .. import functional as F
from ..nn import Dropout, Embedding, Linear, Module, RMSNorm, init
from ..nn.attention import join_heads, split_heads
from ..tensor import Tensor, no_grad
from .base import KVCache, LanguageModel, LayerCache, as_ids
from .checks import check_one_of, check_positive
from .folder import fields as known
from .folder.config import config_from_dict, config_to_dict

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": partial(F.gelu, approximate="none"),  # the exact form
    "gelu_new": F.gelu,  # the tanh form
    "gelu_pytorch_tanh": F.gelu,
    "silu": F.silu,
    "swish": F.silu,
}


@dataclass(frozen=True)
class T5Config:
    """The sizes of a T5; the defaults are those of T5-small."""

    vocab_size: int = 32128
    d_model: int = 512  # C, the width
    d_kv: int = 64  # D, the size of a head; num_heads x d_kv need not be d_model
    d_ff: int = 2048  # width of the feed-forward
    num_layers: int = 6
    num_decoder_layers: int | None = None  # None: as many as in the encoder
    num_heads: int = 8  # H
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    initializer_factor: float = 1.0
    feed_forward_proj: str = "relu"  # an activation; with a gate: gated-gelu (v1.1), whose gelu is the tanh form
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None  # x d_model^-0.5 before the head; None: when the head is tied
    pad_token_id: int = 0
    eos_token_id: int | tuple[int, ...] | None = 1
    decoder_start_token_id: int = 0
    dense_act_fn: str | None = None  # the activation, where it is not the one of feed_forward_proj
    is_gated_act: bool | None = None  # whether there is a gate, where feed_forward_proj does not say so

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
        buckets, distance = self.relative_attention_num_buckets, self.relative_attention_max_distance
        if buckets < 4 or buckets % 4 or distance <= buckets // 2:
            raise ValueError(
                "T5Config: relative_attention_num_buckets must be a multiple of 4, and relative_attention_max_distance "
                f"more than half of it; got {buckets} and {distance}"
            )
        check_one_of(self, "feed_forward_proj", [gate + name for gate in ("", "gated-") for name in ACTIVATIONS])
        if self.dense_act_fn is not None:
            check_one_of(self, "dense_act_fn", ACTIVATIONS)

    @property
    def activation(self) -> str:
        """The activation of the feed-forward layers."""
        named = "gelu_new" if self.feed_forward_proj == "gated-gelu" else self.feed_forward_proj.removeprefix("gated-")
        return named if self.dense_act_fn is None else self.dense_act_fn

    @property
    def has_gate(self) -> bool:
        """Whether the feed-forward layers have a gate."""
        return self.feed_forward_proj.startswith("gated-") if self.is_gated_act is None else self.is_gated_act

    @property
    def scales_outputs(self) -> bool:
        """Whether the hidden state is multiplied by d_model^-0.5 before the head."""
        return self.tie_word_embeddings if self.scale_decoder_outputs is None else self.scale_decoder_outputs

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str = "config.json") -> T5Config:
        """Read the fields of a ``config.json``."""
        return config_from_dict(cls, fields, source=source, **known.T5)

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``."""
        return {
            "model_type": "t5",
            "architectures": ["T5ForConditionalGeneration"],
            **config_to_dict(self, neutral=known.T5["neutral"]),
            "scale_decoder_outputs": self.scales_outputs,
            "dense_act_fn": self.activation,
            "is_gated_act": self.has_gate,
        }


def relative_buckets(distances: np.ndarray, bidirectional: bool, buckets: int = 32, most: int = 128) -> np.ndarray:
    """The row of the bias table for each distance, key position minus query position.

    Near distances have a bucket each, far ones share buckets that grow wider logarithmically, and
    all beyond ``most`` fall into the last. Looking both ways, one half of the buckets is for keys
    that come later.

    >>> relative_buckets(np.array([0, -1, -8, -128, 1]), bidirectional=True)
    array([ 0,  1,  8, 15, 17])
    """
    offset = np.zeros_like(distances)
    if bidirectional:
        buckets //= 2
        offset = np.where(distances > 0, buckets, 0)
        far = np.abs(distances)
    else:
        far = np.maximum(-distances, 0)  # later keys are hidden anyway
    exact = buckets // 2
    # float32, as the original: a rounding at a bucket's edge decides
    growth = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(most / exact))
    wide = exact + (growth * np.float32(buckets - exact)).astype(np.int64)
    return offset + np.where(far < exact, far, np.minimum(wide, buckets - 1))


class Attention(Module):
    """Multi-head attention without scaling, to the sequence itself or to another; a first layer
    owns the bias table.
    """

    def __init__(self, config: T5Config, has_bias: bool, rng: np.random.Generator) -> None:
        C, D, H, factor = config.d_model, config.d_kv, config.num_heads, config.initializer_factor
        self.heads = H
        self.q = _linear(C, H * D, factor * (C * D) ** -0.5, rng)
        self.k = _linear(C, H * D, factor * C**-0.5, rng)
        self.v = _linear(C, H * D, factor * C**-0.5, rng)
        self.o = _linear(H * D, C, factor * (H * D) ** -0.5, rng)
        if has_bias:
            self.relative_attention_bias = Embedding(config.relative_attention_num_buckets, H, rng, factor * C**-0.5)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """What the memory (B, S, C) offers: keys and values, (B, H, S, D) each."""
        return split_heads(self.k(memory), self.heads), split_heads(self.v(memory), self.heads)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Any, causal: bool = False) -> Tensor:
        """x (B, T, C) asks; mask: what is added to the scores, or booleans, False where not to look
        -> (B, T, C).
        """
        k, v = keys_values
        q = split_heads(self.q(x), self.heads)  # (B, H, T, D)
        y = F.scaled_dot_product_attention(q, k, v, causal=causal, mask=mask, scale=1.0)
        return self.o(join_heads(y))


class FeedForward(Module):
    """Two linear layers, or three with a gate: wo(act(wi_0 x) * wi_1 x)."""

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        C, inner, factor = config.d_model, config.d_ff, config.initializer_factor
        self.act, self.has_gate = ACTIVATIONS[config.activation], config.has_gate
        if self.has_gate:
            self.wi_0 = _linear(C, inner, factor * C**-0.5, rng)
            self.wi_1 = _linear(C, inner, factor * C**-0.5, rng)
        else:
            self.wi = _linear(C, inner, factor * C**-0.5, rng)
        self.wo = _linear(inner, C, factor * inner**-0.5, rng)
        self.dropout = Dropout(config.dropout_rate, rng)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        h = self.act(self.wi_0(x)) * self.wi_1(x) if self.has_gate else self.act(self.wi(x))  # (B, T, d_ff)
        return self.wo(self.dropout(h))


class SelfAttentionLayer(Module):
    """x + attention(norm(x)) of a sequence with itself."""

    def __init__(self, config: T5Config, has_bias: bool, rng: np.random.Generator) -> None:
        self.SelfAttention = Attention(config, has_bias, rng)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate, rng)

    def forward(self, x: Tensor, mask: Any, causal: bool, cache: LayerCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        h = self.layer_norm(x)
        k, v = self.SelfAttention.keys_values(h)
        if cache is not None:
            k, v = cache.extend(k, v)  # (B, H, S, D), with those of all earlier tokens
        return x + self.dropout(self.SelfAttention(h, (k, v), mask, causal))


class CrossAttentionLayer(Module):
    """x + attention(norm(x), memory): the decoder asks what the encoder has read."""

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        self.EncDecAttention = Attention(config, False, rng)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate, rng)

    def forward(self, x: Tensor, keys_values: tuple[Tensor, Tensor], mask: Any) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return x + self.dropout(self.EncDecAttention(self.layer_norm(x), keys_values, mask))


class FeedForwardLayer(Module):
    """x + feed_forward(norm(x))."""

    def __init__(self, config: T5Config, rng: np.random.Generator) -> None:
        self.DenseReluDense = FeedForward(config, rng)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate, rng)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return x + self.dropout(self.DenseReluDense(self.layer_norm(x)))


class Block(Module):
    """One layer of a stack: self-attention, in the decoder cross-attention, feed-forward."""

    def __init__(self, config: T5Config, is_decoder: bool, has_bias: bool, rng: np.random.Generator) -> None:
        attention = SelfAttentionLayer(config, has_bias, rng)
        cross = [CrossAttentionLayer(config, rng)] if is_decoder else []
        self.layer: list[Any] = [attention, *cross, FeedForwardLayer(config, rng)]

    def forward(
        self, x: Tensor, bias: Tensor, causal: bool, memory: Any, visible: np.ndarray | None, cache: LayerCache | None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C).

        bias: what distance adds to the scores. memory: keys and values of cross-attention, None in
        the encoder; visible: where the memory may be looked at.
        """
        x = self.layer[0](x, bias, causal, cache)
        if memory is not None:
            x = self.layer[1](x, memory, visible)
        return self.layer[-1](x)


class Stack(Module):
    """The encoder or the decoder."""

    def __init__(self, config: T5Config, is_decoder: bool, rng: np.random.Generator) -> None:
        layers = (config.num_decoder_layers or config.num_layers) if is_decoder else config.num_layers
        self.config, self.is_decoder = config, is_decoder
        self.block = [Block(config, is_decoder, i == 0, rng) for i in range(layers)]
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)
        self.dropout = Dropout(config.dropout_rate, rng)

    def position_bias(self, T: int, S: int) -> Tensor:
        """What distance adds to the scores: (1, H, T, S) for queries at the last T of S positions.
        """
        distances = np.arange(S)[None, :] - np.arange(S - T, S)[:, None]  # (T, S), key minus query
        rows = relative_buckets(
            distances,
            not self.is_decoder,
            self.config.relative_attention_num_buckets,
            self.config.relative_attention_max_distance,
        )
        table = self.block[0].layer[0].SelfAttention.relative_attention_bias
        return table(rows).transpose(2, 0, 1).reshape(1, -1, T, S)

    def forward(self, x: Tensor, visible: np.ndarray | None, memory: list | None, cache: KVCache | None) -> Tensor:
        """x (B, T, C) -> (B, T, C).

        visible: (B, 1, 1, S) booleans, False at padding of the encoder's ids; None: all visible.
        memory: keys and values of cross-attention for each layer, in the decoder.
        """
        T, past = x.shape[1], cache.length if cache else 0
        bias = self.position_bias(T, past + T)
        if not self.is_decoder and visible is not None:
            bias = bias + np.where(visible, 0, -np.inf).astype(x.dtype)
        x = self.dropout(x)
        for i, block in enumerate(self.block):
            its_memory, its_cache = memory and memory[i], cache and cache.layer(i)
            x = block(x, bias, self.is_decoder, its_memory, visible, its_cache)
        return self.dropout(self.final_layer_norm(x))


class T5Cache:
    """What the decoder remembers: its own keys and values, and those of the encoder's memory,
    computed once.
    """

    def __init__(self, own: KVCache, memory: list[tuple[Tensor, Tensor]], visible: np.ndarray | None) -> None:
        self.own, self.memory, self.visible = own, memory, visible

    @property
    def length(self) -> int:
        """How many decoder tokens it holds."""
        return self.own.length

    def reorder(self, rows: np.ndarray) -> T5Cache:
        """A cache whose row i goes on from row ``rows[i]`` of this one."""
        memory = [(Tensor(k.data[rows]), Tensor(v.data[rows])) for k, v in self.memory]
        return T5Cache(self.own.reorder(rows), memory, None if self.visible is None else self.visible[rows])


class T5(LanguageModel):
    """``model(ids, decoder_ids) -> logits``: (B, S) and (B, T) integers -> (B, T, V) Tensor.

    ids that equal ``pad_token_id`` are padding and seen by no one. For training, ``decoder_ids``
    are the targets moved right by one, behind ``decoder_start_token_id``.
    """

    is_encoder_decoder = True
    reads_on = False  # another question changes what the encoder makes of each of its tokens

    def __init__(self, config: T5Config, rng: np.random.Generator | int | None = None) -> None:
        rng = np.random.default_rng(rng)
        self.config = config
        self.shared = Embedding(config.vocab_size, config.d_model, rng, config.initializer_factor)
        self.encoder = Stack(config, False, rng)
        self.decoder = Stack(config, True, rng)
        if not config.tie_word_embeddings:
            self.lm_head = _linear(config.d_model, config.vocab_size, config.initializer_factor, rng)

    def forward(self, ids: Any, decoder_ids: Any, cache: T5Cache | None = None) -> Tensor:
        """Score every next token of the decoder; with a cache, ``ids`` were read when it was made,
        and are not used.
        """
        return self.scores(self.states(ids, decoder_ids, cache))  # (B, T, V)

    def states(self, ids: Any, decoder_ids: Any, cache: T5Cache | None = None) -> Tensor:
        """What the last layer says of every position of the decoder: (B, S), (B, T) -> (B, T, C).
        """
        decoder_ids = as_ids("T5", decoder_ids)
        if cache is None:
            memory, visible = self.encode(ids)
            return self.decoder(self.shared(decoder_ids), visible, self.cross_keys_values(memory), None)
        x = self.decoder(self.shared(decoder_ids), cache.visible, cache.memory, cache.own)
        cache.own.length += x.shape[1]
        return x

    def scores(self, x: Tensor) -> Tensor:
        """The score of every token of the vocabulary: (..., C) -> (..., V)."""
        if self.config.scales_outputs:
            x = x * self.config.d_model**-0.5
        return F.linear(x, self.shared.weight) if self.config.tie_word_embeddings else self.lm_head(x)

    def encode(self, ids: Any) -> tuple[Tensor, np.ndarray | None]:
        """Read ids (B, S): the memory (B, S, C), and where it may be looked at, (B, 1, 1, S) or
        None for everywhere.
        """
        ids = as_ids("T5", ids)
        real = ids != self.config.pad_token_id
        visible = None if real.all() else real[:, None, None, :]
        return self.encoder(self.shared(ids), visible, None, None), visible

    def cross_keys_values(self, memory: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the memory for every decoder layer."""
        return [block.layer[1].EncDecAttention.keys_values(memory) for block in self.decoder.block]

    def new_cache(
        self, batch_size: int, length: int, starts: np.ndarray | None = None, encoder_ids: Any = None
    ) -> T5Cache:
        """Read ``encoder_ids`` (batch_size, S) and make room for ``length`` decoder tokens per row.
        """
        if encoder_ids is None:
            raise ValueError("T5.new_cache: encoder_ids must be given, the (B, S) ids that the decoder answers to")
        c, dtype = self.config, self.shared.weight.dtype
        with no_grad():
            memory, visible = self.encode(encoder_ids)
            cross = self.cross_keys_values(memory)
        layers = c.num_decoder_layers or c.num_layers
        return T5Cache(KVCache(layers, batch_size, length, c.num_heads, c.d_kv, dtype), cross, visible)

    def next_logits(self, ids: np.ndarray, cache: T5Cache) -> np.ndarray:
        """Read decoder ids (B, T) after what the cache holds; return the scores (B, V) of the next
        token.
        """
        with no_grad():
            return self(None, ids, cache=cache).data[:, -1]


def _linear(inputs: int, outputs: int, std: float, rng: np.random.Generator) -> Linear:
    layer = Linear(inputs, outputs, False, rng)
    layer.weight = init.normal(rng, (outputs, inputs), std)
    return layer
