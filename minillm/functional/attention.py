"""Attention: every position looks at others, and takes home a mean of what they offer."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from .. import kernels
from ..tensor import Tensor, operand
from .activations import softmax
from .elementwise import where


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    window: int | None = None,
    mask: Any = None,
    scale: float | None = None,
    starts: np.ndarray | None = None,
) -> Tensor:
    """Let every query look at the keys and take home a mean of the values, weighted by likeness (Vaswani et al. 2017).

    q: (B, H, T, D), k, v: (B, G, S, D), H a multiple of G -> (B, H, T, D).
    y = p v,  p = softmax(q k^T scale + mask),  scale = 1 / sqrt(D) unless given: a dot product of D independent terms
    has variance D, and without the division softmax would start almost one-hot, with hardly a gradient.
    dv = p^T dy,   ds = p (dp - sum_s p dp)  with dp = dy v^T,   dq = scale ds k,   dk = scale ds^T q,   dmask = ds
    causal: query t sees keys up to S - T + t: the last query sees all, as when new tokens follow a cache of keys, and
    for T > S the first see none. (torch's is_causal counts from the start, up to key t; the same for T = S.) window:
    only the latest ``window`` of those. mask: broadcasts to (B, H, T, S); True (or 0) lets through, False (or -inf)
    hides, other numbers are added to the scores, and get gradients when it is a Tensor. A query that sees no key gives
    0, without gradients. starts: (B,) integers; the keys of row b before ``starts[b]`` are padding, which nobody sees.
    Raises ValueError for shapes that do not fit.
    """
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim != 4:
            raise ValueError(f"scaled_dot_product_attention: {name} must be (B, heads, time, D); got {t.shape}")
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[1] % k.shape[1]:
        raise ValueError(
            "scaled_dot_product_attention: k and v must have the same shape (B, G, S, D), with q's B and D, and G a "
            f"divisor of q's heads; got q {q.shape}, k {k.shape}, v {v.shape}"
        )
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"scaled_dot_product_attention: window needs causal=True and a length >= 1; got {window}")
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if mask is not None:
        if starts is not None:
            raise ValueError("scaled_dot_product_attention: give mask or starts; a mask can hide the padding, too")
        return _masked_attention(q, k, v, causal, window, mask, scale)
    # (B, H, T, D) -> (B, T, H, D), a view: the kernels' order is the one in which projections leave their rows
    qt, kt, vt = (t.data.swapaxes(1, 2) for t in (q, k, v))
    options: dict[str, Any] = {"causal": causal, "window": window or 0, "scale": scale, "starts": starts}
    out, lse = kernels.attention_forward(qt, kt, vt, **options)

    def backward(dy):  # (B, H, T, D)
        gradients = tuple(np.empty_like(x.swapaxes(1, 2), order="C") for x in (qt, kt, vt))  # as the inputs lie
        into = tuple(g.swapaxes(1, 2) for g in gradients)
        kernels.attention_backward(dy.swapaxes(1, 2), qt, kt, vt, out, lse, **options, into=into)
        return gradients

    return Tensor.from_op(out.swapaxes(1, 2), (q, k, v), backward)


def _masked_attention(q, k, v, causal, window, mask, scale):
    """The same from simple operations, with the whole (T, S) matrix of scores: the definition of attention."""
    B, H, T, D = q.shape
    G, S = k.shape[1:3]
    grouped = q.reshape(B, G, H // G * T, D)  # the heads that share a key head stand below one another
    scores = (grouped @ k.swapaxes(-1, -2)).reshape(B, H, T, S)
    if scale != 1:  # T5 has none, and its scores are many
        scores = scores * scale
    mask = operand(mask, scores)
    fits = mask.ndim <= 4 and all(m in (1, n) for m, n in zip(mask.shape[::-1], scores.shape[::-1], strict=False))
    if mask.dtype.kind not in "bf" or not fits:
        raise ValueError(
            "scaled_dot_product_attention: mask must be booleans (True lets through) or floats (added to the scores) "
            f"that broadcast to (B, H, T, S) = {scores.shape}; got {mask.dtype} of shape {mask.shape}"
        )
    if mask.dtype == bool:
        mask = Tensor(np.where(mask.data, scores.dtype.type(0), scores.dtype.type(-np.inf)))
    scores = scores + (mask if mask.dtype == scores.dtype else mask.astype(scores.dtype))
    if causal:
        t, s = np.arange(S - T, S)[:, None], np.arange(S)
        seen = (s <= t) & (s > t - (window or S))
        scores = scores + np.where(seen, 0, -np.inf).astype(scores.dtype)
    blind = np.isneginf(scores.data).all(axis=-1, keepdims=True)  # a query without any key
    if blind.any():
        weights = softmax(where(blind, 0, scores)) * ~blind  # gives 0, not the NaN of an empty mean
    else:
        weights = softmax(scores)
    return (weights.reshape(B, G, H // G * T, S) @ v).reshape(B, H, T, D)


class LayerCache(Protocol):
    """What self-attention needs of a cache: it keeps the keys and values of the tokens that came before."""

    @property
    def starts(self) -> np.ndarray | None:
        """(B,): positions before a row's start are padding, and invisible."""

    def append(self, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take in the new (B, T, G, D) keys and values, return all so far, (B, S, G, D) each."""


def self_attention(
    qkv: Tensor,
    heads: int,
    kv_heads: int | None = None,
    rotary: tuple[np.ndarray, np.ndarray] | None = None,
    window: int | None = None,
    cache: LayerCache | None = None,
) -> Tensor:
    """Causal attention of a sequence with itself, from the joint projection to the joined heads, in one piece.

    qkv: (B, T, (H + 2 G) D), per row H queries, G keys, G values of D numbers -> y: (B, T, H D).
    Equal to splitting, turning q and k (``rotary_embedding``), ``scaled_dot_product_attention(causal=True)`` and
    joining the heads, without the copies in between. cache: keys and values of earlier tokens, for generation: the
    result then has no gradient.
    """
    G = kv_heads or heads
    B, T, width = qkv.shape
    if width % (heads + 2 * G) or heads % G:
        raise ValueError(
            f"self_attention: the width of qkv must be a multiple of heads + 2 kv_heads = {heads + 2 * G}, and heads "
            f"one of kv_heads; got qkv {qkv.shape}, heads {heads}, kv_heads {G}"
        )
    D = width // (heads + 2 * G)
    options: dict[str, Any] = {"causal": True, "window": window or 0, "scale": 1 / math.sqrt(D)}
    packed = qkv.data
    if rotary is not None:
        turned = kernels.rotary_packed_forward(packed.reshape(B * T, width), *rotary, heads + G, D)
        packed = turned.reshape(B, T, width)
    if cache is not None:
        q, k, v = (
            part.reshape(B, T, -1, D) for part in np.split(packed, [heads * D, (heads + G) * D], axis=-1)
        )  # (B, T, H or G, D)
        k, v = cache.append(k, v)  # (B, S, G, D)
        out, _ = kernels.attention_forward(q, k, v, starts=cache.starts, **options)
        return Tensor(out.reshape(B, T, heads * D))
    out, lse = kernels.attention_packed_forward(packed, heads, G, **options)  # (B, T, H D)

    def backward(dy):
        dqkv = kernels.attention_packed_backward(dy, packed, out, lse, heads, G, **options)
        if rotary is not None:
            cos, sin = rotary
            kernels.rotary_packed_(dqkv.reshape(B * T, width), cos, -sin, heads + G, D)
        return (dqkv,)

    return Tensor.from_op(out, (qkv,), backward)
