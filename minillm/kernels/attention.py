"""Attention: every query takes the mean of the values, weighted by how well their keys match it.

    out_t = sum_s p_ts v_s,    p_ts = exp(x_ts) / sum_s' exp(x_ts'),    x_ts = scale * (q_t . k_s)

*Why scale = 1/sqrt(D).* When the entries of q and k are independent with variance 1, q . k is a sum of D products of
variance 1: its variance is D. Scores of standard deviation sqrt(D) would make the softmax pick one key nearly alone,
and its gradient nearly zero; divided by sqrt(D), they have variance 1 whatever the head size.

*Who sees whom.* A causal query sees no later key, or predicting the next token would be copying it. A window hides the
keys that are too long ago, and left padding the keys before ``starts[b]``. All three together leave to each query one
range of keys, and to each key one range of queries, so that the loops below have bounds instead of masks: query t
stands at position S - T + t (with a cache of earlier keys, T < S) and sees the keys

    max(start, position - behind) <= s <= min(S - 1, position + ahead)

*Why tiles.* All the scores of 4,096 tokens and 8 heads fill 512 MB. A tile of them fits in the cache, and the softmax
of a row can be had tile by tile: keep the largest score m so far, and the sum l of exp(x - m); when a later tile raises
m to m', everything summed so far is multiplied by exp(m - m'). This *online softmax* (Milakov & Gimelshein 2018,
arXiv:1805.02867) makes the memory O(T); FlashAttention (Dao et al. 2022, arXiv:2205.14135) is built on it. Backward
keeps no probabilities either: p = exp(x - lse), with one number lse = m + log l stored per row.

Layout: q (B, T, H, D), k and v (B, S, G, D), as the projections leave them, and no transpose is ever made; a query head
h reads the key and value head h // (H // G) (grouped heads, Ainslie et al. 2023, arXiv:2305.13245). Arrays may be
strided views (a column block of one packed projection, a cache that has room for more keys) as long as the (H, D) block
of a token is contiguous: the kernels get the memory as one flat array with two steps, from batch row to batch row and
from token to token.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import contiguous, exp, jit, kernel, prange
from .matmul import _BLAS

Gradients = tuple[np.ndarray, np.ndarray, np.ndarray]
Starts = np.ndarray | None

# ---- the text to read ------------------------------------------------------------------------------------------------


def visible_numpy(B: int, T: int, S: int, causal: bool, window: int, starts: Starts = None) -> np.ndarray:
    """Which keys each query sees: (B, 1, T, S) booleans.

    >>> visible_numpy(1, 2, 4, causal=True, window=2)[0, 0].astype(int)
    array([[0, 1, 1, 0],
           [0, 0, 1, 1]])
    """
    t = S - T + np.arange(T)[:, None]  # (T, 1), the queries' positions: they are the last T of S
    s = np.arange(S)  # (S,)
    seen = np.ones((T, S), bool)
    if causal:
        seen &= s <= t
    if window > 0:
        seen &= s > t - window
    start = np.zeros(B, int) if starts is None else np.asarray(starts)
    return seen & (s >= start[:, None, None, None])


def _by_head(x: np.ndarray, heads: int) -> np.ndarray:
    """(B, S, G, D) -> (B, H, S, D); each of the G heads serves H // G query heads."""
    return np.repeat(x.swapaxes(1, 2), heads // x.shape[2], axis=1)


def attention_forward_numpy(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    causal: bool,
    window: int = 0,
    scale: float,
    starts: Starts = None,
) -> tuple[np.ndarray, np.ndarray]:
    """out = softmax(scale * q k^T + mask) v for each batch row and head, and the log-sum-exp of the scores.

    q: (B, T, H, D), k, v: (B, S, G, D) -> out: (B, T, H, D), lse: (B, H, T).  With ``causal``, query t sees the keys
    up to its own position S - T + t; with ``window`` > 0 only the latest ``window`` of them; keys before ``starts[b]``
    are hidden. A query that sees nothing gives 0, and lse = -inf.
    """
    (B, T, H, D), S = q.shape, k.shape[1]
    q = q.swapaxes(1, 2)  # (B, H, T, D)
    k, v = _by_head(k, H), _by_head(v, H)  # (B, H, S, D)
    x = q @ k.swapaxes(-1, -2) * q.dtype.type(scale)  # (B, H, T, S)
    x = np.where(visible_numpy(B, T, S, causal, window, starts), x, -np.inf).astype(q.dtype)

    m = x.max(axis=-1, keepdims=True, initial=-np.inf)  # (B, H, T, 1)
    m[m == -np.inf] = 0  # a row that sees nothing: exp(-inf - 0) = 0, where exp(-inf - -inf) would be NaN
    p = np.exp(x - m)  # subtracting the largest leaves the quotient as it is, and nothing overflows
    l = p.sum(axis=-1, keepdims=True)  # noqa: E741
    with np.errstate(divide="ignore"):
        lse = (m + np.log(l))[..., 0]  # (B, H, T)
    out = p / np.where(l > 0, l, 1) @ v  # (B, H, T, D)
    return np.ascontiguousarray(out.swapaxes(1, 2)), lse


def attention_backward_numpy(
    dout: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    *,
    causal: bool,
    window: int = 0,
    scale: float,
    starts: Starts = None,
    into: Gradients | None = None,
) -> Gradients:
    """Gradients of ``attention_forward``; ``into`` gives the arrays that receive them.

    dout, out: (B, T, H, D), lse: (B, H, T) -> dq: (B, T, H, D), dk, dv: (B, S, G, D).

    out = p v          ->  dv = p^T dout,  dp = dout v^T
    p = softmax(x)     ->  dx = p * (dp - delta),  delta_t = sum_s p_ts dp_ts = dout_t . out_t
    x = scale * q k^T  ->  dq = scale * dx k,  dk = scale * dx^T q
    """
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    q_, k_, v_ = q.swapaxes(1, 2), _by_head(k, H), _by_head(v, H)  # (B, H, T or S, D)
    dout_ = dout.swapaxes(1, 2)
    seen = visible_numpy(B, T, S, causal, window, starts) & (lse > -np.inf)[..., None]
    x = q_ @ k_.swapaxes(-1, -2) * q.dtype.type(scale)
    p = np.exp(np.where(seen, x - np.where(lse > -np.inf, lse, 0)[..., None], -np.inf)).astype(q.dtype)  # (B, H, T, S)

    dp = dout_ @ v_.swapaxes(-1, -2)
    delta = (dout * out).sum(axis=-1).swapaxes(1, 2)[..., None]  # (B, H, T, 1)
    dx = p * (dp - delta) * q.dtype.type(scale)
    dq = (dx @ k_).swapaxes(1, 2)
    # a key and value head adds up what its H // G query heads send back
    dk = (dx.swapaxes(-1, -2) @ q_).reshape(B, G, H // G, S, D).sum(axis=2).swapaxes(1, 2)
    dv = (p.swapaxes(-1, -2) @ dout_).reshape(B, G, H // G, S, D).sum(axis=2).swapaxes(1, 2)
    if into is None:
        return np.ascontiguousarray(dq), np.ascontiguousarray(dk), np.ascontiguousarray(dv)
    for target, gradient in zip(into, (dq, dk, dv), strict=True):
        target[...] = gradient
    return into


def _unpack(qkv: np.ndarray, H: int, G: int) -> Gradients:
    """(B, T, (H + 2 G) D) -> views q (B, T, H, D), k and v (B, T, G, D)."""
    B, T, width = qkv.shape
    qkv = qkv.reshape(B, T, H + 2 * G, width // (H + 2 * G))
    return qkv[:, :, :H], qkv[:, :, H : H + G], qkv[:, :, H + G :]


def attention_packed_forward_numpy(
    qkv: np.ndarray, H: int, G: int, causal: bool, window: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """``attention_forward`` of one projection that holds the columns of q, then k, then v.

    qkv: (B, T, (H + 2 G) D) -> out: (B, T, H D), lse: (B, H, T)
    """
    q, k, v = _unpack(qkv, H, G)
    out, lse = attention_forward_numpy(q, k, v, causal=causal, window=window, scale=scale)
    return out.reshape(*out.shape[:2], -1), lse


def attention_packed_backward_numpy(
    dout: np.ndarray,
    qkv: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    H: int,
    G: int,
    causal: bool,
    window: int,
    scale: float,
) -> np.ndarray:
    """Gradient of ``attention_packed_forward``: dqkv, of the shape of ``qkv``."""
    q, k, v = _unpack(qkv, H, G)
    dqkv = np.empty(qkv.shape, qkv.dtype)
    attention_backward_numpy(dout.reshape(q.shape), q, k, v, out.reshape(q.shape), lse,
                             causal=causal, window=window, scale=scale, into=_unpack(dqkv, H, G))  # fmt: skip
    return dqkv


# ---- one tile --------------------------------------------------------------------------------------------------------
# Tiles of scores are stored a key per row and a query per column. Then every operation of the softmax runs along the
# queries, element by element (no sum or maximum across a vector register), and a row's visible part is one range.

if _BLAS is not None:
    from .matmul import gemm, hold_blas_threads, release_blas_threads

    @jit
    def _fill(x, value):
        for i in range(x.size):
            x[i] = value

    @jit
    def _scale_row(x, factor):
        for i in range(x.size):
            x[i] *= factor

    @jit
    def _raise_peaks(x, scale, peak):
        for i in range(x.size):
            y = x[i] * scale
            peak[i] = y if y > peak[i] else peak[i]

    @jit
    def _add(x, y):
        for i in range(x.size):
            x[i] += y[i]

    @jit
    def _exponentials(x, scale, peak, total):
        for i in range(x.size):
            y = exp(x[i] * scale - peak[i])
            x[i] = y
            total[i] += y

    @jit
    def _fading(old, new):
        # what was summed under the old peak counts exp(old - new) under the new one
        for i in range(old.size):
            old[i] = exp(old[i] - new[i]) if new[i] > old[i] else old.dtype.type(1)

    @jit
    def _seen_by(key, first, m, ahead, behind):
        """The range of those of the ``m`` queries from position ``first`` that see the key."""
        return min(max(key - ahead - first, 0), m), max(min(key + behind + 1 - first, m), 0)

    @jit
    def _forward_block(q, ldq, k, ldk, v, ldv, out, ldo, lse, m, d, first, lo, hi, ahead, behind, scale, width):
        # m queries from position first on, and the keys [lo, hi) in tiles of width: the online softmax
        tile = np.empty(width * m, q.dtype)
        peak, faded, total = np.empty(m, q.dtype), np.empty(m, q.dtype), np.empty(m, q.dtype)
        _fill(peak, -np.inf)
        _fill(total, 0.0)
        for key in range(lo, hi, width):
            n = min(width, hi - key)
            gemm(False, True, n, m, d, k[key * ldk :], ldk, q, ldq, tile, m, 0.0)
            faded[:] = peak
            for j in range(n):
                a, b = _seen_by(key + j, first, m, ahead, behind)
                _raise_peaks(tile[j * m + a : j * m + b], scale, peak[a:b])
            if key > lo:
                _fading(faded, peak)
                for i in range(m):
                    total[i] *= faded[i]
                    if faded[i] != 1:
                        _scale_row(out[i * ldo : i * ldo + d], faded[i])
            for j in range(n):
                a, b = _seen_by(key + j, first, m, ahead, behind)
                _fill(tile[j * m : j * m + a], 0.0)
                _exponentials(tile[j * m + a : j * m + b], scale, peak[a:b], total[a:b])
                _fill(tile[j * m + b : (j + 1) * m], 0.0)
            gemm(True, False, m, d, n, tile, m, v[key * ldv :], ldv, out, ldo, 0.0 if key == lo else 1.0)
        for i in range(m):
            if total[i] == 0:  # sees nothing
                _fill(out[i * ldo : i * ldo + d], 0.0)
                lse[i] = -np.inf
            else:
                _scale_row(out[i * ldo : i * ldo + d], 1 / total[i])
                lse[i] = peak[i] + np.log(total[i])

    @jit(parallel=True)
    def _forward(q, k, v, out, lse, starts, sizes, steps, ahead, behind, scale, height, width):
        B, T, S, H, G, D = sizes
        q_batch, ldq, k_batch, ldk, v_batch, ldv, o_batch, ldo = steps
        blocks = (T + height - 1) // height
        pairs = (blocks + 1) // 2
        blas = hold_blas_threads()
        for task in prange(B * H * pairs):
            b, h, pair = task // (H * pairs), task // pairs % H, task % pairs
            g = h // (H // G)
            q_h, out_h = q[b * q_batch + h * D :], out[b * o_batch + h * D :]
            k_g, v_g = k[b * k_batch + g * D :], v[b * v_batch + g * D :]
            # causal work grows with t: the block from the front and its mirror image from the back make equal tasks
            for block in range(pair, blocks - pair, max(1, blocks - 1 - 2 * pair)):
                row, m = block * height, min(height, T - block * height)
                first = S - T + row
                lo, hi = max(starts[b], first - behind), min(S, first + m + ahead)
                _forward_block(q_h[row * ldq :], ldq, k_g, ldk, v_g, ldv, out_h[row * ldo :], ldo,
                               lse[b, h, row : row + m], m, D, first, lo, hi, ahead, behind, scale, width)  # fmt: skip
        release_blas_threads(blas)

    @jit
    def _deltas(dout, out, ld, delta, d):
        for t in range(delta.size):
            x, y = dout[t * ld : t * ld + d], out[t * ld : t * ld + d]
            total = x.dtype.type(0)
            for i in range(d):
                total += x[i] * y[i]
            delta[t] = total

    @jit
    def _backward_row(x, dp, lse, delta, scale):
        # x: scores -> p;  dp -> dx = scale * p * (dp - delta)
        for i in range(x.size):
            p = exp(x[i] * scale - lse[i])
            x[i] = p
            dp[i] = scale * p * (dp[i] - delta[i])

    @jit
    def _backward_tile(p, dx, n, m, lse, delta, key, first, ahead, behind, scale):
        # a key per row; outside the range of queries that see it there is neither probability nor gradient
        for j in range(n):
            p_j, dx_j = p[j * m : (j + 1) * m], dx[j * m : (j + 1) * m]
            a, b = _seen_by(key + j, first, m, ahead, behind)
            _fill(p_j[:a], 0.0)
            _fill(dx_j[:a], 0.0)
            _backward_row(p_j[a:b], dx_j[a:b], lse[a:b], delta[a:b], scale)
            _fill(p_j[b:], 0.0)
            _fill(dx_j[b:], 0.0)

    @jit
    def _clear(x, ld, rows, d):
        for i in range(rows):
            _fill(x[i * ld : i * ld + d], 0.0)

    @jit
    def _backward_keys(q, ldq, k, ldk, v, ldv, dout, ldo, lse, delta, dq, lddq, dk, lddk, dv, lddv, heads, n, d,
                       key, lo, hi, shift, ahead, behind, scale, height):  # fmt: skip
        # the keys [key, key + n) of one head with the queries [lo, hi) of the heads that read it, in tiles of height
        p, dx = np.empty(n * height, q.dtype), np.empty(n * height, q.dtype)
        for h in range(heads):
            for row in range(lo, hi, height):
                m = min(height, hi - row)
                q_i, dout_i = q[h * d + row * ldq :], dout[h * d + row * ldo :]
                gemm(False, True, n, m, d, k, ldk, q_i, ldq, p, m, 0.0)
                gemm(False, True, n, m, d, v, ldv, dout_i, ldo, dx, m, 0.0)
                _backward_tile(p, dx, n, m, lse[h, row:hi], delta[h, row:hi], key, shift + row, ahead, behind, scale)
                beta = 0.0 if h == 0 and row == lo else 1.0
                gemm(False, False, n, d, m, p, m, dout_i, ldo, dv, lddv, beta)
                gemm(False, False, n, d, m, dx, m, q_i, ldq, dk, lddk, beta)
                gemm(True, False, m, d, n, dx, m, k, ldk, dq[h * d + row * lddq :], lddq, 1.0)

    @jit(parallel=True)
    def _backward(dout, q, k, v, out, lse, dq, dq_parts, dk, dv, starts, sizes, steps, grad_steps,
                  ahead, behind, scale, width, height):  # fmt: skip
        B, T, S, H, G, D = sizes
        q_batch, ldq, k_batch, ldk, v_batch, ldv, o_batch, ldo = steps
        dq_batch, lddq, dk_batch, lddk, dv_batch, lddv = grad_steps
        heads, chunks, blocks = H // G, dq_parts.shape[0] + 1, (S + width - 1) // width
        delta = np.empty((B, H, T), q.dtype)
        blas = hold_blas_threads()
        for row in prange(B * H):
            at = row // H * o_batch + row % H * D
            _deltas(dout[at:], out[at:], ldo, delta[row // H, row % H], D)
        # A task owns the gradients of its keys. To a query's gradient every key adds: it belongs to the task too while
        # a head is one chunk; otherwise each chunk sums its own, and the sums are added at the end.
        for task in prange(B * G * chunks):
            b, g, chunk = task // (G * chunks), task // chunks % G, task % chunks
            h, ld = g * heads, lddq if chunk == 0 else H * D
            dq_h = dq[b * dq_batch + h * D :] if chunk == 0 else dq_parts[chunk - 1, b * T * H * D + h * D :]
            _clear(dq_h, ld, T, heads * D)
            for turn in range(0, blocks, chunks):
                # back and forth, so that no chunk always gets the keys that more queries see
                block = turn + (chunk if turn // chunks % 2 == 0 else chunks - 1 - chunk)
                key, n = block * width, min(width, S - block * width)
                lo, hi = max(0, key - ahead - (S - T)), min(T, key + n + behind - (S - T))
                k_j, v_j = b * k_batch + g * D + key * ldk, b * v_batch + g * D + key * ldv
                dk_j, dv_j = b * dk_batch + g * D + key * lddk, b * dv_batch + g * D + key * lddv
                hidden = max(0, n if hi <= lo else min(n, starts[b] - key))
                if hidden > 0:
                    _clear(dk[dk_j:], lddk, hidden, D)
                    _clear(dv[dv_j:], lddv, hidden, D)
                if hidden < n:
                    _backward_keys(
                        q[b * q_batch + h * D :], ldq, k[k_j + hidden * ldk :], ldk, v[v_j + hidden * ldv :], ldv,
                        dout[b * o_batch + h * D :], ldo, lse[b, h : h + heads], delta[b, h : h + heads],
                        dq_h, ld, dk[dk_j + hidden * lddk :], lddk, dv[dv_j + hidden * lddv :], lddv,
                        heads, n - hidden, D, key + hidden, lo, hi, S - T, ahead, behind, scale, height,
                    )  # fmt: skip
        if chunks > 1:
            for row in prange(B * T):
                for c in range(chunks - 1):
                    at = row // T * dq_batch + row % T * lddq
                    _add(dq[at : at + H * D], dq_parts[c, row * H * D : (row + 1) * H * D])
        release_blas_threads(blas)


# ---- arrays as flat memory -------------------------------------------------------------------------------------------


def _memory(x: np.ndarray) -> tuple[np.ndarray, int, int]:
    """(B, T, H, D) -> its memory as one flat array, and the steps from batch row to batch row and token to token.

    A view is taken as it is when each token's (H, D) block is contiguous; else it is copied.
    """
    flags = x.flags
    if not flags.c_contiguous or not flags.writeable:
        size, (B, T, H, D), (batch, row, head, last) = x.itemsize, x.shape, x.strides
        block = (last == size or D == 1) and (head == size * D or H == 1)
        if block and flags.writeable and flags.aligned and batch >= 0 and row >= 0 and not (batch % size or row % size):
            span = ((B - 1) * batch + (T - 1) * row) // size + H * D
            return np.lib.stride_tricks.as_strided(x, (span,), (size,)), batch // size, row // size
        x = x.copy()
    return x.reshape(-1), x.shape[1] * x.shape[2] * x.shape[3], x.shape[2] * x.shape[3]


def _reach(causal: bool, window: int, most: int) -> tuple[int, int]:
    """How many keys (ahead, behind) of its own position a query sees."""
    return 0 if causal else most, window - 1 if window > 0 else most


def _chunks(tasks: int, work: int) -> int:
    """Into how many parts the keys of one head are cut, so that few heads still keep the threads busy.

    The shape alone decides, not the number of threads: sums cut elsewhere round differently.
    """
    if work < 1 << 14:
        return 1
    return 4 if tasks == 1 else 2 if tasks < 4 or tasks % 2 and tasks < 16 else 1


def _check(name: str, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> None:
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"{name}: expected q (B, T, H, D), k and v (B, S, G, D); got {q.shape}, {k.shape}, {v.shape}")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        raise ValueError(f"{name}: the query heads must be a multiple of the key heads; got {q.shape[2]}, {k.shape[2]}")


# ---- the kernels -----------------------------------------------------------------------------------------------------


@kernel(twin=attention_forward_numpy)
def attention_forward(  # noqa: D103
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    causal: bool,
    window: int = 0,
    scale: float,
    starts: Starts = None,
) -> tuple[np.ndarray, np.ndarray]:
    if _BLAS is None:
        return attention_forward_numpy(q, k, v, causal=causal, window=window, scale=scale, starts=starts)
    _check("attention_forward", q, k, v)
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    out = np.empty(q.shape, q.dtype)
    (q, *q_steps), (k, *k_steps), (v, *v_steps) = _memory(q), _memory(k), _memory(v)
    lse = _run_forward((q, k, v, out.reshape(-1)), (B, T, S, H, G, D),
                       (*q_steps, *k_steps, *v_steps, T * H * D, H * D), causal, window, scale, starts)  # fmt: skip
    return out, lse


def _run_forward(arrays, sizes, steps, causal, window, scale, starts):
    B, T, S, H, G, D = sizes
    lse = np.empty((B, H, T), arrays[0].dtype)
    starts = np.zeros(B, np.int64) if starts is None else np.asarray(starts, np.int64)
    ahead, behind = _reach(causal, window, S + T)
    scale = lse.dtype.type(scale)
    height = 32 if T <= 256 else 64
    _forward(*arrays, lse, starts, sizes, steps, ahead, behind, scale, height, 256)
    return lse


@kernel(twin=attention_backward_numpy)
def attention_backward(  # noqa: D103
    dout: np.ndarray,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    *,
    causal: bool,
    window: int = 0,
    scale: float,
    starts: Starts = None,
    into: Gradients | None = None,
) -> Gradients:
    if _BLAS is None:
        return attention_backward_numpy(
            dout, q, k, v, out, lse, causal=causal, window=window, scale=scale, starts=starts, into=into
        )
    _check("attention_backward", q, k, v)
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    if into is None:
        into = np.empty(q.shape, q.dtype), np.empty(k.shape, k.dtype), np.empty(v.shape, v.dtype)
    (q, *q_steps), (k, *k_steps), (v, *v_steps) = _memory(q), _memory(k), _memory(v)
    (dq, *dq_steps), (dk, *dk_steps), (dv, *dv_steps) = _memory(into[0]), _memory(into[1]), _memory(into[2])
    arrays = contiguous(dout).reshape(-1), q, k, v, contiguous(out).reshape(-1), contiguous(lse)
    _run_backward(arrays, (dq, dk, dv), (B, T, S, H, G, D), (*q_steps, *k_steps, *v_steps, T * H * D, H * D),
                  (*dq_steps, *dk_steps, *dv_steps), causal, window, scale, starts)  # fmt: skip
    return into


def _run_backward(arrays, grads, sizes, steps, grad_steps, causal, window, scale, starts):
    B, T, S, H, G, D = sizes
    dtype = arrays[0].dtype
    starts = np.zeros(B, np.int64) if starts is None else np.asarray(starts, np.int64)
    ahead, behind = _reach(causal, window, S + T)
    dq, dk, dv = grads
    parts = np.empty((_chunks(B * G, T * S) - 1, B * T * H * D), dtype)
    width, height = (32, 128) if T <= 256 else (64, 256)
    _backward(*arrays, dq, parts, dk, dv, starts, sizes, steps, grad_steps, ahead, behind, dtype.type(scale), width, height)


def _packed_layout(qkv: np.ndarray, H: int, G: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, int, int]]:
    """Sizes, the steps of q, k and v, and where each begins in the memory of ``qkv``."""
    if qkv.ndim != 3 or qkv.shape[2] % (H + 2 * G) or H % G:
        raise ValueError(f"attention_packed: expected (B, T, (H + 2 G) D) with H = {H}, G = {G}; got {qkv.shape}")
    B, T, width = qkv.shape
    D = width // (H + 2 * G)
    return (B, T, T, H, G, D), (T * width, width) * 3, (0, H * D, (H + G) * D)


@kernel(twin=attention_packed_forward_numpy)
def attention_packed_forward(  # noqa: D103
    qkv: np.ndarray, H: int, G: int, causal: bool, window: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    if _BLAS is None:
        return attention_packed_forward_numpy(qkv, H, G, causal, window, scale)
    sizes, steps, columns = _packed_layout(qkv, H, G)
    B, T, _, _, _, D = sizes
    flat = contiguous(qkv).reshape(-1)
    out = np.empty((B, T, H * D), flat.dtype)
    arrays = (*(flat[column:] for column in columns), out.reshape(-1))
    return out, _run_forward(arrays, sizes, (*steps, T * H * D, H * D), causal, window, scale, None)


@kernel(twin=attention_packed_backward_numpy)
def attention_packed_backward(  # noqa: D103
    dout: np.ndarray,
    qkv: np.ndarray,
    out: np.ndarray,
    lse: np.ndarray,
    H: int,
    G: int,
    causal: bool,
    window: int,
    scale: float,
) -> np.ndarray:
    if _BLAS is None:
        return attention_packed_backward_numpy(dout, qkv, out, lse, H, G, causal, window, scale)
    sizes, steps, columns = _packed_layout(qkv, H, G)
    T, D = sizes[1], sizes[5]
    flat = contiguous(qkv).reshape(-1)
    dqkv = np.empty(qkv.shape, flat.dtype)
    arrays = (contiguous(dout).reshape(-1), *(flat[c:] for c in columns), contiguous(out).reshape(-1), contiguous(lse))
    grads = [dqkv.reshape(-1)[c:] for c in columns]
    _run_backward(arrays, grads, sizes, (*steps, T * H * D, H * D), steps, causal, window, scale, None)
    return dqkv
