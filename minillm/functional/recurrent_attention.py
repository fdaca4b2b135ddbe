"""Attention of a recurrent layer: each step looks back at the states of a window of steps before
it.

    out_t = sum_s p_ts value_s  over  t - window <= s < t,    p_t = softmax of the scores x_ts

Scores are dot products, as in ``attention.py``, or what a small network says of query and key. The
latter is the first attention there was (Bahdanau et al. 2015). A dot product scores all pairs by
one matrix product; with the network each pair needs C tanh of its own, so it is many times slower
for the same window, and no better at its task.
"""

from __future__ import annotations

import numpy as np

from ..autograd.shapes import alike, total
from ..kernels import compiled
from ..tensor import Tensor
from .attention import scaled_dot_product_attention
from .attention_weights import report
from .checks import Starts, check_starts


def past_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    window: int,
    score_weight: Tensor | None = None,
    starts: Starts = None,
) -> Tensor:
    """Mix the values of the ``window`` steps before each query, weighted by how well their keys
    match it.

    query: (B, T, C), keys, values: (B, P + T, C), P steps before the first query's and then its own
    -> (B, T, C).
    out_t = sum_s p_ts value_s over P + t - window <= s < P + t,  p_t = softmax of the scores x_ts.
    The query's own step is not among them: what it knows is at hand without attention. Where there
    is no past, out is 0.
    x_ts = query_t . key_s / sqrt(C) (Luong et al. 2015; scaled as by Vaswani et al. 2017), or, with
    ``score_weight`` w (C,), x_ts = w . tanh(query_t + key_s) (Bahdanau et al. 2015).
    starts: (B,) integers; steps s < ``starts[b]`` are padding and not seen.
    Raises ValueError for shapes that do not fit.
    """
    fits = query.ndim == keys.ndim == 3 and keys.shape[::2] == query.shape[::2] and keys.shape[1] >= query.shape[1]
    if not fits or keys.shape != values.shape:
        raise ValueError(
            "past_attention: expected query (B, T, C), keys and values (B, P + T, C); "
            f"got {query.shape}, {keys.shape}, {values.shape}"
        )
    if score_weight is not None and score_weight.shape != query.shape[-1:]:
        raise ValueError(f"past_attention: score_weight must be (C,) = {query.shape[-1:]}; got {score_weight.shape}")
    if window < 1:
        raise ValueError(f"past_attention: window must be at least 1; got {window}")
    if keys.shape[1] == 1:
        return Tensor(np.zeros_like(query.data))  # a single step without a past
    starts = check_starts("past_attention", starts, len(query))
    # the last step is in nobody's past; without it, the step before a query's own stands at the
    # query's position
    keys, values = keys[:, :-1], values[:, :-1]
    if score_weight is not None:
        return _additive_attention(query, keys, values, score_weight, window, starts)
    q, k, v = (x[:, None] for x in (query, keys, values))  # (B, 1, T or S, C): one head
    out = scaled_dot_product_attention(q, k, v, causal=True, window=window, starts=starts)[:, 0]
    out._op = "past_attention"  # the name that messages give it
    return out


def _additive_attention(
    query: Tensor, keys: Tensor, values: Tensor, score_weight: Tensor, window: int, starts: Starts
) -> Tensor:
    """Query t stands at position S - T + t of the S keys, and sees the latest ``window`` up to
    there.
    """
    inputs = query, keys, values, score_weight
    q, k, v, w = alike(*inputs)
    out, p = additive_attention_forward(q, k, v, w, window, starts)
    report(lambda: _by_key(p, k.shape[1])[:, None])  # (B, 1, T, S): one head

    def backward(dout):
        return additive_attention_backward(dout, q, k, v, w, p)

    return Tensor.from_op(out, inputs, backward, op="past_attention")


@compiled("additive")
def additive_attention_forward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, w: np.ndarray, window: int, starts: Starts = None
) -> tuple[np.ndarray, np.ndarray]:
    """q: (B, T, C), k: (B, S, C), v: (B, S, E), w: (C,) -> out: (B, T, E), p: (B, T, window).

    p[:, t, j] belongs to the key at position - window + 1 + j. A query that sees nothing gives 0.
    """
    (B, T, _), S = q.shape, k.shape[1]
    out, p = np.zeros((B, T, v.shape[2]), q.dtype), np.zeros((B, T, window), q.dtype)
    first = np.zeros(B, int) if starts is None else starts
    for t in range(max(0, T - S), T):
        lo, hi = _keys_of(t, T, S, window)
        x = np.tanh(q[:, t, None] + k[:, lo:hi]) @ w  # (B, hi - lo): the scores
        x = np.where(np.arange(lo, hi) >= first[:, None], x, -np.inf).astype(q.dtype)
        e = np.exp(x - x.max(axis=1, keepdims=True, initial=np.finfo(q.dtype).min))
        p_t = e / np.maximum(e.sum(axis=1, keepdims=True), 1)  # the sum is at least e^0, or 0 where nothing is seen
        p[:, t, window - (hi - lo) :] = p_t
        out[:, t] = (p_t[:, None] @ v[:, lo:hi])[:, 0]  # (B, E)
    return out, p


@compiled("additive")
def additive_attention_backward(
    dout: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, w: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """dout: (B, T, E) -> dq, dk, dv, dw.

    The tanh of a pair are computed again: kept, they would be C times larger than p.
    """
    T, S, window = q.shape[1], k.shape[1], p.shape[2]
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    dw = np.zeros(w.shape, np.float64)  # a sum over all pairs
    for t in range(max(0, T - S), T):
        lo, hi = _keys_of(t, T, S, window)
        p_t = p[:, t, window - (hi - lo) :]  # (B, hi - lo), 0 where a row does not see
        # out = sum_s p_s v_s  ->  dv_s = p_s dout,  dp_s = v_s . dout
        dv[:, lo:hi] += p_t[:, :, None] * dout[:, t, None]
        dp = (v[:, lo:hi] @ dout[:, t, :, None])[..., 0]
        # p = softmax(x)  ->  dx = p (dp - sum_s p dp)
        dx = p_t * (dp - (p_t * dp).sum(axis=1, keepdims=True))
        # x_s = w . a_s,  a_s = tanh(q + k_s)  ->  dw = sum_s dx_s a_s,  d(q + k_s) = dx_s w (1 -
        # a_s^2)
        a = np.tanh(q[:, t, None] + k[:, lo:hi])  # (B, hi - lo, C)
        dw += total(dx[..., None] * a, axis=(0, 1))
        inside = dx[..., None] * w * (1 - a**2)
        dq[:, t] = inside.sum(axis=1)
        dk[:, lo:hi] += inside
    return dq, dk, dv, dw.astype(w.dtype)


def _by_key(p: np.ndarray, S: int) -> np.ndarray:
    """Weights by their place in the window, (B, T, window) -> by key, (B, T, S)."""
    _, T, window = p.shape
    place = np.arange(S) - np.arange(S - T, S)[:, None] + window - 1  # (T, S), where the key of each is in p
    inside = (place >= 0) & (place < window)
    return np.where(inside, np.take_along_axis(p, np.where(inside, place, 0)[None], axis=-1), p.dtype.type(0))


def _keys_of(t: int, T: int, S: int, window: int) -> tuple[int, int]:
    """The range of keys that query t can see."""
    position = S - T + t
    return max(0, position - window + 1), position + 1
