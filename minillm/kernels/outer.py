"""The gradients of weight matrices, dw = dz^T x: over all rows of a batch the sum of outer products, in tiles.

    z = x w^T + b   ->   dw = sum_m dz_m x_m^T,   db = sum_m dz_m        dz: (M, N), x: (M, C), dw: (N, C), db: (N,)

M, the number of rows, is the long axis, and nothing of that length stays near a processor. It is cut into blocks of
DEPTH rows, and what a tile (``tile.py``) reads again and again is first copied into the order in which it reads: all of
x into panels, and of dz, block by block, the few columns whose rows of dw a task owns. These copies pass over all of
dz, which makes db free.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ._jit import JIT, contiguous, jit, kernel, prange
from .tile import COLS, ROWS, _pack, empty_panels, tile, width_of

DEPTH = 256  # rows of a block: so many of a panel stay in the first-level cache
OWN = 64  # columns of dz, rows of dw, that a task owns


def weight_gradients_numpy(dz: np.ndarray, inputs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """The gradients of all w_i and of b, for z = x_1 w_1^T + x_2 w_2^T + b.

    dz: (M, N), one or two inputs x_i: (M, C_i) -> [dw_i: (N, C_i)], db: (N,).
    """
    return [dz.T @ x for x in inputs], dz.sum(axis=0)


@jit
def _pack_columns(dz, begin, depth, first, packed, db):
    # for each group of ROWS columns, row after row of them; and their sums
    cols = db.size
    whole = cols // ROWS * ROWS
    for i in range(depth):
        row = dz[begin + i, first : first + cols]
        _add(row, db)
        for g in range(0, whole, ROWS):
            for j in range(ROWS):
                packed[g * DEPTH + i * ROWS + j] = row[g + j]
        for j in range(cols - whole):
            packed[whole * DEPTH + i * ROWS + j] = row[whole + j]


@jit
def _add(x, y):
    for j in range(x.size):
        y[j] += x[j]


@jit
def _add_block(packed, depth, cols, begin, M, panels, sums, width):
    # sums (cols, width) += packed (depth, cols)^T @ rows begin ... begin + depth of the panels (M, width)
    for col in range(0, width, COLS):
        for row in range(0, cols, ROWS):
            tile(packed, row * DEPTH, 1, ROWS, cols - row, panels, col * M + begin * COLS, COLS, depth,
                 sums, row * width + col, width)  # type: ignore[call-arg]  # fmt: skip


@jit
def _own_rows(dz, first, cols, panels, width, dw_1, dw_2, db):
    M, width_1 = dz.shape[0], width - (dw_2.shape[1] + COLS - 1) // COLS * COLS
    packed, sums = np.empty(OWN * DEPTH, dz.dtype), np.zeros(cols * width, dz.dtype)
    db[:] = 0
    for begin in range(0, M, DEPTH):
        depth = min(DEPTH, M - begin)
        _pack_columns(dz, begin, depth, first, packed, db)
        _add_block(packed, depth, cols, begin, M, panels, sums, width)
    for i in range(cols):
        row = sums[i * width : (i + 1) * width]
        dw_1[first + i] = row[: dw_1.shape[1]]
        dw_2[first + i] = row[width_1 : width_1 + dw_2.shape[1]]


@jit(parallel=True)
def _weight_gradients(dz, panels, width, dw_1, dw_2, db):
    N = dz.shape[1]
    for task in prange((N + OWN - 1) // OWN):
        first = np.int64(task) * OWN
        cols = min(OWN, N - first)
        _own_rows(dz, first, cols, panels, width, dw_1, dw_2, db[first : first + cols])


@kernel(twin=weight_gradients_numpy)
def weight_gradients(dz, inputs):  # noqa: D103
    if not JIT:
        return weight_gradients_numpy(dz, inputs)
    dz, (M, N) = contiguous(dz), dz.shape
    inputs = [contiguous(x, dz.dtype) for x in inputs]
    panels = empty_panels(M, sum(width_of(x.shape[1]) for x in inputs), dz.dtype)
    begin = 0
    for x in inputs:
        end = begin + M * width_of(x.shape[1])
        _pack(x, False, M, x.shape[1], panels[begin:end])
        begin = end
    dws = [np.empty((N, x.shape[1]), dz.dtype) for x in inputs]
    db = np.empty(N, dz.dtype)
    _weight_gradients(dz, panels, begin // M, dws[0], dws[1] if len(dws) > 1 else np.empty((N, 0), dz.dtype), db)
    return dws, db
