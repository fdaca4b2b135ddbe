"""The loops of recurrent layers: a row, a step; some rows through all steps; all rows, shared
between the threads.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit, prange
from .paths import add_product
from .tile import room
from .vector_math import like, sigmoid, tanh
from .vectors import copy

# ---- one row, one step: loops that vectorise -----------------------------------------------------
# z: the gates' sums, W x_t + b + U h_{t-1} + b' (of a GRU without the last two, which are p).


@jit(inner=True)
def _tanh(z, y):
    for j in range(y.size):
        y[j] = tanh(z[j])


@jit(inner=True)
def _sigmoid(z, y):
    for j in range(y.size):
        y[j] = sigmoid(z[j])


@jit(inner=True)
def _sigmoid_of_sum(z, p, y):
    for j in range(y.size):
        y[j] = sigmoid(z[j] + p[j])


@jit(inner=True)
def _lstm_state(i, f, g, o, before, c, h):
    for j in range(h.size):
        c[j] = f[j] * before[j] + i[j] * g[j]
    for j in range(h.size):
        h[j] = o[j] * tanh(c[j])


@jit(inner=True)
def _lstm_cell(z, before, gates, c, h):
    H = h.size
    _sigmoid(z[: 2 * H], gates[: 2 * H])
    _tanh(z[2 * H : 3 * H], gates[2 * H : 3 * H])
    _sigmoid(z[3 * H : 4 * H], gates[3 * H :])
    _lstm_state(gates[:H], gates[H : 2 * H], gates[2 * H : 3 * H], gates[3 * H :], before, c, h)


@jit(inner=True)
def _gru_state(z, p, before, r, keep, n, u, h):
    copy(p, u)
    for j in range(h.size):
        n[j] = tanh(z[j] + r[j] * p[j])
    for j in range(h.size):
        h[j] = n[j] + keep[j] * (before[j] - n[j])


@jit(inner=True)
def _gru_cell(z, p, before, gates, u, h):
    H = h.size
    _sigmoid_of_sum(z[: 2 * H], p[: 2 * H], gates[: 2 * H])
    last = slice(2 * H, 3 * H)
    _gru_state(z[last], p[last], before, gates[:H], gates[H : 2 * H], gates[2 * H :], u, h)


@jit(inner=True)
def _rnn_cell_backward(carried, dh, h, dz):
    one = like(h, 1)
    for j in range(h.size):
        dz[j] = (dh[j] + carried[j]) * (one - h[j] * h[j])
    for j in range(h.size):
        carried[j] = 0


@jit(inner=True)
def _lstm_cell_backward(carried, dh, dc, gates, before, c, dz):
    H = c.size
    i, f, g, o = gates[:H], gates[H : 2 * H], gates[2 * H : 3 * H], gates[3 * H :]
    d_o, one = dz[3 * H :], like(dz, 1)
    for j in range(H):
        dh_j, tanh_c = dh[j] + carried[j], tanh(c[j])
        d_o[j] = dh_j * tanh_c * o[j] * (one - o[j])
        dc[j] += dh_j * o[j] * (one - tanh_c * tanh_c)
    _lstm_gates_backward(dc, i, f, g, before, dz[:H], dz[H : 2 * H], dz[2 * H : 3 * H])
    for j in range(H):
        dc[j] *= f[j]
        carried[j] = 0


@jit(inner=True)
def _lstm_gates_backward(dc, i, f, g, before, di, df, dg):
    one = like(dc, 1)
    for j in range(dc.size):
        di[j] = dc[j] * g[j] * i[j] * (one - i[j])
    for j in range(dc.size):
        df[j] = dc[j] * before[j] * f[j] * (one - f[j])
    for j in range(dc.size):
        dg[j] = dc[j] * i[j] * (one - g[j] * g[j])


@jit(inner=True)
def _gru_cell_backward(carried, dh, gates, u, before, dz, dp):
    H = u.size
    r, z, n = gates[:H], gates[H : 2 * H], gates[2 * H :]
    dr, d_z, dn, du, one = dz[:H], dz[H : 2 * H], dz[2 * H :], dp[2 * H :], like(dz, 1)
    for j in range(H):
        carried[j] += dh[j]
    for j in range(H):
        d_z[j] = carried[j] * (before[j] - n[j]) * z[j] * (one - z[j])
    for j in range(H):
        dn[j] = carried[j] * (one - z[j]) * (one - n[j] * n[j])
    for j in range(H):
        dr[j] = dn[j] * u[j] * r[j] * (one - r[j])
        du[j] = dn[j] * r[j]
    for j in range(H):
        carried[j] *= z[j]
    copy(dz[: 2 * H], dp)


# ---- all steps: each task takes some rows of the batch through time ------------------------------
# ``w``, and ``u`` or ``w_h``: the packed matrices of x_t and of h_{t-1}; ``width``: the length of a
# row of sums; ``begin``: what the sums begin with, see ``_prepared``; h0: (B, 1, H).


@jit(inner=True)
def _begin_rows(begin, rows, lo, z):
    width = begin.shape[1]
    for r in range(rows):
        copy(begin[lo + r if begin.shape[0] > 1 else 0], z[r * width :])


@jit(inner=True)
def _add_part(x, t, lo, rows, panels, z, width):
    """Add the product of x_t, for the rows of a task, to z (rows, width).   x: (B, T, C)."""
    T, C = x.shape[1], x.shape[2]
    if panels.size:
        add_product(x.reshape(-1), (lo * T + t) * C, T * C, rows, C, panels, z, width)


@jit(inner=True)
def _add_recurrent_part(h, h0, t, lo, rows, panels, z, width):
    """Add the product of h_{t-1}, which before the first step is h0 (B, 1, H)."""
    if t == 0:
        _add_part(h0, np.int64(0), lo, rows, panels, z, width)
    else:
        _add_part(h, t - 1, lo, rows, panels, z, width)


@jit(inner=True)
def _lay_side_by_side(x, h, h0, t, lo, rows, side):
    """side (rows, C + H): x_t and h_{t-1}, which before the first step is h0 (B, 1, H)."""
    C, H = x.shape[2], h.shape[2]
    for r in range(rows):
        copy(x[lo + r, t], side[r * (C + H) :])
        copy(h0[lo + r, 0] if t == 0 else h[lo + r, t - 1], side[r * (C + H) + C :])


@jit(inner=True)
def _rnn_forward_rows(lo, rows, x, panels, begin, h0, starts, h):
    T, H, width = h.shape[1], h.shape[2], begin.shape[1]
    k = x.shape[2] + h.shape[2]
    z = np.empty(rows * width, h.dtype)
    side = room(rows * k, z)
    for t in range(T):
        _begin_rows(begin, rows, lo, z)
        if panels.size:
            _lay_side_by_side(x, h, h0, t, lo, rows, side)
            add_product(side, 0, k, rows, k, panels, z, width)
        for r in range(rows):
            if t < starts[lo + r]:
                h[lo + r, t] = 0
            else:
                _tanh(z[r * width : r * width + H], h[lo + r, t])


@jit(inner=True)
def _lstm_forward_rows(lo, rows, x, panels, begin, h0, c0, starts, gates, h, c):
    T, width = h.shape[1], begin.shape[1]
    k = x.shape[2] + h.shape[2]
    z = np.empty(rows * width, h.dtype)
    side = room(rows * k, z)
    for t in range(T):
        _begin_rows(begin, rows, lo, z)
        if panels.size:
            _lay_side_by_side(x, h, h0, t, lo, rows, side)
            add_product(side, 0, k, rows, k, panels, z, width)
        for r in range(rows):
            b = lo + r
            if t < starts[b]:
                gates[b, t] = 0
                h[b, t] = 0
                c[b, t] = 0
            else:
                before = c0[b] if t == 0 else c[b, t - 1]
                _lstm_cell(z[r * width : (r + 1) * width], before, gates[b, t], c[b, t], h[b, t])


@jit(inner=True)
def _gru_forward_rows(lo, rows, x, w, w_h, begin, begin_h, h0, starts, gates, h, u):
    T, width = h.shape[1], begin.shape[1]
    z, p = np.empty(rows * width, h.dtype), np.empty(rows * width, h.dtype)
    for t in range(T):
        _begin_rows(begin, rows, lo, z)
        _begin_rows(begin_h, rows, lo, p)
        _add_part(x, t, lo, rows, w, z, width)
        _add_recurrent_part(h, h0, t, lo, rows, w_h, p, width)
        for r in range(rows):
            b = lo + r
            if t < starts[b]:
                gates[b, t] = 0
                u[b, t] = 0
                h[b, t] = 0
            else:
                before, row = h0[b, 0] if t == 0 else h[b, t - 1], slice(r * width, (r + 1) * width)
                _gru_cell(z[row], p[row], before, gates[b, t], u[b, t], h[b, t])


# Backward: ``carried`` (B, width) holds the gradient of h_t that came back from step t + 1; the
# cell leaves there what goes on to h_{t-1} around the matrix, and the product adds what goes
# through it. While dz_t is at hand it is also multiplied by W, which gives dx_t.


@jit(inner=True)
def _carry_back(dp, t, lo, rows, panels, carried):
    width = carried.shape[1]
    _add_part(dp, t, lo, rows, panels, carried[lo : lo + rows].reshape(-1), width)


@jit(inner=True)
def _input_gradient(dz, t, lo, rows, panels, dx_t, dx):
    C, width = dx.shape[2], dx_t.size // rows
    dx_t[:] = 0
    _add_part(dz, t, lo, rows, panels, dx_t, width)
    for r in range(rows):
        copy(dx_t[r * width : r * width + C], dx[lo + r, t])


@jit(inner=True)
def _rnn_backward_rows(lo, rows, dh, h, w, u, starts, carried, dz, dx):
    T, H = dh.shape[1], dh.shape[2]
    dx_t = np.empty(rows * (w.size // dz.shape[2]), h.dtype)
    for t in range(T - 1, -1, -1):
        for b in range(lo, lo + rows):
            if t < starts[b]:
                dz[b, t] = 0
                carried[b] = 0
            else:
                _rnn_cell_backward(carried[b, :H], dh[b, t], h[b, t], dz[b, t])
        _carry_back(dz, t, lo, rows, u, carried)
        _input_gradient(dz, t, lo, rows, w, dx_t, dx)


@jit(inner=True)
def _lstm_backward_rows(lo, rows, dh, dc, gates, c, c0, w, u, starts, carried, dz, dx):
    T, H = dh.shape[1], dh.shape[2]
    dx_t = np.empty(rows * (w.size // dz.shape[2]), dh.dtype)
    for t in range(T - 1, -1, -1):
        for b in range(lo, lo + rows):
            if t < starts[b]:
                dz[b, t] = 0
                dc[b] = 0
                carried[b] = 0
            else:
                before = c0[b] if t == 0 else c[b, t - 1]
                _lstm_cell_backward(carried[b, :H], dh[b, t], dc[b], gates[b, t], before, c[b, t], dz[b, t])
        _carry_back(dz, t, lo, rows, u, carried)
        _input_gradient(dz, t, lo, rows, w, dx_t, dx)


@jit(inner=True)
def _gru_backward_rows(lo, rows, dh, gates, u, h, h0, w, w_h, starts, carried, dz, dp, dx):
    T, H = dh.shape[1], dh.shape[2]
    dx_t = np.empty(rows * (w.size // dz.shape[2]), dh.dtype)
    for t in range(T - 1, -1, -1):
        for b in range(lo, lo + rows):
            if t < starts[b]:
                dz[b, t] = 0
                dp[b, t] = 0
                carried[b] = 0
            else:
                before = h0[b] if t == 0 else h[b, t - 1]
                _gru_cell_backward(carried[b, :H], dh[b, t], gates[b, t], u[b, t], before, dz[b, t], dp[b, t])
        _carry_back(dp, t, lo, rows, w_h, carried)
        _input_gradient(dz, t, lo, rows, w, dx_t, dx)


# ---- tasks: at most ``most`` rows each -----------------------------------------------------------
# A single one runs without waking the other threads. (np.int64, because to Numba a literal 0 and
# the unsigned counter of a prange are other types: two more compilations.)
#
# One text six times, and not one loop to which the cell is handed over: a compiled function that is
# an argument, or is held by a closure, is another one in every process to Numba, which would
# compile anew each time instead of reading its cache.


@jit(parallel=True)
def rnn_forward(most, x, panels, begin, h0, starts, h):
    """Fill h."""
    B = x.shape[0]
    if B <= most:
        _rnn_forward_rows(np.int64(0), B, x, panels, begin, h0, starts, h)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _rnn_forward_rows(lo, min(most, B - lo), x, panels, begin, h0, starts, h)


@jit(parallel=True)
def lstm_forward(most, x, panels, begin, h0, c0, starts, gates, h, c):
    """Fill gates, h and c."""
    B = x.shape[0]
    if B <= most:
        _lstm_forward_rows(np.int64(0), B, x, panels, begin, h0, c0, starts, gates, h, c)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _lstm_forward_rows(lo, min(most, B - lo), x, panels, begin, h0, c0, starts, gates, h, c)


@jit(parallel=True)
def gru_forward(most, x, w, w_h, begin, begin_h, h0, starts, gates, h, u):
    """Fill gates, h and u."""
    B = x.shape[0]
    if B <= most:
        _gru_forward_rows(np.int64(0), B, x, w, w_h, begin, begin_h, h0, starts, gates, h, u)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _gru_forward_rows(lo, min(most, B - lo), x, w, w_h, begin, begin_h, h0, starts, gates, h, u)


@jit(parallel=True)
def rnn_backward(most, dh, h, w, u, starts, carried, dz, dx):
    """Fill dz, dx, and what is carried back to h0."""
    B = dh.shape[0]
    if B <= most:
        _rnn_backward_rows(np.int64(0), B, dh, h, w, u, starts, carried, dz, dx)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _rnn_backward_rows(lo, min(most, B - lo), dh, h, w, u, starts, carried, dz, dx)


@jit(parallel=True)
def lstm_backward(most, dh, dc, gates, c, c0, w, u, starts, carried, dz, dx):
    """Fill dz, dx, and what is carried back to h0 and, in dc, to c0."""
    B = dh.shape[0]
    if B <= most:
        _lstm_backward_rows(np.int64(0), B, dh, dc, gates, c, c0, w, u, starts, carried, dz, dx)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _lstm_backward_rows(lo, min(most, B - lo), dh, dc, gates, c, c0, w, u, starts, carried, dz, dx)


@jit(parallel=True)
def gru_backward(most, dh, gates, u, h, h0, w, w_h, starts, carried, dz, dp, dx):
    """Fill dz, dp, dx, and what is carried back to h0."""
    B = dh.shape[0]
    if B <= most:
        _gru_backward_rows(np.int64(0), B, dh, gates, u, h, h0, w, w_h, starts, carried, dz, dp, dx)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _gru_backward_rows(lo, min(most, B - lo), dh, gates, u, h, h0, w, w_h, starts, carried, dz, dp, dx)
