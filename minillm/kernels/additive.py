"""The loops of attention scored by a network; what is computed is told in
``functional/recurrent_attention.py``.

The tanh of a pair are computed again in backward: kept, they would be C times larger than the
probabilities, of which there are O(T window). Threads share the queries in forward, the rows of the
batch in backward.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit, prange
from .layout import contiguous, integers
from .vector_math import like, tanh
from .vectors import add_scaled, dot, exponentials, subtract, sum_of

Starts = np.ndarray | None
Array = np.ndarray
QUERIES = 16  # of one task
LITTLE = 1 << 15  # tanh: some 10 microseconds, about what waking a thread costs


@jit(inner=True)
def _score(q, k, w, a):
    for j in range(q.size):
        a[j] = tanh(q[j] + k[j])
    return dot(w, a)


@jit(inner=True)
def _softmax(x):
    peak = x[0]
    for j in range(x.size):
        peak = max(peak, x[j])
    subtract(x, peak)
    exponentials(x)
    total = sum_of(x)
    for j in range(x.size):
        x[j] /= total


@jit(inner=True)
def _forward_queries(b, first, last, q, k, v, w, starts, out, p):
    T, S, window, a = q.shape[1], k.shape[1], p.shape[2], np.empty_like(w)
    for t in range(first, last):
        oldest = S - T + t - window + 1  # the key of p[b, t, 0]
        lo = min(max(oldest, starts[b], 0) - oldest, window)
        weights = p[b, t]
        weights[:lo] = 0
        out[b, t] = 0
        if lo < window:
            for j in range(lo, window):
                weights[j] = _score(q[b, t], k[b, oldest + j], w, a)
            _softmax(weights[lo:])
            for j in range(lo, window):
                add_scaled(weights[j], v[b, oldest + j], out[b, t])


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
    dx, a, dw_t = np.empty(window, q.dtype), np.empty(C, q.dtype), np.empty(C, q.dtype)
    dq[:], dk[:], dv[:], dw[:] = 0, 0, 0, 0
    for t in range(T):
        oldest = S - T + t - window + 1
        lo = max(0, -oldest)
        mean = like(a, 0)
        dw_t[:] = 0  # of one query; the sum over all, in float32, would lose small terms beside the sum of millions
        for j in range(lo, window):
            dx[j] = dot(v[oldest + j], dout[t])
            mean += p[t, j] * dx[j]
        for j in range(lo, window):
            if p[t, j] != 0:
                s = oldest + j
                add_scaled(p[t, j], dout[t], dv[s])
                _pair_backward(p[t, j] * (dx[j] - mean), q[t], k[s], w, a, dq[t], dk[s], dw_t)
        add_scaled(like(a, 1), dw_t, dw)


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


def additive_attention_forward(
    q: Array, k: Array, v: Array, w: Array, window: int, starts: Starts = None
) -> tuple[Array, Array]:
    """See functional/recurrent_attention.py."""
    q, k, v, w = (contiguous(a) for a in (q, k, v, w))
    B, T, _ = q.shape
    first = np.zeros(B, np.int64) if starts is None else integers(starts)
    out, p = np.empty((B, T, v.shape[2]), q.dtype), np.empty((B, T, window), q.dtype)
    _forward(q, k, v, w, first, out, p)
    return out, p


def additive_attention_backward(
    dout: Array, q: Array, k: Array, v: Array, w: Array, p: Array
) -> tuple[Array, Array, Array, Array]:
    """See functional/recurrent_attention.py."""
    dout, q, k, v, w = (contiguous(a) for a in (dout, q, k, v, w))
    dq, dk, dv, dw = np.empty_like(q), np.empty_like(k), np.empty_like(v), np.empty((len(q), len(w)))  # dw in float64
    _backward(dout, q, k, v, w, p, dq, dk, dv, dw)
    return dq, dk, dv, dw.sum(axis=0).astype(w.dtype)
