"""How a call of a recurrent layer becomes loops; what is computed is told in
``functional/recurrent.py``.

U h_{t-1} has to wait for the step before: a product of few rows, for which the matrix is packed
once for all steps (``tile.py``). The product W x_t, and backward that which gives dx_t, need not
wait, but are made in the same step: they use, or leave, what lies in the nearest caches (forward,
where the gates need only the sum of W x_t and U h_{t-1}, as one product: of both vectors side by
side). The gates follow in one vectorised pass. Threads share the rows of the batch: each takes its
rows through all the steps alone, so that nobody waits for anybody. Only the gradients of the
matrices are products over all steps at once.

The loops are in ``recurrent_loops.py``.
"""

from __future__ import annotations

import numpy as np

from . import recurrent_loops as loops
from .layout import contiguous, integers
from .linear import linear_forward
from .matmul import product
from .paths import pack_steps
from .rows import sum_rows
from .tile import width_of

Starts = np.ndarray | None
Array = np.ndarray
Arrays = tuple[np.ndarray, ...]
_ROWS_OF_A_TASK = 16
LITTLE = 1 << 19  # multiplications: some 10 microseconds, about what waking a thread costs

# ---- the kernels ---------------------------------------------------------------------------------


def rnn_forward(
    x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, h0: Array, starts: Starts = None
) -> Array:
    """See functional/recurrent.py."""
    x, w_ih, w_hh, b_ih, b_hh, h0 = (contiguous(a) for a in (x, w_ih, w_hh, b_ih, b_hh, h0))
    (B, T, _), H = x.shape, h0.shape[1]
    most, first = _rows_of_a_task(B, T, w_hh), _first_steps(starts, B)
    begin, panels = _prepared(most, T, b_ih + b_hh, (x[:, 0], w_ih), (h0, w_hh))
    h = np.empty((B, T, H), x.dtype)
    loops.rnn_forward(most, x, panels, begin, h0[:, None], first, h)
    return h


def rnn_backward(dh: Array, x: Array, w_ih: Array, w_hh: Array, h0: Array, h: Array, starts: Starts = None) -> Arrays:
    """See functional/recurrent.py."""
    dh, x, w_ih, w_hh, h0 = (contiguous(a) for a in (dh, x, w_ih, w_hh, h0))
    (B, T, H), dz = h.shape, np.empty_like(h)
    most = _rows_of_a_task(B, T, w_hh)
    w, u, first, carried, dx = _prepared_backward(most, x, w_ih, w_hh, starts)
    loops.rnn_backward(most, dh, h, w, u, first, carried, dz, dx)
    return dx, *_weight_gradients(dz, dz, x, h, h0), carried[:, :H].copy()


def lstm_forward(
    x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, h0: Array, c0: Array, starts: Starts = None
) -> Arrays:
    """See functional/recurrent.py."""
    x, w_ih, w_hh, b_ih, b_hh, h0, c0 = (contiguous(a) for a in (x, w_ih, w_hh, b_ih, b_hh, h0, c0))
    (B, T, _), H = x.shape, h0.shape[1]
    most, first = _rows_of_a_task(B, T, w_hh), _first_steps(starts, B)
    begin, panels = _prepared(most, T, b_ih + b_hh, (x[:, 0], w_ih), (h0, w_hh))
    gates, h, c = (np.empty((B, T, n), x.dtype) for n in (4 * H, H, H))
    loops.lstm_forward(most, x, panels, begin, h0[:, None], c0, first, gates, h, c)
    return h, c, gates


def lstm_backward(
    dh: Array,
    dc_last: Array,
    x: Array,
    w_ih: Array,
    w_hh: Array,
    h0: Array,
    c0: Array,
    h: Array,
    c: Array,
    gates: Array,
    starts: Starts = None,
) -> Arrays:
    """See functional/recurrent.py."""
    dh, x, w_ih, w_hh, h0, c0 = (contiguous(a) for a in (dh, x, w_ih, w_hh, h0, c0))
    (B, T, H), dz = h.shape, np.empty_like(gates)
    dc = dc_last.astype(h.dtype, order="C")  # a copy, turned from the last step's into the first's
    most = _rows_of_a_task(B, T, w_hh)
    w, u, first, carried, dx = _prepared_backward(most, x, w_ih, w_hh, starts)
    loops.lstm_backward(most, dh, dc, gates, c, c0, w, u, first, carried, dz, dx)
    return dx, *_weight_gradients(dz, dz, x, h, h0), carried[:, :H].copy(), dc


def gru_forward(
    x: Array, w_ih: Array, w_hh: Array, b_ih: Array, b_hh: Array, h0: Array, starts: Starts = None
) -> Arrays:
    """See functional/recurrent.py."""
    x, w_ih, w_hh, b_ih, b_hh, h0 = (contiguous(a) for a in (x, w_ih, w_hh, b_ih, b_hh, h0))
    (B, T, _), H = x.shape, h0.shape[1]
    most, first = _rows_of_a_task(B, T, w_hh), _first_steps(starts, B)
    begin, w = _prepared(most, T, b_ih, (x[:, 0], w_ih))
    begin_h, w_h = _prepared(most, T, b_hh, (h0, w_hh))
    gates, h, u = (np.empty((B, T, n), x.dtype) for n in (3 * H, H, H))
    loops.gru_forward(most, x, w, w_h, begin, begin_h, h0[:, None], first, gates, h, u)
    return h, gates, u


def gru_backward(
    dh: Array,
    x: Array,
    w_ih: Array,
    w_hh: Array,
    h0: Array,
    h: Array,
    gates: Array,
    u: Array,
    starts: Starts = None,
) -> Arrays:
    """See functional/recurrent.py."""
    dh, x, w_ih, w_hh, h0 = (contiguous(a) for a in (dh, x, w_ih, w_hh, h0))
    (B, T, H), dz, dp = h.shape, np.empty_like(gates), np.empty_like(gates)
    most = _rows_of_a_task(B, T, w_hh)
    w, w_h, first, carried, dx = _prepared_backward(most, x, w_ih, w_hh, starts)
    loops.gru_backward(most, dh, gates, u, h, h0, w, w_h, first, carried, dz, dp, dx)
    return dx, *_weight_gradients(dz, dp, x, h, h0), carried[:, :H].copy()


# ---- before the steps ----------------------------------------------------------------------------


def _rows_of_a_task(B: int, T: int, w_hh: np.ndarray) -> int:
    """16, fewer where a small batch would leave a thread idle, all where the work is little.

    The packed matrix is read once for each task and step, and not from the nearest caches: 8 rows
    take 2 % longer. The shape alone decides, not the number of threads.
    """
    return B if B * T * w_hh.size < LITTLE else min(_ROWS_OF_A_TASK, max(1, -(-B // 2)))


@np.errstate(under="ignore")
def _prepared(most: int, T: int, bias: np.ndarray, *products: tuple[np.ndarray, np.ndarray]) -> Arrays:
    """What the sums begin with, and the panels of the products x w^T, side by side, that are added
    at every step.

    The sums begin with the bias, (1, width) for all rows alike. For a single step packing would
    cost more than the product: there they begin with all there is, (B, width), and the panels are
    empty.
    """
    rows = bias[None] if T > 1 else sum((linear_forward(x, w, None) for x, w in products), bias)
    begin = np.zeros((len(rows), width_of(len(bias))), bias.dtype)
    begin[:, : len(bias)] = rows
    return begin, pack_steps(most, *(w.T for _, w in products)) if T > 1 else np.empty((0, 0, 0), bias.dtype)


def _prepared_backward(most: int, x: Array, w_ih: Array, w_hh: Array, starts: Starts) -> Arrays:
    """The packed matrices, the rows' first steps, and buffers for what is carried back and for dx.
    """
    carried = np.zeros((len(x), width_of(w_hh.shape[1])), x.dtype)
    packed = pack_steps(most, w_ih), pack_steps(most, w_hh)
    return *packed, _first_steps(starts, len(x)), carried, np.empty_like(x)


def _first_steps(starts: Starts, B: int) -> np.ndarray:
    return np.zeros(B, np.int64) if starts is None else integers(starts)


# ---- after the steps -----------------------------------------------------------------------------


@np.errstate(under="ignore")
def _weight_gradients(dz: np.ndarray, dp: np.ndarray, x: np.ndarray, h: np.ndarray, h0: np.ndarray) -> Arrays:
    """dw_ih, dw_hh, db_ih, db_hh."""
    rows_z, rows_p = dz.reshape(-1, dz.shape[-1]), dp.reshape(-1, dp.shape[-1])
    before = np.concatenate([h0[:, None], h[:, :-1]], axis=1)  # (B, T, H), the states that the steps start from
    dw_ih = product(rows_z.T, x.reshape(-1, x.shape[-1]))
    dw_hh = product(rows_p.T, before.reshape(-1, h.shape[-1]))
    db_ih = sum_rows(rows_z)
    return dw_ih, dw_hh, db_ih, db_ih if dp is dz else sum_rows(rows_p)
