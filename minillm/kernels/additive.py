"""Additive attention over a window: how well a key matches a query is said by a small network (Bahdanau et al. 2015).

    out_t = sum_s p_ts value_s,    p_t = softmax over the seen s of x_ts,    x_ts = w . tanh(q_t + k_s)

The first attention there was. A dot product (``attention.py``) scores all pairs by one matrix product; here each pair
needs C tanh of its own, so it is many times slower for the same window, and no better at its task.

Query t stands at position S - T + t and sees the latest ``window`` keys up to its own position, none before ``starts``:

    max(start, position - window + 1) <= s <= position

The tanh of a pair are computed again in backward: kept, they would be C times larger than the probabilities, of which
there are O(T window). Threads share the queries in forward, the rows of the batch in backward.
"""

from __future__ import annotations

import numpy as np

from ._jit import JIT, contiguous, exp, jit, kernel, like, prange, tanh
from .rows import sum_rows

Starts = np.ndarray | None
QUERIES = 16  # of one task
LITTLE = 1 << 15  # tanh: some 10 microseconds, about what waking a thread costs


def _seen_numpy(t: int, T: int, S: int, window: int, starts: Starts, B: int) -> tuple[int, int, np.ndarray]:
    """The range of keys that query t can see, and which rows see which of them: (B, hi - lo) booleans."""
    position = S - T + t
    lo, hi = max(0, position - window + 1), position + 1
    begin = np.zeros(B, int) if starts is None else np.asarray(starts)
    return lo, hi, np.arange(lo, hi) >= begin[:, None]


def additive_attention_forward_numpy(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, w: np.ndarray, window: int, starts: Starts = None
) -> tuple[np.ndarray, np.ndarray]:
    """q: (B, T, C), k: (B, S, C), v: (B, S, E), w: (C,) -> out: (B, T, E), p: (B, T, window).

    p[:, t, j] belongs to the key at position - window + 1 + j. A query that sees nothing gives 0.
    """
    (B, T, _), S = q.shape, k.shape[1]
    out, p = np.zeros((B, T, v.shape[2]), q.dtype), np.zeros((B, T, window), q.dtype)
    for t in range(max(0, T - S), T):
        lo, hi, seen = _seen_numpy(t, T, S, window, starts, B)
        x = np.tanh(q[:, t, None] + k[:, lo:hi]) @ w  # (B, hi - lo)
        largest = np.where(seen, x, -np.inf).max(axis=1, keepdims=True)
        e = np.exp(np.where(seen, x - np.where(seen.any(axis=1, keepdims=True), largest, 0), -np.inf))
        weights = e / np.maximum(e.sum(axis=1, keepdims=True), 1e-30)  # no row of ours sums to less, but to 0
        p[:, t, window - (hi - lo) :] = weights
        out[:, t] = (weights[:, None] @ v[:, lo:hi])[:, 0]
    return out, p


def additive_attention_backward_numpy(
    dout: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, w: np.ndarray, p: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of ``additive_attention_forward``: dq, dk, dv, dw."""
    (B, T, _), S, window = q.shape, k.shape[1], p.shape[2]
    dq, dk, dv, dw = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v), np.zeros_like(w)
    for t in range(max(0, T - S), T):
        lo, hi, _ = _seen_numpy(t, T, S, window, None, B)
        weights = p[:, t, window - (hi - lo) :]  # (B, hi - lo), 0 where a row does not see
        # out = sum_s p_s v_s  ->  dv_s = p_s dout,  dp_s = v_s . dout;   p = softmax(x)  ->  dx = p (dp - p . dp)
        dv[:, lo:hi] += weights[:, :, None] * dout[:, t, None]
        dp = (v[:, lo:hi] @ dout[:, t, :, None])[..., 0]
        dx = weights * (dp - (weights * dp).sum(axis=1, keepdims=True))
        # x_s = w . a_s,  a_s = tanh(q + k_s)  ->  dw = sum_s dx_s a_s,  d(q + k_s) = dx_s w (1 - a_s^2)
        a = np.tanh(q[:, t, None] + k[:, lo:hi])  # (B, hi - lo, C)
        dw += (dx[..., None] * a).sum(axis=(0, 1))
        inside = dx[..., None] * w * (1 - a**2)
        dq[:, t] = inside.sum(axis=1)
        dk[:, lo:hi] += inside
    return dq, dk, dv, dw


@jit(inner=True)
def _score(q, k, w):
    x = like(q, 0)
    for j in range(q.size):
        x += w[j] * tanh(q[j] + k[j])
    return x


@jit(inner=True)
def _add_scaled(factor, x, y):
    for j in range(x.size):
        y[j] += factor * x[j]


@jit(inner=True)
def _dot(x, y):
    total = like(x, 0)
    for j in range(x.size):
        total += x[j] * y[j]
    return total


@jit(inner=True)
def _softmax(x):
    peak = x[0]
    for j in range(x.size):
        peak = max(peak, x[j])
    total = like(x, 0)
    for j in range(x.size):
        x[j] = exp(x[j] - peak)
        total += x[j]
    for j in range(x.size):
        x[j] /= total


@jit(inner=True)
def _forward_queries(b, first, last, q, k, v, w, starts, out, p):
    T, S, window = q.shape[1], k.shape[1], p.shape[2]
    for t in range(first, last):
        oldest = S - T + t - window + 1  # the key of p[b, t, 0]
        lo = min(max(oldest, starts[b], 0) - oldest, window)
        weights = p[b, t]
        weights[:lo] = 0
        out[b, t] = 0
        if lo < window:
            for j in range(lo, window):
                weights[j] = _score(q[b, t], k[b, oldest + j], w)
            _softmax(weights[lo:])
            for j in range(lo, window):
                _add_scaled(weights[j], v[b, oldest + j], out[b, t])


@jit(inner=True)
def _pair_backward(dx, q, k, w, a, dq, dk, dw):
    one = like(a, 1)
    for j in range(a.size):
        a[j] = tanh(q[j] + k[j])
    for j in range(a.size):
        dw[j] += dx * a[j]
    for j in range(a.size):
        a[j] = dx * w[j] * (one - a[j] * a[j])
    for j in range(a.size):
        dq[j] += a[j]
    for j in range(a.size):
        dk[j] += a[j]


@jit(inner=True)
def _backward_row(dout, q, k, v, w, p, dq, dk, dv, dw):
    # q, dq: (T, C), k, dk: (S, C), v, dv: (S, E), p: (T, window)
    (T, C), S, window = q.shape, k.shape[0], p.shape[1]
    dx, a = np.empty(window, q.dtype), np.empty(C, q.dtype)
    dq[:], dk[:], dv[:], dw[:] = 0, 0, 0, 0
    for t in range(T):
        oldest = S - T + t - window + 1
        lo = max(0, -oldest)
        mean = like(a, 0)
        for j in range(lo, window):
            dx[j] = _dot(v[oldest + j], dout[t])
            mean += p[t, j] * dx[j]
        for j in range(lo, window):
            if p[t, j] != 0:
                s = oldest + j
                _add_scaled(p[t, j], dout[t], dv[s])
                _pair_backward(p[t, j] * (dx[j] - mean), q[t], k[s], w, a, dq[t], dk[s], dw)


@jit(parallel=True)
def _forward(q, k, v, w, starts, out, p):
    B, T, _ = q.shape
    blocks = (T + QUERIES - 1) // QUERIES
    if p.size * w.size < LITTLE:
        for b in range(B):
            _forward_queries(b, np.int64(0), T, q, k, v, w, starts, out, p)
    else:
        for task in prange(B * blocks):
            b, first = np.int64(task) // blocks, np.int64(task) % blocks * QUERIES
            _forward_queries(b, first, min(first + QUERIES, T), q, k, v, w, starts, out, p)


@jit(parallel=True)
def _backward(dout, q, k, v, w, p, dq, dk, dv, dw):
    if p.size * w.size < LITTLE:
        for b in range(q.shape[0]):
            _backward_row(dout[b], q[b], k[b], v[b], w, p[b], dq[b], dk[b], dv[b], dw[b])
    else:
        for b in prange(q.shape[0]):
            _backward_row(dout[b], q[b], k[b], v[b], w, p[b], dq[b], dk[b], dv[b], dw[b])


@kernel(twin=additive_attention_forward_numpy)
def additive_attention_forward(q, k, v, w, window, starts=None):  # noqa: D103
    if not JIT:
        return additive_attention_forward_numpy(q, k, v, w, window, starts)
    q, k, v, w = (contiguous(a) for a in (q, k, v, w))
    B, T, _ = q.shape
    starts = np.zeros(B, np.int64) if starts is None else np.asarray(starts, np.int64)
    out, p = np.empty((B, T, v.shape[2]), q.dtype), np.empty((B, T, window), q.dtype)
    _forward(q, k, v, w, starts, out, p)
    return out, p


@kernel(twin=additive_attention_backward_numpy)
def additive_attention_backward(dout, q, k, v, w, p):  # noqa: D103
    if not JIT:
        return additive_attention_backward_numpy(dout, q, k, v, w, p)
    dout, q, k, v, w = (contiguous(a) for a in (dout, q, k, v, w))
    dq, dk, dv, dw = np.empty_like(q), np.empty_like(k), np.empty_like(v), np.empty((len(q), len(w)), q.dtype)
    _backward(dout, q, k, v, w, p, dq, dk, dv, dw)
    return dq, dk, dv, sum_rows(dw)
