"""The loops of attention: tiles of scores that stay in the cache, their products in registers.

A tile holds the scores of some queries (its rows) with some keys (its columns), without gaps, the
columns filled up to whole panels of ``tile.COLS``. Its products are those of ``tile.py``, whose
second operand must lie in panels. Keys and values are packed as the columns of a transposed matrix
for the products that sum over D, and as rows of ``wide`` numbers, D filled up to whole panels, for
those that sum over keys or queries. What fills up is never read back: it may hold anything.

Backward starts its tiles at -lse and -delta, so that the products end at x - lse and dp - delta;
forward, one loop takes the exponentials of a whole tile, for loops over rows of 32 or 64 numbers
are all beginning and end.

Arguments that the loops share. sizes: B, T, S, H, G, D. steps: for q, k, v, out (and dout) three
numbers each, the steps in memory from batch row to batch row, from token to token and from head to
head; the last axis is contiguous.
sight: how many keys (ahead, behind) of its own position a query sees. block: ``wide``, then the
rows (queries) and columns (keys) of a tile.

Tasks write to different memory and are cut by the shapes alone: the result does not depend on the
number of threads.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit, prange
from .tile import COLS, ROWS, SIDE, room, scale_side, turn_over
from .tile import tile as multiply
from .tile import tile_from as multiply_from
from .vector_math import exp, like, row_max
from .vectors import add_scaled, dot, exponentials, fill, scale_by, scaled, subtract, sum_of

# ---- rows and tiles ------------------------------------------------------------------------------


@jit(inner=True)
def _exponentials_and_slopes(x, dp):
    # x -> p, dp - delta -> dx
    for i in range(x.size):
        p = exp(x[i])
        x[i] = p
        dp[i] *= p


@jit(inner=True)
def _fill_rows(x, x_row, rows, d, value):
    for i in range(rows):
        fill(x[i * x_row : i * x_row + d], value)


@jit(inner=True)
def _copy_rows(x, x_row, y, y_row, rows, d, factor):
    # y = factor * x for rows of d numbers that lie x_row and y_row apart
    whole = d // SIDE * SIDE
    for i in range(rows):
        for j in range(0, whole, SIDE):
            scale_side(x, i * x_row + j, factor, y, i * y_row + j)
        if whole < d:
            scaled(x[i * x_row + whole : i * x_row + d], factor, y[i * y_row + whole : i * y_row + d])


@jit(inner=True)
def _transposed(x, x_row, rows, d, y):
    # rows of d numbers -> panels of COLS columns, a row of x being a column
    for i in range(0, rows, COLS):
        turn_over(x, i * x_row, x_row, min(COLS, rows - i), d, y[i * d : (i + COLS) * d], COLS)


@jit(inner=True)
def _add_rows(weights, x, x_row, y):
    # y += sum_j weights_j x_j
    for j in range(weights.size):
        add_scaled(weights[j], x[j * x_row : j * x_row + y.size], y)


@jit(inner=True)
def _hide(tile, m, n, cols, shift, ahead, behind, value):
    # put value where a query does not see a key; query i stands at column shift + i of n
    if n == cols and shift + ahead >= n - 1 and shift + m - 1 <= behind:
        return  # the first query sees the last key, and the last query the first
    for i in range(m):
        a = min(max(shift + i - behind, 0), n)
        b = max(min(shift + i + ahead + 1, n), a)
        if a > 0:
            fill(tile[i * cols : i * cols + a], value)
        if b < cols:
            fill(tile[i * cols + b : (i + 1) * cols], value)


@jit(inner=True)
def _scores(a, a_row, rows, d, columns, begin, begin_at, scores, cols, first, ahead, behind):
    # scores (rows, cols) = begin + a b for b (d, cols) in panels and a number for each row to begin
    # at, but not where no row of a tile sees a column of it: what stood there stays. Row i stands
    # at column first + i
    for col in range(0, cols, COLS):
        for row in range(0, rows, ROWS):
            if col < first + row + ROWS + ahead and col + COLS > first + row - behind:
                multiply_from(a, row * a_row, a_row, 1, rows - row, columns, col * d, COLS, d,
                              scores, row * cols + col, cols, begin, begin_at + row)  # fmt: skip


@jit(inner=True)
def _add_means(weights, row_step, step, rows, n, b, c, wide, first, ahead, behind):
    # c += weights b for b (n, wide), whose row first + i is where row i of the weights (rows, n)
    # stands: the weights that are hidden from all rows of a tile are left out
    for row in range(0, rows, ROWS):
        lo, hi = max(first + row - behind, 0), min(first + row + ROWS + ahead, n)
        if lo < hi:
            for col in range(0, wide, COLS):
                multiply(weights, row * row_step + lo * step, row_step, step, rows - row, b, lo * wide + col, wide,
                         hi - lo, c, row * wide + col, wide)  # fmt: skip


@jit(inner=True)
def _begin(array, steps, b, t, h):
    # the memory from token t of head h on
    return array[b * steps[0] + t * steps[1] + h * steps[2] :]


@jit(inner=True)
def _dealt(turn, chunk, chunks):
    # Blocks are dealt to the chunks of a head back and forth, 0 1 2 2 1 0 0 1 2 ..: in causal
    # attention the later queries see more keys, and the earlier keys are seen by more queries.
    return turn * chunks + (chunk if turn % 2 == 0 else chunks - 1 - chunk)


# ---- forward -------------------------------------------------------------------------------------


@jit(inner=True)
def _forward_block(query, k_columns, v, out, out_row, lse, d, wide, shift, lo, hi, sight, width, zeros, tile, acc):
    # the online softmax of some queries, the first of which stands at key shift, over the keys [lo,
    # hi)
    m, (ahead, behind) = lse.size, sight
    peak, total = np.empty(m, query.dtype), np.zeros(m, query.dtype)
    fill(peak, -np.inf)
    fill(acc[: m * wide], 0.0)
    for key in range(lo // COLS * COLS, hi, width):
        n = min(width, hi - key)
        cols = (n + COLS - 1) // COLS * COLS
        _scores(query, d, m, d, k_columns[key * d :], zeros, 0, tile, cols, shift - key, ahead, behind)
        _hide(tile, m, n, cols, shift - key, ahead, behind, -np.inf)
        for i in range(m):
            x = tile[i * cols : (i + 1) * cols]
            top = max(peak[i], row_max(x))
            if top > peak[i]:
                if total[i] > 0:  # what was summed under the old peak counts less under the new one
                    fade = exp(peak[i] - top)
                    total[i] *= fade
                    scale_by(acc[i * wide : (i + 1) * wide], fade)
                peak[i] = top
            if top > -np.inf:
                subtract(x, top)
        exponentials(tile[: m * cols])
        for i in range(m):
            total[i] += sum_of(tile[i * cols : i * cols + n])
        _add_means(tile, cols, 1, m, n, v[key * wide :], acc, wide, shift - key, ahead, behind)
    for i in range(m):
        weight = like(acc, 1) / total[i] if total[i] != 0 else like(acc, 0)  # 0: it sees nothing
        scaled(acc[i * wide : i * wide + d], weight, out[i * out_row : i * out_row + d])
        lse[i] = peak[i] + np.log(total[i])


@jit(inner=True)
def _forward_task(task, chunks, q, k, v, out, lse, starts, sizes, steps, sight, scale, block):
    # a task: one of the chunks of the queries whose heads read the same keys
    (_, T, S, H, G, D), (wide, height, width) = sizes, block
    q_steps, k_steps, v_steps, out_steps = steps[:3], steps[3:6], steps[6:9], steps[9:]
    b, g, chunk = task // (G * chunks), task // chunks % G, task % chunks
    begin = min(S, max(0, starts[b], S - T - sight[1]))  # nobody sees the keys before
    keys = S - begin
    k_columns, values = room((keys + COLS) * D, q), room(keys * wide, q)
    _transposed(_begin(k, k_steps, b, begin, g), k_steps[1], keys, D, k_columns)
    _copy_rows(_begin(v, v_steps, b, begin, g), v_steps[1], values, wide, keys, D, like(q, 1))
    query, tile, acc = room(height * D, q), room(height * width, q), room(height * wide, q)
    zeros = np.zeros(height, q.dtype)
    for h in range(g * (H // G), (g + 1) * (H // G)):
        for turn in range(-(-T // (height * chunks))):
            row = _dealt(turn, chunk, chunks) * height
            m, shift = min(height, T - row), S - T + row - begin
            if m > 0:
                lo, hi = max(0, shift - sight[1]), min(keys, shift + m + sight[0])
                _copy_rows(_begin(q, q_steps, b, row, h), q_steps[1], query, D, m, D, scale)
                _forward_block(query, k_columns, values, _begin(out, out_steps, b, row, h), out_steps[1],
                               lse[b, h, row : row + m], D, wide, shift, lo, hi, sight, width, zeros, tile,
                               acc)  # fmt: skip


@jit(parallel=True)
def forward(chunks, q, k, v, out, lse, starts, sizes, steps, sight, scale, block):
    """out and lse of attention; q, k, v, out: flat memory, lse: (B, H, T)."""
    for task in prange(sizes[0] * sizes[4] * chunks):
        _forward_task(np.int64(task), chunks, q, k, v, out, lse, starts, sizes, steps, sight, scale, block)


# ---- a single query ------------------------------------------------------------------------------


@jit(inner=True)
def _decode_head(q, k, k_row, v, v_row, out, scale, x):
    # one query and a few keys, each read once: loops that keep pace with the memory; returns the
    # log-sum-exp
    fill(out, 0.0)
    if x.size == 0:
        return like(x, -np.inf)
    for j in range(x.size):
        x[j] = dot(q, k[j * k_row : j * k_row + q.size]) * scale
    top = row_max(x)
    subtract(x, top)
    exponentials(x)
    total = sum_of(x)
    _add_rows(x, v, v_row, out)
    scale_by(out, like(x, 1) / total)
    return top + np.log(total)


@jit(inner=True)
def _decode_task(task, q, k, v, outs, lses, starts, sizes, steps, sight, scale):
    # a task: one part of the keys of a head; the query heads that read it take turns while it is in
    # the cache
    _, _, S, H, G, D = sizes
    q_steps, k_steps, v_steps, out_steps = steps[:3], steps[3:6], steps[6:9], steps[9:]
    parts, first = outs.shape[0], max(0, S - 1 - sight[1])
    b, g, part = task // (G * parts), task // parts % G, task % parts
    hi = first + (part + 1) * (S - first) // parts
    lo = min(hi, max(starts[b], first + part * (S - first) // parts))
    x = np.empty(hi - lo, q.dtype)
    for h in range(g * (H // G), (g + 1) * (H // G)):
        lses[part, b, h] = _decode_head(
            _begin(q, q_steps, b, 0, h)[:D], _begin(k, k_steps, b, lo, g), k_steps[1], _begin(v, v_steps, b, lo, g),
            v_steps[1], _begin(outs[part], out_steps, b, 0, h)[:D], scale, x,
        )  # fmt: skip


@jit
def decode_alone(tasks, q, k, v, outs, lses, starts, sizes, steps, sight, scale):
    """``decode`` in this thread: a few keys are read before a second one is awake."""
    for task in range(tasks):
        _decode_task(task, q, k, v, outs, lses, starts, sizes, steps, sight, scale)


@jit(parallel=True)
def decode(tasks, q, k, v, outs, lses, starts, sizes, steps, sight, scale):
    """Attention of one query per row to each part of the keys; outs: (parts, B H D), lses:
    (parts, B, H).
    """
    for task in prange(tasks):
        _decode_task(np.int64(task), q, k, v, outs, lses, starts, sizes, steps, sight, scale)


@jit
def merge(outs, lses, out, lse):
    """The softmax over all keys from that over each part, which weighs e^lse, the sum of its
    exponentials.
    """
    D = out.size // lse.size
    for row in range(lse.size):
        b, h, to = row // lse.shape[1], row % lse.shape[1], out[row * D : (row + 1) * D]
        weights = lses[:, b, h].copy()
        top = row_max(weights)
        if top > -np.inf:
            subtract(weights, top)
        exponentials(weights)
        total = sum_of(weights)
        fill(to, 0.0)
        _add_rows(weights, outs.reshape(-1)[row * D :], out.size, to)
        scale_by(to, like(out, 1) / total if total != 0 else like(out, 0))
        lse[b, h, 0] = top + np.log(total)


# ---- backward ------------------------------------------------------------------------------------


@jit(inner=True)
def _backward_keys(query, dvalue, dquery, minus_lse, minus_delta, k, k_columns, v_columns, dk, dv, n, d, shift, lo, hi,
                   sight, p, dx, block):  # fmt: skip
    # n keys with the queries [lo, hi) of a head; query t stands at key shift + t of these n
    (ahead, behind), (wide, height, _) = sight, block
    cols = (n + COLS - 1) // COLS * COLS
    for row in range(lo, hi, height):
        m = min(height, hi - row)
        q_i, do_i, dq_i = query[row * wide :], dvalue[row * wide :], dquery[row * wide :]
        at = shift + row
        _scores(q_i, wide, m, d, k_columns, minus_lse, row, p, cols, at, ahead, behind)  # scores - lse
        _scores(do_i, wide, m, d, v_columns, minus_delta, row, dx, cols, at, ahead, behind)  # dp - delta
        _exponentials_and_slopes(p[: m * cols], dx[: m * cols])
        _hide(p, m, n, cols, at, ahead, behind, 0.0)
        _hide(dx, m, n, cols, at, ahead, behind, 0.0)
        # a key stands at query j - at, and is seen by queries ``behind`` ahead of it and ``ahead``
        # behind it
        _add_means(p, 1, cols, n, m, do_i, dv, wide, -at, behind, ahead)  # out = p v  ->  dv = p^T dout
        _add_means(dx, 1, cols, n, m, q_i, dk, wide, -at, behind, ahead)  # x = q k^T  ->  dk = dx^T q
        _add_means(dx, cols, 1, m, n, k, dq_i, wide, at, ahead, behind)  #                 dq = dx k


@jit(inner=True)
def _backward_task(task, chunks, q, k, v, out, dout, lse, dq, dk, dv, starts, sizes, steps, grad_steps, sight, scale,
                   block):  # fmt: skip
    # A task: one of the chunks of the keys of a head, whose gradients it owns. To a query's
    # gradient every key adds, and so each chunk has a dq of its own.
    (_, T, S, H, G, D), (wide, height, width), one = sizes, block, like(q, 1)
    q_steps, k_steps, v_steps, out_steps, dout_steps = steps[:3], steps[3:6], steps[6:9], steps[9:12], steps[12:]
    dq_steps, dk_steps, dv_steps = grad_steps[:3], grad_steps[3:6], grad_steps[6:]
    b, g, chunk = task // (G * chunks), task // chunks % G, task % chunks
    begin = min(S, max(0, starts[b], S - T - sight[1]))  # nobody sees the keys before
    keys = S - begin
    k_g, v_g = _begin(k, k_steps, b, begin, g), _begin(v, v_steps, b, begin, g)
    k_rows, k_columns, v_columns = room(keys * wide, q), room((keys + COLS) * D, q), room((keys + COLS) * D, q)
    _copy_rows(k_g, k_steps[1], k_rows, wide, keys, D, one)
    _transposed(k_g, k_steps[1], keys, D, k_columns)
    _transposed(v_g, v_steps[1], keys, D, v_columns)
    query, dvalue, dquery = room(T * wide, q), room(T * wide, q), room(T * wide, q)
    minus_lse, minus_delta = np.empty(T, q.dtype), np.empty(T, q.dtype)
    p, dx = room(height * width, q), room(height * width, q)
    dk_j, dv_j = room(width * wide, q), room(width * wide, q)
    if chunk == 0:
        _fill_rows(_begin(dk, dk_steps, b, 0, g), dk_steps[1], begin, D, 0.0)
        _fill_rows(_begin(dv, dv_steps, b, 0, g), dv_steps[1], begin, D, 0.0)
    for h in range(g * (H // G), (g + 1) * (H // G)):
        out_h = _begin(out, out_steps, b, 0, h)
        _copy_rows(_begin(q, q_steps, b, 0, h), q_steps[1], query, wide, T, D, scale)
        _copy_rows(_begin(dout, dout_steps, b, 0, h), dout_steps[1], dvalue, wide, T, D, one)
        for t in range(T):
            minus_lse[t] = -lse[b, h, t]
            minus_delta[t] = -dot(dvalue[t * wide : t * wide + D], out_h[t * out_steps[1] : t * out_steps[1] + D])
        fill(dquery, 0.0)
        for turn in range(-(-keys // (width * chunks))):
            key = _dealt(turn, chunk, chunks) * width
            n, shift = min(width, keys - key), S - T - begin - key
            if n <= 0:
                continue
            dk_to, dv_to = _begin(dk, dk_steps, b, begin + key, g), _begin(dv, dv_steps, b, begin + key, g)
            if h == g * (H // G):
                fill(dk_j, 0.0)
                fill(dv_j, 0.0)
            else:  # add to what the heads before have sent
                _copy_rows(dk_to, dk_steps[1], dk_j, wide, n, D, one)
                _copy_rows(dv_to, dv_steps[1], dv_j, wide, n, D, one)
            _backward_keys(
                query, dvalue, dquery, minus_lse, minus_delta, k_rows[key * wide :], k_columns[key * D :],
                v_columns[key * D :], dk_j, dv_j, n, D, shift, max(0, -sight[0] - shift), min(T, n + sight[1] - shift),
                sight, p, dx, block,
            )  # fmt: skip
            _copy_rows(dk_j, wide, dk_to, dk_steps[1], n, D, one)
            _copy_rows(dv_j, wide, dv_to, dv_steps[1], n, D, one)
        _copy_rows(dquery, wide, _begin(dq[chunk], dq_steps, b, 0, h), dq_steps[1], T, D, scale)


@jit(parallel=True)
def backward(chunks, q, k, v, out, dout, lse, dq, dk, dv, starts, sizes, steps, grad_steps, sight, scale, block):
    """Gradients of attention; dq: (chunks, ...), of which the sum over the chunks is the gradient
    of q.
    """
    for task in prange(sizes[0] * sizes[4] * chunks):
        _backward_task(np.int64(task), chunks, q, k, v, out, dout, lse, dq, dk, dv, starts, sizes, steps, grad_steps,
                       sight, scale, block)  # fmt: skip
