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

import numpy as np

from ._jit import JIT, contiguous, exp, integers, jit, kernel, like, prange, row_max
from .tile import COLS, multiply_add, width_of

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
    _check("attention_forward", q, k, v, starts)
    (B, T, H, _), S = q.shape, k.shape[1]
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
    _check("attention_backward", q, k, v, starts)
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
    _check_packed(qkv, H, G)
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
# A tile of scores has a row per query and a column per key, and lies in memory without gaps: the exponentials, most of
# the work beside the products, run over the whole of it in one vectorised loop. The products are those of tile.py, in
# registers: twice as fast as BLAS on blocks as small as these. Their second operand must lie in panels of COLS columns,
# and so the rows of a head are packed once, before its tiles are computed: k and v with a transposed copy (d along the
# rows, a key per column) for the products that sum over d, plain rows of ``wide`` columns, D rounded up to whole
# panels, for those that sum over keys or queries.


@jit
def _fill(x, value):
    for i in range(x.size):
        x[i] = value


@jit
def _scale(x, factor):
    for i in range(x.size):
        x[i] *= factor


@jit
def _scaled(x, factor, y):
    for i in range(x.size):
        y[i] = x[i] * factor


@jit
def _subtract(x, value):
    for i in range(x.size):
        x[i] -= value


@jit
def _sum(x):
    total = like(x, 0)
    for i in range(x.size):
        total += x[i]
    return total


@jit
def _dot(x, y):
    total = like(x, 0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@jit
def _exponentials(x):
    for i in range(x.size):
        x[i] = exp(x[i])


@jit
def _exponentials_and_slopes(x, dp):
    # x -> p, dp - delta -> dx
    for i in range(x.size):
        p = exp(x[i])
        x[i] = p
        dp[i] *= p


@jit
def _fill_rows(x, x_row, rows, d, value):
    for i in range(rows):
        _fill(x[i * x_row : i * x_row + d], value)


@jit
def _copy_rows(x, x_row, y, y_row, rows, d, factor):
    # y = factor * x for rows of d numbers that lie x_row and y_row apart
    for i in range(rows):
        _scaled(x[i * x_row : i * x_row + d], factor, y[i * y_row : i * y_row + d])


@jit
def _transposed(x, x_row, rows, d, y):
    # rows of d numbers -> panels of COLS columns, a row of x being a column
    for i in range(rows):
        x_i, panel = x[i * x_row : i * x_row + d], y[i // COLS * COLS * d + i % COLS :]
        for j in range(d):
            panel[j * COLS] = x_i[j]


@jit
def _add_rows(weights, x, x_row, y):
    # y += sum_j weights_j x_j
    for j in range(weights.size):
        x_j, weight = x[j * x_row : j * x_row + y.size], weights[j]
        for i in range(y.size):
            y[i] += x_j[i] * weight


@jit
def _room(n, x):
    # n numbers of the dtype of x, the first at the begin of a cache line
    room = np.empty(n + 64 // x.itemsize, x.dtype)
    return room[np.int64(-room.ctypes.data % 64) // x.itemsize :]


@jit
def _hide(tile, m, n, cols, shift, ahead, behind, value):
    # put value where a query does not see a key; query i stands at column shift + i of n
    if n == cols and shift + ahead >= n - 1 and shift + m - 1 <= behind:
        return  # the first query sees the last key, and the last query the first
    for i in range(m):
        a = min(max(shift + i - behind, 0), n)
        b = max(min(shift + i + ahead + 1, n), a)
        _fill(tile[i * cols : i * cols + a], value)
        _fill(tile[i * cols + b : (i + 1) * cols], value)


# ---- forward ---------------------------------------------------------------------------------------------------------


@jit
def _forward_block(query, k, v, out, out_row, lse, d, wide, shift, lo, hi, ahead, behind, width, tile, acc):
    # The online softmax of m queries, of which the first stands at key shift, over the keys [lo, hi).
    m = lse.size
    peak, total = np.empty(m, query.dtype), np.zeros(m, query.dtype)
    _fill(peak, -np.inf)
    _fill(acc[: m * wide], 0.0)
    for key in range(lo // COLS * COLS, hi, width):
        n = min(width, hi - key)
        cols = (n + COLS - 1) // COLS * COLS
        _fill(tile[: m * cols], 0.0)
        multiply_add(query, d, 1, m, d, k[key * d :], COLS * d, COLS, tile, cols, cols)
        _hide(tile, m, n, cols, shift - key, ahead, behind, -np.inf)
        for i in range(m):
            x = tile[i * cols : (i + 1) * cols]
            top = max(peak[i], row_max(x))
            if top > peak[i]:
                if total[i] > 0:  # what was summed under the old peak counts less under the new one
                    fade = exp(peak[i] - top)
                    total[i] *= fade
                    _scale(acc[i * wide : (i + 1) * wide], fade)
                peak[i] = top
            if top > -np.inf:
                _subtract(x, top)
        _exponentials(tile[: m * cols])
        for i in range(m):
            total[i] += _sum(tile[i * cols : (i + 1) * cols])
        multiply_add(tile, cols, 1, m, n, v[key * wide :], COLS, wide, acc, wide, wide)
    for i in range(m):
        weight = 1 / total[i] if total[i] != 0 else like(acc, 0)  # 0: it sees nothing
        _scaled(acc[i * wide : i * wide + d], weight, out[i * out_row : i * out_row + d])
        lse[i] = peak[i] + np.log(total[i])


@jit
def _forward_task(task, chunks, q, k, v, out, lse, starts, sizes, steps, ahead, behind, scale, wide, height, width):
    # a task: the query heads that read one key head, and some blocks of their queries
    _, T, S, H, G, D = sizes
    q_batch, q_row, k_batch, k_row, v_batch, v_row, o_batch, o_row = steps
    b, g, chunk = task // (G * chunks), task // chunks % G, task % chunks
    blocks, begin = (T + height - 1) // height, min(S, max(0, starts[b], S - T - behind))
    keys, values = _room((S - begin + COLS) * D, q), _room((S - begin) * wide, q)
    _transposed(k[b * k_batch + g * D + begin * k_row :], k_row, S - begin, D, keys)
    _copy_rows(v[b * v_batch + g * D + begin * v_row :], v_row, values, wide, S - begin, D, like(q, 1))
    query, tile, acc = _room(height * D, q), _room(height * width, q), _room(height * wide, q)
    for h in range(g * (H // G), (g + 1) * (H // G)):
        for turn in range(0, blocks, chunks):
            # back and forth, so that no chunk always gets the queries that see more keys
            block = turn + (chunk if turn // chunks % 2 == 0 else chunks - 1 - chunk)
            row, m = block * height, min(height, T - block * height)
            if m <= 0:
                continue
            shift = S - T + row - begin
            _copy_rows(q[b * q_batch + row * q_row + h * D :], q_row, query, D, m, D, scale)
            _forward_block(
                query, keys, values, out[b * o_batch + row * o_row + h * D :], o_row, lse[b, h, row : row + m], D, wide,
                shift, max(0, shift - behind), min(S - begin, shift + m + ahead), ahead, behind, width, tile, acc,
            )  # fmt: skip


@jit(parallel=True)
def _forward(chunks, q, k, v, out, lse, starts, sizes, steps, ahead, behind, scale, wide, height, width):
    for task in prange(sizes[0] * sizes[4] * chunks):
        _forward_task(np.int64(task), chunks, q, k, v, out, lse, starts, sizes, steps,
                      ahead, behind, scale, wide, height, width)  # fmt: skip


# ---- a single query --------------------------------------------------------------------------------------------------


@jit
def _decode_head(q, k, ldk, v, ldv, out, scale, x):
    # One query and a few keys, each read once: loops that keep pace with the memory. Returns the log-sum-exp.
    _fill(out, 0.0)
    if x.size == 0:
        return q.dtype.type(-np.inf)
    for j in range(x.size):
        x[j] = _dot(q, k[j * ldk : j * ldk + q.size]) * scale
    top = row_max(x)
    _subtract(x, top)
    _exponentials(x)
    total = _sum(x)
    _add_rows(x, v, ldv, out)
    _scale(out, 1 / total)
    return top + np.log(total)


@jit
def _decode_task(task, q, k, v, outs, lses, starts, sizes, steps, behind, scale):
    # one of the parts of the keys of a head; the query heads that read it take turns while it is in the cache
    # outs: (parts, B H D), lses: (parts, B, H)
    _, _, S, H, G, D = sizes
    parts, heads, first = outs.shape[0], H // G, max(0, S - 1 - behind)
    b, g, part = task // (G * parts), task // parts % G, task % parts
    hi = first + (part + 1) * (S - first) // parts
    lo = min(hi, max(starts[b], first + part * (S - first) // parts))
    x = np.empty(hi - lo, q.dtype)
    k_g, v_g = k[b * steps[2] + lo * steps[3] + g * D :], v[b * steps[4] + lo * steps[5] + g * D :]
    for h in range(g * heads, (g + 1) * heads):
        q_h, out_h = b * steps[0] + h * D, (b * H + h) * D
        lses[part, b, h] = _decode_head(q[q_h : q_h + D], k_g, steps[3], v_g, steps[5],
                                        outs[part, out_h : out_h + D], scale, x)  # fmt: skip


@jit
def _merge(outs, lses, out, lse):
    # the softmax over all keys from that over each part: a part weighs e^lse, the sum of its exponentials
    D = out.size // lse.size
    for row in range(lse.size):
        weights, to = lses[:, row // lse.shape[1], row % lse.shape[1]].copy(), out[row * D : (row + 1) * D]
        top, total = weights.max(), out.dtype.type(0)
        _fill(to, 0.0)
        for part in range(weights.size):
            weights[part] = exp(weights[part] - top) if top > -np.inf else 0
            total += weights[part]
        _add_rows(weights, outs.reshape(-1)[row * D :], out.size, to)
        _scale(to, 1 / total if total > 0 else 0)
        lse[row // lse.shape[1], row % lse.shape[1], 0] = top + np.log(total)


@jit
def _decode_alone(tasks, q, k, v, outs, lses, starts, sizes, steps, behind, scale):
    # a few keys are read before a second thread is awake
    for task in range(tasks):
        _decode_task(task, q, k, v, outs, lses, starts, sizes, steps, behind, scale)


@jit(parallel=True)
def _decode(tasks, q, k, v, outs, lses, starts, sizes, steps, behind, scale):
    for task in prange(tasks):
        _decode_task(np.int64(task), q, k, v, outs, lses, starts, sizes, steps, behind, scale)


# ---- backward --------------------------------------------------------------------------------------------------------


@jit
def _backward_keys(query, dvalue, dquery, lse, delta, k, k_columns, v_columns, dk, dv, key, n, d, wide, lo, hi,
                   shift, ahead, behind, p, dx, height):  # fmt: skip
    # n keys from key on and the queries [lo, hi) of a head; query t stands at key shift + t of these n
    cols = (n + COLS - 1) // COLS * COLS
    for row in range(lo, hi, height):
        m = min(height, hi - row)
        for i in range(m):
            _fill(p[i * cols : (i + 1) * cols], -lse[row + i])
            _fill(dx[i * cols : (i + 1) * cols], -delta[row + i])
        q_i, do_i, dq_i = query[row * wide :], dvalue[row * wide :], dquery[row * wide :]
        multiply_add(q_i, wide, 1, m, d, k_columns[key * d :], COLS * d, COLS, p, cols, cols)  # scores - lse
        multiply_add(do_i, wide, 1, m, d, v_columns[key * d :], COLS * d, COLS, dx, cols, cols)  # dp - delta
        _exponentials_and_slopes(p[: m * cols], dx[: m * cols])
        _hide(p, m, n, cols, shift + row, ahead, behind, 0.0)
        _hide(dx, m, n, cols, shift + row, ahead, behind, 0.0)
        multiply_add(p, 1, cols, n, m, do_i, COLS, wide, dv, wide, wide)  # p^T dout
        multiply_add(dx, 1, cols, n, m, q_i, COLS, wide, dk, wide, wide)  # dx^T q
        multiply_add(dx, cols, 1, m, n, k[key * wide :], COLS, wide, dq_i, wide, wide)  # dx k


@jit
def _backward_task(task, chunks, dout, q, k, v, out, lse, dq, dq_parts, dk, dv, starts, sizes, steps, grad_steps,
                   ahead, behind, scale, wide, height, width):  # fmt: skip
    # A task owns the gradients of its keys. To a query's gradient every key adds: it belongs to the task too while a
    # head is one chunk; otherwise each chunk sums its own, and the sums are added at the end.
    _, T, S, H, G, D = sizes
    q_batch, q_row, k_batch, k_row, v_batch, v_row, o_batch, o_row = steps
    dq_batch, dq_row, dk_batch, dk_row, dv_batch, dv_row = grad_steps
    b, g, chunk = task // (G * chunks), task // chunks % G, task % chunks
    begin, one = min(S, max(0, starts[b], S - T - behind)), like(q, 1)  # nobody sees the keys before
    k_g, v_g = k[b * k_batch + begin * k_row + g * D :], v[b * v_batch + begin * v_row + g * D :]
    dk_g, dv_g = dk[b * dk_batch + g * D :], dv[b * dv_batch + g * D :]
    keys, k_columns, v_columns = _room((S - begin) * wide, q), _room((S + COLS) * D, q), _room((S + COLS) * D, q)
    _copy_rows(k_g, k_row, keys, wide, S - begin, D, one)
    _transposed(k_g, k_row, S - begin, D, k_columns)
    _transposed(v_g, v_row, S - begin, D, v_columns)
    query, dvalue, dquery, delta = _room(T * wide, q), _room(T * wide, q), _room(T * wide, q), np.empty(T, q.dtype)
    p, dx = _room(height * width, q), _room(height * width, q)
    dk_j, dv_j = _room(width * wide, q), _room(width * wide, q)
    if chunk == 0:
        _fill_rows(dk_g, dk_row, begin, D, 0.0)
        _fill_rows(dv_g, dv_row, begin, D, 0.0)
    for h in range(g * (H // G), (g + 1) * (H // G)):
        at = b * o_batch + h * D
        _copy_rows(q[b * q_batch + h * D :], q_row, query, wide, T, D, scale)
        _copy_rows(dout[at:], o_row, dvalue, wide, T, D, one)
        for t in range(T):
            delta[t] = _dot(dvalue[t * wide : t * wide + D], out[at + t * o_row : at + t * o_row + D])
        _fill(dquery, 0.0)
        for turn in range(0, (S - begin + width - 1) // width, chunks):
            # back and forth, so that no chunk always gets the keys that more queries see
            key = (turn + (chunk if turn // chunks % 2 == 0 else chunks - 1 - chunk)) * width
            n, shift = min(width, S - begin - key), S - T - begin - key
            if n <= 0:
                continue
            dk_rows, dv_rows = dk_g[(begin + key) * dk_row :], dv_g[(begin + key) * dv_row :]
            if h == g * (H // G):
                _fill(dk_j, 0.0)
                _fill(dv_j, 0.0)
            else:  # add to what the heads before have sent
                _copy_rows(dk_rows, dk_row, dk_j, wide, n, D, one)
                _copy_rows(dv_rows, dv_row, dv_j, wide, n, D, one)
            _backward_keys(query, dvalue, dquery, lse[b, h], delta, keys, k_columns, v_columns, dk_j, dv_j, key, n, D,
                           wide, max(0, -ahead - shift), min(T, n + behind - shift), shift, ahead, behind,
                           p, dx, height)  # fmt: skip
            _copy_rows(dk_j, wide, dk_rows, dk_row, n, D, one)
            _copy_rows(dv_j, wide, dv_rows, dv_row, n, D, one)
        if chunk == 0:
            _copy_rows(dquery, wide, dq[b * dq_batch + h * D :], dq_row, T, D, scale)
        else:
            _copy_rows(dquery, wide, dq_parts[chunk - 1, (b * T * H + h) * D :], H * D, T, D, scale)


@jit(parallel=True)
def _backward(chunks, dout, q, k, v, out, lse, dq, dq_parts, dk, dv, starts, sizes, steps, grad_steps,
              ahead, behind, scale, wide, height, width):  # fmt: skip
    for task in prange(sizes[0] * sizes[4] * chunks):
        _backward_task(np.int64(task), chunks, dout, q, k, v, out, lse, dq, dq_parts, dk, dv, starts, sizes, steps,
                       grad_steps, ahead, behind, scale, wide, height, width)  # fmt: skip


# ---- arrays as flat memory -------------------------------------------------------------------------------------------


def _in_place(x: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the kernels can use the memory of ``x`` (B, T, H, D): each token's (H, D) block must be contiguous."""
    flags = x.flags
    if x.dtype != dtype or not flags.writeable or not flags.aligned:
        return False
    if flags.c_contiguous:
        return True
    size, (_, _, H, D), (batch, row, head, last) = x.itemsize, x.shape, x.strides
    block = (last == size or D == 1) and (head == size * D or H == 1)
    return block and batch >= 0 and row >= 0 and not (batch % size or row % size)


def _memory(x: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, int, int]:
    """(B, T, H, D) -> its memory as one flat array, and the steps from batch row to batch row and token to token."""
    if not _in_place(x, dtype):
        x = np.array(x, dtype, order="C")
    B, T, H, D = x.shape
    if x.flags.c_contiguous:
        return x.reshape(-1), T * H * D, H * D
    batch, row = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    span = (B - 1) * batch + (T - 1) * row + H * D
    return np.lib.stride_tricks.as_strided(x, (span,), (x.itemsize,)), batch, row


def _reach(causal: bool, window: int, most: int) -> tuple[int, int]:
    """How many keys (ahead, behind) of its own position a query sees."""
    return 0 if causal else most, window - 1 if window > 0 else most


def _block(length: int, most: int) -> int:
    """Rows per block: small ones skip more of what a causal mask hides, large ones multiply faster."""
    return max(32, min(most, length // 16 // 32 * 32))


def _chunks(tasks: int, work: int, block: int) -> int:
    """Into how many parts the blocks of one head are dealt out, so that few heads still keep the threads busy.

    The shape alone decides, not the number of threads: sums cut elsewhere round differently.
    """
    if work < 16 * block * block:
        return 1
    return 4 if tasks == 1 else 2 if tasks < 4 or tasks % 2 and tasks < 16 else 1


def _check(name: str, q: np.ndarray, k: np.ndarray, v: np.ndarray, starts: Starts) -> tuple[np.dtype, np.ndarray]:
    """The dtype to compute in, and ``starts`` as the kernels want it."""
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"{name}: expected q (B, T, H, D), k and v (B, S, G, D); got {q.shape}, {k.shape}, {v.shape}")
    if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        heads = f"{q.shape[2]} and {k.shape[2]}"
        raise ValueError(f"{name}: the query heads must be a multiple of the key heads; got {heads}")
    starts = np.zeros(len(q), np.int64) if starts is None else integers(starts)
    if starts.shape != (len(q),):
        raise ValueError(f"{name}: starts must be (B,) = ({len(q)},) integers; got shape {starts.shape}")
    return q.dtype if q.dtype.char in "fd" else np.dtype(np.float32), starts


def _check_packed(qkv: np.ndarray, H: int, G: int) -> None:
    if qkv.ndim != 3 or G < 1 or H % G or qkv.shape[2] % (H + 2 * G):
        raise ValueError(f"attention_packed: expected (B, T, (H + 2 G) D) with H = {H}, G = {G}; got {qkv.shape}")


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
    if not JIT:
        return attention_forward_numpy(q, k, v, causal=causal, window=window, scale=scale, starts=starts)
    dtype, starts = _check("attention_forward", q, k, v, starts)
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    out = np.empty(q.shape, dtype)
    (q, *q_steps), (k, *k_steps), (v, *v_steps) = _memory(q, dtype), _memory(k, dtype), _memory(v, dtype)
    lse = _run_forward((q, k, v, out.reshape(-1)), (B, T, S, H, G, D),
                       (*q_steps, *k_steps, *v_steps, T * H * D, H * D), causal, window, scale, starts)  # fmt: skip
    return out, lse


def _run_forward(arrays, sizes, steps, causal, window, scale, starts):
    q, k, v, out = arrays
    B, T, S, H, G, D = sizes
    lse = np.empty((B, H, T), q.dtype)
    ahead, behind = _reach(causal, window, S + T)
    scale = lse.dtype.type(scale)
    if T == 1:
        _run_decode(q, k, v, out, lse, starts, sizes, steps, behind, scale)
    else:
        height = _block(T, 256)
        chunks = _chunks(B * G, T * S, height)
        _forward(chunks, *arrays, lse, starts, sizes, steps, ahead, behind, scale, width_of(D), height, 256)
    return lse


def _run_decode(q, k, v, out, lse, starts, sizes, steps, behind, scale):
    B, _, S, H, G, D = sizes
    seen = min(S, behind + 1)
    parts = 1 + max(0, seen - 1) // 512
    run = _decode_alone if B * H * seen * D < 1 << 16 else _decode
    if parts == 1:
        outs, lses = out.reshape(1, -1), lse.reshape(1, B, H)
    else:
        outs, lses = np.empty((parts, B * H * D), out.dtype), np.empty((parts, B, H), out.dtype)
    run(B * G * parts, q, k, v, outs, lses, starts, sizes, steps, behind, scale)
    if parts > 1:
        _merge(outs, lses, out, lse)


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
    if not JIT:
        return attention_backward_numpy(
            dout, q, k, v, out, lse, causal=causal, window=window, scale=scale, starts=starts, into=into
        )
    dtype, starts = _check("attention_backward", q, k, v, starts)
    (B, T, H, D), (S, G) = q.shape, k.shape[1:3]
    grads = into or (np.empty(q.shape, dtype), np.empty(k.shape, dtype), np.empty(v.shape, dtype))
    inside = [x if _in_place(x, dtype) else np.empty(x.shape, dtype) for x in grads]
    (q, *q_steps), (k, *k_steps), (v, *v_steps) = _memory(q, dtype), _memory(k, dtype), _memory(v, dtype)
    (dq, *dq_steps), (dk, *dk_steps), (dv, *dv_steps) = (_memory(x, dtype) for x in inside)
    dout, out, lse = contiguous(dout, dtype).reshape(-1), contiguous(out, dtype).reshape(-1), contiguous(lse, dtype)
    steps, grad_steps = (*q_steps, *k_steps, *v_steps, T * H * D, H * D), (*dq_steps, *dk_steps, *dv_steps)
    parts = _run_backward((dout, q, k, v, out, lse), (dq, dk, dv), (B, T, S, H, G, D), steps, grad_steps,
                          causal, window, scale, starts)  # fmt: skip
    for part in parts:
        inside[0][...] += part
    for x, gradient in zip(grads, inside, strict=True):
        if x is not gradient:
            x[...] = gradient
    return grads


def _run_backward(arrays, grads, sizes, steps, grad_steps, causal, window, scale, starts):
    B, T, S, H, G, D = sizes
    dtype = arrays[0].dtype
    ahead, behind = _reach(causal, window, S + T)
    dq, dk, dv = grads
    width = _block(S, 128)
    chunks = _chunks(B * G, T * S, width)
    parts = np.empty((chunks - 1, B * T * H * D), dtype)
    _backward(chunks, *arrays, dq, parts, dk, dv, starts, sizes, steps, grad_steps,
              ahead, behind, dtype.type(scale), width_of(D), max(1, min(256, T)), width)  # fmt: skip
    return parts.reshape(chunks - 1, B, T, H, D)


def _packed_layout(qkv: np.ndarray, H: int, G: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, int, int]]:
    """Sizes, the steps of q, k and v, and where each begins in the memory of ``qkv``."""
    _check_packed(qkv, H, G)
    B, T, width = qkv.shape
    D = width // (H + 2 * G)
    return (B, T, T, H, G, D), (T * width, width) * 3, (0, H * D, (H + G) * D)


@kernel(twin=attention_packed_forward_numpy)
def attention_packed_forward(  # noqa: D103
    qkv: np.ndarray, H: int, G: int, causal: bool, window: int, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    if not JIT:
        return attention_packed_forward_numpy(qkv, H, G, causal, window, scale)
    sizes, steps, columns = _packed_layout(qkv, H, G)
    B, T, _, _, _, D = sizes
    flat = contiguous(qkv).reshape(-1)
    out = np.empty((B, T, H * D), flat.dtype)
    arrays = (*(flat[column:] for column in columns), out.reshape(-1))
    return out, _run_forward(arrays, sizes, (*steps, T * H * D, H * D), causal, window, scale, np.zeros(B, np.int64))


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
    if not JIT:
        return attention_packed_backward_numpy(dout, qkv, out, lse, H, G, causal, window, scale)
    sizes, steps, columns = _packed_layout(qkv, H, G)
    T, D = sizes[1], sizes[5]
    flat = contiguous(qkv).reshape(-1)
    dqkv = np.empty(qkv.shape, flat.dtype)
    arrays = (contiguous(dout).reshape(-1), *(flat[c:] for c in columns), contiguous(out).reshape(-1), contiguous(lse))
    grads = [dqkv.reshape(-1)[c:] for c in columns]
    starts = np.zeros(len(qkv), np.int64)
    for part in _run_backward(arrays, grads, sizes, (*steps, T * H * D, H * D), steps, causal, window, scale, starts):
        dqkv[..., : H * D] += part.reshape(*dqkv.shape[:2], H * D)
    return dqkv
