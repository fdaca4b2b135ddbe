"""Attention: every query takes the mean of the values, weighted by how well their keys match it.

    out_t = sum_s p_ts v_s,    p_ts = exp(x_ts) / sum_s' exp(x_ts'),    x_ts = scale * (q_t . k_s)

*Why scale = 1/sqrt(D).* When the entries of q and k are independent with variance 1, q . k is a sum
of D products of variance 1: its variance is D. Scores of standard deviation sqrt(D) would make the
softmax pick one key nearly alone, and its gradient nearly zero; divided by sqrt(D), they have
variance 1 whatever the head size.

*Who sees whom.* A causal query sees no later key, or predicting the next token would be copying it.
A window hides the keys that are too far back, left padding those before ``starts[b]``. Query
t of T stands at position S - T + t among the S keys: T < S where a cache holds the keys of earlier
tokens.

*Heads.* H questions are asked at a time, each with D numbers of its own. Query heads may share the
G heads of keys and values, H / G of them each (Ainslie et al. 2023, arXiv:2305.13245).

Here all scores stand side by side, (B, H, T, S) numbers: 512 MB for 4,096 tokens and 8 heads.
``kernels/attention.py`` computes the same a tile at a time, in memory that grows with T alone.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from ..autograd.shapes import alike, floats
from ..kernels import compiled
from ..tensor import Tensor, operand
from .activations import softmax
from .attention_weights import report
from .checks import Starts, check_starts
from .elementwise import where
from .embedding import rotary_embedding
from .shaping import split

Arrays = tuple[np.ndarray, ...]


def scaled_dot_product_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    causal: bool = False,
    window: int | None = None,
    mask: Any = None,
    scale: float | None = None,
    starts: Starts = None,
) -> Tensor:
    """Let every query look at the keys and take home a weighted mean of the values (Vaswani et al.
    2017).

    q: (B, H, T, D), k, v: (B, G, S, D), H a multiple of G -> (B, H, T, D).
    y = p v,  p = softmax(scale q k^T + mask),  scale = 1 / sqrt(D) unless given.
    dv = p^T dy,  dx = p (dp - sum_s p dp)  with dp = dy v^T,  dq = scale dx k,  dk = scale dx^T q,
    dmask = dx.

    causal: query t sees keys up to S - T + t: the last query sees all, as when new tokens follow a
    cache of keys, and for T > S the first see none. (torch's is_causal counts from the start, up to
    key t; the same for T = S.) window: only the latest ``window`` of those. mask: broadcasts to
    (B, H, T, S); True (or 0) lets through, False (or -inf) hides, other numbers are added to the
    scores, and get gradients when it is a Tensor. starts: (B,) integers; the keys of row b before
    ``starts[b]`` are padding, which nobody sees. A query that sees no key gives 0, without
    gradients.
    Raises ValueError for shapes that do not fit.
    """
    _check(q, k, v, causal, window)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else float(scale)
    if mask is not None:
        if starts is not None:
            raise ValueError("scaled_dot_product_attention: give mask or starts; a mask can hide the padding, too")
        return _masked_attention(q, k, v, causal, window, mask, scale)
    starts = check_starts("scaled_dot_product_attention", starts, len(q))
    a, b, c = alike(q, k, v)
    y, lse = attention_forward(a, b, c, causal, window or 0, scale, starts)  # (B, H, T, D), (B, H, T)
    report(lambda: weights_of(a, b, lse, causal, window or 0, scale, starts))

    def backward(dy):
        return attention_backward(dy, a, b, c, y, lse, causal, window or 0, scale, starts)

    return Tensor.from_op(y, (q, k, v), backward)


@compiled("attention")
@np.errstate(under="ignore", divide="ignore")  # log(0) = -inf, of a query that sees nothing
def attention_forward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, causal: bool, window: int, scale: float, starts: Starts = None
) -> tuple[np.ndarray, np.ndarray]:
    """q: (B, H, T, D), k, v: (B, G, S, D) -> y: (B, H, T, D), and lse: (B, H, T) for backward.

    lse, the logarithm of the sum that softmax divides by, is all that is needed to have p again.
    """
    k, v = _for_each_query_head(k, q.shape[1]), _for_each_query_head(v, q.shape[1])  # (B, H, S, D)
    x = scale * (q @ k.swapaxes(-1, -2))  # (B, H, T, S): the scores
    x = np.where(visible(x.shape, causal, window, starts), x, -np.inf).astype(q.dtype)

    largest = x.max(axis=-1, keepdims=True, initial=np.finfo(q.dtype).min)  # (B, H, T, 1)
    e = np.exp(x - largest)  # nothing overflows, and the quotient is the same
    total = e.sum(axis=-1, keepdims=True)
    p = e / np.maximum(total, 1)  # total >= e^0 = 1, but 0 where nothing is seen: there p = 0
    return p @ v, (largest + np.log(total))[..., 0]


@compiled("attention")
def attention_backward(
    dy: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    y: np.ndarray,
    lse: np.ndarray,
    causal: bool,
    window: int,
    scale: float,
    starts: Starts = None,
) -> Arrays:
    """dy, y: (B, H, T, D) -> dq: (B, H, T, D), dk, dv: (B, G, S, D)."""
    H, G = q.shape[1], k.shape[1]
    p = weights_of(q, k, lse, causal, window, scale, starts)  # (B, H, T, S)
    k, v = _for_each_query_head(k, H), _for_each_query_head(v, H)  # (B, H, S, D)

    # y = p v  ->  dv = p^T dy,  dp = dy v^T
    dv = p.swapaxes(-1, -2) @ dy
    dp = dy @ v.swapaxes(-1, -2)
    # p = softmax(x)  ->  dx = p (dp - sum_s p dp),  and sum_s p_ts dp_ts = sum_s p_ts v_s . dy_t =
    # y_t . dy_t
    dx = p * (dp - (dy * y).sum(axis=-1, keepdims=True))
    # x = scale q k^T  ->  dq = scale dx k,  dk = scale dx^T q
    dq = scale * (dx @ k)
    dk = scale * (dx.swapaxes(-1, -2) @ q)
    return dq, _sum_over_query_heads(dk, G), _sum_over_query_heads(dv, G)


@np.errstate(under="ignore")
def weights_of(
    q: np.ndarray, k: np.ndarray, lse: np.ndarray, causal: bool, window: int, scale: float, starts: Starts = None
) -> np.ndarray:
    """p = exp(x - lse), the weights of an attention that was computed: (B, H, T, S), 0 where nobody
    looks.
    """
    x = scale * (q @ _for_each_query_head(k, q.shape[1]).swapaxes(-1, -2))  # (B, H, T, S)
    seen = visible(x.shape, causal, window, starts)
    return np.exp(np.where(seen, x - lse[..., None], -np.inf).astype(q.dtype))


def visible(shape: tuple[int, ...], causal: bool, window: int, starts: Starts = None) -> np.ndarray:
    """Which keys each query sees, for scores of shape (B, H, T, S): (1 or B, 1, T, S) booleans.

    >>> visible((1, 1, 2, 4), causal=True, window=2)[0, 0].astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 1, 1]])
    """
    T, S = shape[-2:]
    t = S - T + np.arange(T)[:, None]  # (T, 1), the queries' positions: they are the last T of S
    s = np.arange(S)  # (S,)
    seen = np.ones((1, 1, T, S), bool)
    if causal:
        seen = seen & (s <= t)
    if window > 0:
        seen = seen & (s > t - window)
    if starts is not None:
        seen = seen & (s >= starts[:, None, None, None])
    return seen


def _for_each_query_head(x: np.ndarray, H: int) -> np.ndarray:
    """Each of the G heads of x stands once for every query head that reads it.
    (B, G, S, D) -> (B, H, S, D).
    """
    return np.repeat(x, H // x.shape[1], axis=1)


def _sum_over_query_heads(dx: np.ndarray, G: int) -> np.ndarray:
    """What H / G query heads send back to the head that they share adds up.
    (B, H, S, D) -> (B, G, S, D).
    """
    B, H, S, D = dx.shape
    return dx.reshape(B, G, H // G, S, D).sum(axis=2)


# ---- a sequence that attends to itself -----------------------------------------------------------


class Cache(Protocol):
    """What attention needs of a cache, which keeps the keys and values of the tokens that came
    before.
    """

    @property
    def starts(self) -> Starts:
        """(B,): positions before a row's start are padding, and invisible."""

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Take in the new (B, G, T, D) keys and values, return all so far, (B, G, S, D) each."""


def self_attention(
    qkv: Tensor,
    heads: int,
    kv_heads: int | None = None,
    rotary: tuple[np.ndarray, np.ndarray] | None = None,
    window: int | None = None,
    cache: Cache | None = None,
) -> Tensor:
    """Causal attention of a sequence to itself, from the joint projection to the joined heads.

    qkv: (B, T, (H + 2 G) D), per row H queries, G keys, G values of D numbers -> y: (B, T, H D).
    y = softmax(q k^T / sqrt(D)) v for each head, over the keys up to the query's own position.
    rotary: the cos and sin by which q and k are turned, see ``rotary_embedding``. window: as in
    ``scaled_dot_product_attention``. cache: keys and values of earlier tokens, for generation; the
    result then has no gradient.
    """
    H, G = heads, kv_heads or heads
    if qkv.ndim != 3:
        raise ValueError(f"self_attention: qkv must be (B, T, (H + 2 G) D); got shape {qkv.shape}")
    B, T, width = qkv.shape
    if width % (H + 2 * G) or H % G:
        raise ValueError(
            f"self_attention: the width of qkv must be a multiple of heads + 2 kv_heads = {H + 2 * G}, and heads "
            f"one of kv_heads; got qkv {qkv.shape}, heads {H}, kv_heads {G}"
        )
    if rotary is None and cache is None:
        return _self_attention(qkv, H, G, window or 0)  # the lines below, in one operation

    D = width // (H + 2 * G)
    qkv, starts = (qkv, None) if cache is None else (qkv.detach(), cache.starts)
    q, k, v = (x.reshape(B, T, -1, D).swapaxes(1, 2) for x in split(qkv, [H * D, G * D, G * D]))
    if rotary is not None:
        q, k = rotary_embedding(q, *rotary), rotary_embedding(k, *rotary)
    if cache is not None:
        k, v = cache.extend(k, v)  # (B, G, S, D)
    y = scaled_dot_product_attention(q, k, v, causal=True, window=window, starts=starts)  # (B, H, T, D)
    return y.swapaxes(1, 2).reshape(B, T, H * D)


def _self_attention(qkv: Tensor, H: int, G: int, window: int) -> Tensor:
    """Split, attend, join. As one operation, whose gradient is one array: nothing is copied in
    between.
    """
    a = floats(qkv)
    y, lse = self_attention_forward(a, H, G, window)  # (B, T, H D), (B, H, T)

    def weights():
        q, k, _ = _split(a, H, G, G)
        return weights_of(q, k, lse, True, window, 1 / math.sqrt(q.shape[-1]))

    report(weights)

    def backward(dy):
        return (self_attention_backward(dy, a, y, lse, H, G, window),)

    return Tensor.from_op(y, (qkv,), backward)


@compiled("attention")
def self_attention_forward(qkv: np.ndarray, H: int, G: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """qkv: (B, T, (H + 2 G) D) -> y: (B, T, H D), lse: (B, H, T)."""
    q, k, v = _split(qkv, H, G, G)  # (B, H, T, D), and twice (B, G, T, D)
    y, lse = attention_forward(q, k, v, True, window, 1 / math.sqrt(q.shape[-1]))
    return _join(y), lse


@compiled("attention")
def self_attention_backward(
    dy: np.ndarray, qkv: np.ndarray, y: np.ndarray, lse: np.ndarray, H: int, G: int, window: int
) -> np.ndarray:
    """dy, y: (B, T, H D) -> dqkv: (B, T, (H + 2 G) D)."""
    q, k, v = _split(qkv, H, G, G)
    (dy,), (y,) = _split(dy, H), _split(y, H)
    dq, dk, dv = attention_backward(dy, q, k, v, y, lse, True, window, 1 / math.sqrt(q.shape[-1]))
    return _join(dq, dk, dv)


def _split(x: np.ndarray, *heads: int) -> list[np.ndarray]:
    """(B, T, sum of heads * D) -> (B, heads_i, T, D) for each i."""
    B, T, width = x.shape
    by_head = x.reshape(B, T, sum(heads), width // sum(heads)).swapaxes(1, 2)
    return np.split(by_head, np.cumsum(heads)[:-1], axis=1)


def _join(*parts: np.ndarray) -> np.ndarray:
    """The way back: (B, heads_i, T, D) for each i -> (B, T, sum of heads * D)."""
    by_token = np.concatenate(parts, axis=1).swapaxes(1, 2)
    return by_token.reshape(*by_token.shape[:2], -1)


# ---- with a mask ---------------------------------------------------------------------------------


def _masked_attention(
    q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, mask: Any, scale: float
) -> Tensor:
    """Attention made of simple operations: a mask of any form is added to the scores, and may get
    gradients.
    """
    (B, H, T, D), (G, S) = q.shape, k.shape[1:3]
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
        mask = Tensor(_hiding(mask.data, scores.dtype))
    scores = scores + (mask if mask.dtype == scores.dtype else mask.astype(scores.dtype))
    if causal:
        scores = scores + _hiding(visible(scores.shape, causal, window or 0), scores.dtype)
    blind = np.isneginf(scores.data).all(axis=-1, keepdims=True)  # a query without any key
    if blind.any():
        weights = softmax(where(blind, 0, scores)) * ~blind  # gives 0, not the NaN of an empty mean
    else:
        weights = softmax(scores)
    report(lambda: weights.data)
    return (weights.reshape(B, G, H // G * T, S) @ v).reshape(B, H, T, D)


def _hiding(seen: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """What to add to the scores: 0 where a key is seen, -inf where it is not."""
    return np.where(seen, 0, -np.inf).astype(dtype)


def _check(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None) -> None:
    for name, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim != 4:
            raise ValueError(f"scaled_dot_product_attention: {name} must be (B, heads, time, D); got {t.shape}")
    H, G = q.shape[1], k.shape[1]
    if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or G == 0 or H % G:
        raise ValueError(
            "scaled_dot_product_attention: k and v must have the same shape (B, G, S, D), with q's B and D, and G a "
            f"divisor of q's heads; got q {q.shape}, k {k.shape}, v {v.shape}"
        )
    if window is not None and (window < 1 or not causal):
        raise ValueError(f"scaled_dot_product_attention: window needs causal=True and a length >= 1; got {window}")
