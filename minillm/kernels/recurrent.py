"""Recurrent layers: a state that is carried from step to step, and the attention that looks back at its past values.

    h_t = cell(x_t, h_{t-1})

The three cells, in torch's layouts: ``w_ih`` (G H, C), ``w_hh`` (G H, H), biases (G H,), with G = 1, 4, 3 gates stacked
in the order that is given here.

    RNN (Elman 1990)                       h_t = tanh(W x_t + b + U h_{t-1} + b')
    LSTM (Hochreiter & Schmidhuber 1997)   i, f, o = sigmoid(...), g = tanh(...)     in the order i f g o
                                           c_t = f c_{t-1} + i g,   h_t = o tanh(c_t)
    GRU (Cho et al. 2014)                  r, z = sigmoid(...),  n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + b'_n))
                                           h_t = (1 - z) n + z h_{t-1}

*Why gates.* Backward through T steps of an RNN multiplies T Jacobians: the gradient dies out or explodes. An LSTM's
c_t = f c_{t-1} + ... and a GRU's z h_{t-1} carry it back unchanged while the gate is open.

How they are made fast. U h_{t-1} has to wait for the step before: a product of few rows, for which the matrix is packed
once for all steps (``tile.py``). The product W x_t, and backward that which gives dx_t, need not wait, but are made in
the same step: their result is used, or their operand was made, while it lies in the nearest caches (forward, where the
gates need only the sum of W x_t and U h_{t-1}, as one product: of both vectors side by side). The gates follow in one
vectorised pass. Threads share the rows of the batch: each takes its rows through all the steps alone, so that nobody
waits for anybody. Only the gradients of the matrices are products over all steps at once.

``starts``: before step ``starts[b]`` row b is padding: its state is zero there, and begins at zero.
"""

from __future__ import annotations

import numpy as np

from ._jit import JIT, contiguous, jit, kernel, like, prange, sigmoid, tanh
from .linear import linear_forward
from .matmul import product
from .rows import sum_rows
from .tile import COLS, add_product, empty_panels, pack, pack_under, room, width_of
from .tile_products import by_tiles, transposed_products

Starts = np.ndarray | None
Arrays = tuple[np.ndarray, ...]
Gradients = tuple[np.ndarray | None, ...]
_ROWS_OF_A_TASK = 16
LITTLE = 1 << 19  # multiplications: some 10 microseconds, about what waking a thread costs

# ---- the text to read ------------------------------------------------------------------------------------------------


def _sigmoid_numpy(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))  # never overflows
    return np.where(x >= 0, 1, e) / (1 + e)


def _live(t: int, starts: Starts, B: int) -> np.ndarray:
    """Which rows have begun by step t: (B, 1) booleans."""
    return np.ones((B, 1), bool) if starts is None else t >= np.asarray(starts)[:, None]


def _before(h: np.ndarray, h0: np.ndarray) -> np.ndarray:
    """The state that each step starts from: (B, T, H), h0 and all of h but the last."""
    return np.concatenate([h0[:, None], h[:, :-1]], axis=1)


def _weight_gradients(dz: np.ndarray, dp: np.ndarray, x: np.ndarray, h: np.ndarray, h0: np.ndarray) -> Arrays:
    """Gradients of z = x w_ih^T + b_ih and p = h_{t-1} w_hh^T + b_hh, all steps at once: dw_ih, dw_hh, db_ih, db_hh.

    dz, dp: (B, T, G H), one array twice where the gates need only z + p.
    """
    rows_z, rows_p = dz.reshape(-1, dz.shape[-1]), dp.reshape(-1, dp.shape[-1])
    dw_ih = product(rows_z.T, x.reshape(-1, x.shape[-1]))
    dw_hh = product(rows_p.T, _before(h, h0).reshape(-1, h.shape[-1]))
    db_ih = sum_rows(rows_z)
    return dw_ih, dw_hh, db_ih, db_ih if dp is dz else sum_rows(rows_p)


def rnn_forward_numpy(
    x: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray,
    h0: np.ndarray, starts: Starts = None,
) -> np.ndarray:  # fmt: skip
    """h_t = tanh(W x_t + b + U h_{t-1} + b').   x: (B, T, C), h0: (B, H) -> h: (B, T, H)."""
    B, T, _ = x.shape
    h = x @ w_ih.T + b_ih  # (B, T, H)
    state = h0
    for t in range(T):
        state = np.tanh(h[:, t] + state @ w_hh.T + b_hh) * _live(t, starts, B)  # (B, H)
        h[:, t] = state
    return h


def rnn_backward_numpy(
    dh: np.ndarray, x: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, h0: np.ndarray,
    h: np.ndarray, starts: Starts = None, x_needs: bool = True,
) -> Gradients:  # fmt: skip
    """Gradients of ``rnn_forward``: dx, dw_ih, dw_hh, db_ih, db_hh, dh0.   dh, h: (B, T, H)."""
    B, T, _ = h.shape
    dz = np.empty_like(h)  # (B, T, H), of what is inside the tanh
    carried = np.zeros_like(h0)  # (B, H), the gradient of h_t that comes from step t + 1
    for t in reversed(range(T)):
        # h = tanh(z)  ->  dz = dh (1 - h^2);   z = ... + h_{t-1} w_hh^T  ->  dh_{t-1} = dz w_hh
        dz[:, t] = (dh[:, t] + carried) * (1 - h[:, t] ** 2) * _live(t, starts, B)
        carried = dz[:, t] @ w_hh
    return dz @ w_ih if x_needs else None, *_weight_gradients(dz, dz, x, h, h0), carried


def lstm_forward_numpy(
    x: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray,
    h0: np.ndarray, c0: np.ndarray, starts: Starts = None,
) -> Arrays:  # fmt: skip
    """States and gates of an LSTM.   x: (B, T, C), h0, c0: (B, H) -> h, c: (B, T, H), gates i f g o: (B, T, 4 H)."""
    (B, T, _), H = x.shape, h0.shape[1]
    gates = x @ w_ih.T + b_ih  # (B, T, 4 H)
    h, c = np.empty((B, T, H), x.dtype), np.empty((B, T, H), x.dtype)
    state, memory = h0, c0
    for t in range(T):
        i, f, g, o = np.split(gates[:, t] + state @ w_hh.T + b_hh, 4, axis=1)  # (B, H) each
        i, f, g, o = _sigmoid_numpy(i), _sigmoid_numpy(f), np.tanh(g), _sigmoid_numpy(o)
        memory = (f * memory + i * g) * _live(t, starts, B)
        state = o * np.tanh(memory)
        gates[:, t], c[:, t], h[:, t] = np.concatenate([i, f, g, o], axis=1), memory, state
    return h, c, gates


def lstm_backward_numpy(
    dh: np.ndarray, dc_last: np.ndarray, x: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, h0: np.ndarray,
    c0: np.ndarray, h: np.ndarray, c: np.ndarray, gates: np.ndarray, starts: Starts = None, x_needs: bool = True,
) -> Gradients:  # fmt: skip
    """Gradients of ``lstm_forward``: dx, dw_ih, dw_hh, db_ih, db_hh, dh0, dc0.

    dh: (B, T, H), of all states; dc_last: (B, H), of the last memory.
    """
    B, T, _ = h.shape
    dz = np.empty_like(gates)  # (B, T, 4 H), of what is inside the sigmoids and the tanh
    before = _before(c, c0)  # (B, T, H)
    carried, dc = np.zeros_like(h0), dc_last
    for t in reversed(range(T)):
        i, f, g, o = np.split(gates[:, t], 4, axis=1)
        dh_t, tanh_c = dh[:, t] + carried, np.tanh(c[:, t])
        # h = o tanh(c)  ->  do = dh tanh(c),  dc += dh o (1 - tanh^2 c)
        do, dc = dh_t * tanh_c, dc + dh_t * o * (1 - tanh_c**2)
        # c = f c_{t-1} + i g  ->  di = dc g,  df = dc c_{t-1},  dg = dc i,  dc_{t-1} = dc f
        di, df, dg = dc * g, dc * before[:, t], dc * i
        inside = [di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)]
        dz[:, t] = np.concatenate(inside, axis=1) * _live(t, starts, B)
        dc = dc * f * _live(t, starts, B)
        carried = dz[:, t] @ w_hh
    return dz @ w_ih if x_needs else None, *_weight_gradients(dz, dz, x, h, h0), carried, dc


def gru_forward_numpy(
    x: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray,
    h0: np.ndarray, starts: Starts = None,
) -> Arrays:  # fmt: skip
    """States and gates of a GRU.   x: (B, T, C), h0: (B, H) -> h: (B, T, H), gates r z n: (B, T, 3 H), u: (B, T, H).

    u = U_n h_{t-1} + b'_n, which r multiplies; backward needs it.
    """
    (B, T, _), H = x.shape, h0.shape[1]
    gates = x @ w_ih.T + b_ih  # (B, T, 3 H)
    h, u = np.empty((B, T, H), x.dtype), np.empty((B, T, H), x.dtype)
    state = h0
    for t in range(T):
        p = state @ w_hh.T + b_hh  # (B, 3 H)
        r, z = np.split(_sigmoid_numpy(gates[:, t, : 2 * H] + p[:, : 2 * H]), 2, axis=1)  # (B, H) each
        u[:, t] = p[:, 2 * H :]
        n = np.tanh(gates[:, t, 2 * H :] + r * u[:, t])
        state = ((1 - z) * n + z * state) * _live(t, starts, B)
        gates[:, t], h[:, t] = np.concatenate([r, z, n], axis=1), state
    return h, gates, u


def gru_backward_numpy(
    dh: np.ndarray, x: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, h0: np.ndarray,
    h: np.ndarray, gates: np.ndarray, u: np.ndarray, starts: Starts = None, x_needs: bool = True,
) -> Gradients:  # fmt: skip
    """Gradients of ``gru_forward``: dx, dw_ih, dw_hh, db_ih, db_hh, dh0.   dh: (B, T, H)."""
    B, T, _ = h.shape
    dz, dp = np.empty_like(gates), np.empty_like(gates)  # (B, T, 3 H), of the inputs' part and of the state's part
    before = _before(h, h0)
    carried = np.zeros_like(h0)
    for t in reversed(range(T)):
        r, z, n = np.split(gates[:, t], 3, axis=1)
        dh_t = (dh[:, t] + carried) * _live(t, starts, B)
        # h = (1 - z) n + z h_{t-1}  ->  dz = dh (h_{t-1} - n),  dn = dh (1 - z),  dh_{t-1} = dh z + ...
        inside_z = dh_t * (before[:, t] - n) * z * (1 - z)
        inside_n = dh_t * (1 - z) * (1 - n**2)
        # n = tanh(... + r u)  ->  dr = dn u,  du = dn r
        inside_r = inside_n * u[:, t] * r * (1 - r)
        dz[:, t] = np.concatenate([inside_r, inside_z, inside_n], axis=1)
        dp[:, t] = np.concatenate([inside_r, inside_z, inside_n * r], axis=1)
        carried = dh_t * z + dp[:, t] @ w_hh
    return dz @ w_ih if x_needs else None, *_weight_gradients(dz, dp, x, h, h0), carried


# ---- one row, one step: loops that vectorise -------------------------------------------------------------------------
# z: the gates' sums, W x_t + b + U h_{t-1} + b' (of a GRU without the last two, which are p).


@jit(inner=True)
def _copy(x, y):
    for j in range(x.size):
        y[j] = x[j]


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
    _copy(p, u)
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
    _copy(dz[: 2 * H], dp)


# ---- all steps: each task takes some rows of the batch through time --------------------------------------------------
# ``w``, and ``u`` or ``w_h``: the packed matrices of x_t and of h_{t-1}; ``width``: the length of a row of sums;
# ``begin``: what the sums begin with, see ``_prepared``; h0: (B, 1, H).


@jit(inner=True)
def _begin_rows(begin, rows, lo, z):
    width = begin.shape[1]
    for r in range(rows):
        _copy(begin[lo + r if begin.shape[0] > 1 else 0], z[r * width :])


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
        _copy(x[lo + r, t], side[r * (C + H) :])
        _copy(h0[lo + r, 0] if t == 0 else h[lo + r, t - 1], side[r * (C + H) + C :])


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


# Backward: ``carried`` (B, width) holds the gradient of h_t that came back from step t + 1; the cell leaves there what
# goes on to h_{t-1} around the matrix, and the product adds what goes through it. While dz_t is at hand it is also
# multiplied by W, which gives dx_t.


@jit(inner=True)
def _carry_back(dp, t, lo, rows, panels, carried):
    width = carried.shape[1]
    _add_part(dp, t, lo, rows, panels, carried[lo : lo + rows].reshape(-1), width)


@jit(inner=True)
def _input_gradient(dz, t, lo, rows, panels, dx_t, dx):
    # dx: (B, T, C), without columns when nobody asks for it
    C = dx.shape[2]
    if C:
        width = dx_t.size // rows
        dx_t[:] = 0
        _add_part(dz, t, lo, rows, panels, dx_t, width)
        for r in range(rows):
            _copy(dx_t[r * width : r * width + C], dx[lo + r, t])


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


@jit(parallel=True)
def _pack_before(h, h0, panels):
    # the panels of what _before returns, (B T, H)
    B, T, H = h.shape
    for p in prange(panels.size // (B * T * COLS)):
        first = np.int64(p) * COLS
        cols, panel = min(COLS, H - first), panels[first * B * T : (first + COLS) * B * T]
        if cols < COLS:
            panel[:] = 0
        for b in range(B):
            _copy(h0[b, first : first + cols], panel[b * T * COLS :])
            for t in range(1, T):
                _copy(h[b, t - 1, first : first + cols], panel[(b * T + t) * COLS :])


# The tasks: at most ``most`` rows each. A single one runs without waking the other threads. (np.int64, because to
# Numba a literal 0 and the unsigned counter of a prange are other types: two more compilations.)


@jit(parallel=True)
def _rnn_forward(most, x, panels, begin, h0, starts, h):
    B = x.shape[0]
    if B <= most:
        _rnn_forward_rows(np.int64(0), B, x, panels, begin, h0, starts, h)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _rnn_forward_rows(lo, min(most, B - lo), x, panels, begin, h0, starts, h)


@jit(parallel=True)
def _lstm_forward(most, x, panels, begin, h0, c0, starts, gates, h, c):
    B = x.shape[0]
    if B <= most:
        _lstm_forward_rows(np.int64(0), B, x, panels, begin, h0, c0, starts, gates, h, c)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _lstm_forward_rows(lo, min(most, B - lo), x, panels, begin, h0, c0, starts, gates, h, c)


@jit(parallel=True)
def _gru_forward(most, x, w, w_h, begin, begin_h, h0, starts, gates, h, u):
    B = x.shape[0]
    if B <= most:
        _gru_forward_rows(np.int64(0), B, x, w, w_h, begin, begin_h, h0, starts, gates, h, u)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _gru_forward_rows(lo, min(most, B - lo), x, w, w_h, begin, begin_h, h0, starts, gates, h, u)


@jit(parallel=True)
def _rnn_backward(most, dh, h, w, u, starts, carried, dz, dx):
    B = dh.shape[0]
    if B <= most:
        _rnn_backward_rows(np.int64(0), B, dh, h, w, u, starts, carried, dz, dx)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _rnn_backward_rows(lo, min(most, B - lo), dh, h, w, u, starts, carried, dz, dx)


@jit(parallel=True)
def _lstm_backward(most, dh, dc, gates, c, c0, w, u, starts, carried, dz, dx):
    B = dh.shape[0]
    if B <= most:
        _lstm_backward_rows(np.int64(0), B, dh, dc, gates, c, c0, w, u, starts, carried, dz, dx)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _lstm_backward_rows(lo, min(most, B - lo), dh, dc, gates, c, c0, w, u, starts, carried, dz, dx)


@jit(parallel=True)
def _gru_backward(most, dh, gates, u, h, h0, w, w_h, starts, carried, dz, dp, dx):
    B = dh.shape[0]
    if B <= most:
        _gru_backward_rows(np.int64(0), B, dh, gates, u, h, h0, w, w_h, starts, carried, dz, dp, dx)
    else:
        for part in prange((B + most - 1) // most):
            lo = np.int64(part) * most
            _gru_backward_rows(lo, min(most, B - lo), dh, gates, u, h, h0, w, w_h, starts, carried, dz, dp, dx)


# ---- the kernels -----------------------------------------------------------------------------------------------------


def _rows_of_a_task(B: int, T: int, w_hh: np.ndarray) -> int:
    """16, fewer where a small batch would leave a thread idle, all where the work is little.

    The packed matrix is read once for each task and step, and not from the nearest caches: 8 rows take 2 % longer.
    The shape alone decides, not the number of threads.
    """
    return B if B * T * w_hh.size < LITTLE else min(_ROWS_OF_A_TASK, max(1, -(-B // 2)))


def _prepared(T: int, bias: np.ndarray, *products: tuple[np.ndarray, np.ndarray]) -> Arrays:
    """What the sums begin with, and the panels of the products x w^T, side by side, that are added at every step.

    The sums begin with the bias, (1, width) for all rows alike. For a single step packing would cost more than the
    product: there they begin with all there is, (B, width), and the panels are empty.
    """
    rows = bias[None] if T > 1 else sum((linear_forward(x, w, None) for x, w in products), bias)
    begin = np.zeros((len(rows), width_of(len(bias))), bias.dtype)
    begin[:, : len(bias)] = rows
    return begin, pack_under(*(contiguous(w) for _, w in products)) if T > 1 else np.empty(0, bias.dtype)


def _packed(w: np.ndarray) -> np.ndarray:
    """The panels of ``w``: (K, N)."""
    return pack(w.reshape(-1), w.shape[1], False, *w.shape)


def _int_starts(starts: Starts, B: int) -> np.ndarray:
    return np.zeros(B, np.int64) if starts is None else np.asarray(starts, np.int64)


def _prepared_backward(x: np.ndarray, w_ih: np.ndarray, w_hh: np.ndarray, starts: Starts, x_needs: bool) -> Arrays:
    """The packed matrices, the rows' starts, and room for what is carried back and for dx (no column if unwanted)."""
    B, T, C = x.shape
    width = width_of(w_hh.shape[1])
    w = _packed(w_ih) if x_needs else np.empty(0, w_ih.dtype)
    dx = np.empty((B, T, C if x_needs else 0), x.dtype)
    return w, _packed(w_hh), _int_starts(starts, B), np.zeros((B, width), x.dtype), dx


def _weight_gradients_by_tiles(dz: np.ndarray, dp: np.ndarray, x: np.ndarray, h: np.ndarray, h0: np.ndarray) -> Arrays:
    """The same as ``_weight_gradients``; where the products are worth tiles, dz is fetched once for all of them."""
    (B, T, C), H, width = x.shape, h.shape[2], dz.shape[2]
    if not all(by_tiles(x.dtype, width, n, B * T) and n <= width for n in (C, H)):
        return _weight_gradients(dz, dp, x, h, h0)
    x_panels, h_panels = pack(x.reshape(-1), C, False, B * T, C), empty_panels(B * T, H, h.dtype)
    _pack_before(h, h0, h_panels)
    dw_ih, dw_hh, db_ih = np.empty((width, C), x.dtype), np.empty((width, H), x.dtype), np.empty(width, x.dtype)
    if dp is dz:
        transposed_products(dz.reshape(-1, width), x_panels, dw_ih, h_panels, dw_hh, db_ih)
        return dw_ih, dw_hh, db_ih, db_ih
    db_hh, no_panels, no_columns = np.empty_like(db_ih), x_panels[:0], dw_ih[:, :0].copy()
    transposed_products(dz.reshape(-1, width), x_panels, dw_ih, no_panels, no_columns, db_ih)
    transposed_products(dp.reshape(-1, width), h_panels, dw_hh, no_panels, no_columns, db_hh)
    return dw_ih, dw_hh, db_ih, db_hh


@kernel(twin=rnn_forward_numpy)
def rnn_forward(x, w_ih, w_hh, b_ih, b_hh, h0, starts=None):  # noqa: D103
    if not JIT:
        return rnn_forward_numpy(x, w_ih, w_hh, b_ih, b_hh, h0, starts)
    x, w_ih, w_hh, b_ih, b_hh, h0 = (contiguous(a) for a in (x, w_ih, w_hh, b_ih, b_hh, h0))
    (B, T, _), H = x.shape, h0.shape[1]
    begin, panels = _prepared(T, b_ih + b_hh, (x[:, 0], w_ih), (h0, w_hh))
    h = np.empty((B, T, H), x.dtype)
    _rnn_forward(_rows_of_a_task(B, T, w_hh), x, panels, begin, h0[:, None], _int_starts(starts, B), h)
    return h


@kernel(twin=rnn_backward_numpy)
def rnn_backward(dh, x, w_ih, w_hh, h0, h, starts=None, x_needs=True):  # noqa: D103
    if not JIT:
        return rnn_backward_numpy(dh, x, w_ih, w_hh, h0, h, starts, x_needs)
    dh, x, w_ih, w_hh, h0 = (contiguous(a) for a in (dh, x, w_ih, w_hh, h0))
    (B, T, H), dz = h.shape, np.empty_like(h)
    w, u, starts, carried, dx = _prepared_backward(x, w_ih, w_hh, starts, x_needs)
    _rnn_backward(_rows_of_a_task(B, T, w_hh), dh, h, w, u, starts, carried, dz, dx)
    return dx if x_needs else None, *_weight_gradients_by_tiles(dz, dz, x, h, h0), carried[:, :H].copy()


@kernel(twin=lstm_forward_numpy)
def lstm_forward(x, w_ih, w_hh, b_ih, b_hh, h0, c0, starts=None):  # noqa: D103
    if not JIT:
        return lstm_forward_numpy(x, w_ih, w_hh, b_ih, b_hh, h0, c0, starts)
    x, w_ih, w_hh, b_ih, b_hh, h0, c0 = (contiguous(a) for a in (x, w_ih, w_hh, b_ih, b_hh, h0, c0))
    (B, T, _), H = x.shape, h0.shape[1]
    begin, panels = _prepared(T, b_ih + b_hh, (x[:, 0], w_ih), (h0, w_hh))
    gates, h, c = (np.empty((B, T, n), x.dtype) for n in (4 * H, H, H))
    _lstm_forward(_rows_of_a_task(B, T, w_hh), x, panels, begin, h0[:, None], c0, _int_starts(starts, B), gates, h, c)
    return h, c, gates


@kernel(twin=lstm_backward_numpy)
def lstm_backward(dh, dc_last, x, w_ih, w_hh, h0, c0, h, c, gates, starts=None, x_needs=True):  # noqa: D103
    if not JIT:
        return lstm_backward_numpy(dh, dc_last, x, w_ih, w_hh, h0, c0, h, c, gates, starts, x_needs)
    dh, x, w_ih, w_hh, h0, c0 = (contiguous(a) for a in (dh, x, w_ih, w_hh, h0, c0))
    (B, T, H), dz = h.shape, np.empty_like(gates)
    dc = dc_last.astype(h.dtype, order="C")  # turned from the last step's into the first's
    w, u, starts, carried, dx = _prepared_backward(x, w_ih, w_hh, starts, x_needs)
    _lstm_backward(_rows_of_a_task(B, T, w_hh), dh, dc, gates, c, c0, w, u, starts, carried, dz, dx)
    return dx if x_needs else None, *_weight_gradients_by_tiles(dz, dz, x, h, h0), carried[:, :H].copy(), dc


@kernel(twin=gru_forward_numpy)
def gru_forward(x, w_ih, w_hh, b_ih, b_hh, h0, starts=None):  # noqa: D103
    if not JIT:
        return gru_forward_numpy(x, w_ih, w_hh, b_ih, b_hh, h0, starts)
    x, w_ih, w_hh, b_ih, b_hh, h0 = (contiguous(a) for a in (x, w_ih, w_hh, b_ih, b_hh, h0))
    (B, T, _), H = x.shape, h0.shape[1]
    (begin, w), (begin_h, w_h) = _prepared(T, b_ih, (x[:, 0], w_ih)), _prepared(T, b_hh, (h0, w_hh))
    gates, h, u = (np.empty((B, T, n), x.dtype) for n in (3 * H, H, H))
    _gru_forward(
        _rows_of_a_task(B, T, w_hh), x, w, w_h, begin, begin_h, h0[:, None], _int_starts(starts, B), gates, h, u
    )
    return h, gates, u


@kernel(twin=gru_backward_numpy)
def gru_backward(dh, x, w_ih, w_hh, h0, h, gates, u, starts=None, x_needs=True):  # noqa: D103
    if not JIT:
        return gru_backward_numpy(dh, x, w_ih, w_hh, h0, h, gates, u, starts, x_needs)
    dh, x, w_ih, w_hh, h0 = (contiguous(a) for a in (dh, x, w_ih, w_hh, h0))
    (B, T, H), dz, dp = h.shape, np.empty_like(gates), np.empty_like(gates)
    w, w_h, starts, carried, dx = _prepared_backward(x, w_ih, w_hh, starts, x_needs)
    _gru_backward(_rows_of_a_task(B, T, w_hh), dh, gates, u, h, h0, w, w_h, starts, carried, dz, dp, dx)
    return dx if x_needs else None, *_weight_gradients_by_tiles(dz, dp, x, h, h0), carried[:, :H].copy()
