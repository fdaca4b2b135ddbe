"""Linear layers: the product and its bias in one call, and the three gradients in another.

A weight is used as it lies in memory: one that is the transpose of a contiguous array (GPT-2 stores
its weights so) is multiplied where it is, and its gradient lies likewise.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit, prange
from .blas import gemm, has_blas, hold_blas_threads, release_blas_threads
from .layout import as_rows, contiguous
from .matmul import NO_BIAS, by_numpy, parts_of, product
from .rows import add_rows, copy_rows, sum_parts, sum_rows
from .tile_products import by_tiles, multiply_by_tiles

Gradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


def _is_transposed(w: np.ndarray) -> bool:
    return w.flags.f_contiguous and not w.flags.c_contiguous


# ---- forward -------------------------------------------------------------------------------------


def linear_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """See functional/linear.py."""
    dtype = x.dtype
    alike = w.dtype == dtype and (b is None or b.dtype == dtype) and dtype in NO_BIAS
    if not (has_blas and alike and x.size and w.size):
        y = by_numpy(x, w.T)
        return y if b is None else y + b
    n, c = w.shape
    turned = _is_transposed(w)
    stored = contiguous(w.T if turned else w)  # (N, C), or (C, N) if turned
    y, rows = np.empty((*x.shape[:-1], n), dtype), as_rows(contiguous(x))
    m, bias = len(rows), NO_BIAS[dtype] if b is None else contiguous(b)
    if by_tiles(dtype, m, n, c):
        multiply_by_tiles(rows.reshape(-1), False, stored.reshape(-1), not turned, y.reshape(-1), m, n, c, bias)
    else:
        _linear(rows, stored, turned, bias, as_rows(y), *parts_of(m, n, c))
    return y


@jit(parallel=True)
def _linear(x, w, turned, bias, y, row_parts, col_parts):
    # y (M, N) = x w^T + bias; x: (M, C), w: (N, C), or (C, N) if turned, bias: (N,), or (0,) for
    # none
    hold_blas_threads()
    for part in prange(row_parts * col_parts):
        r, s, (m, n) = part // col_parts, part % col_parts, y.shape
        row, rows = r * m // row_parts, (r + 1) * m // row_parts - r * m // row_parts
        col, cols = s * n // col_parts, (s + 1) * n // col_parts - s * n // col_parts
        _block(row, rows, col, cols, x, w, turned, bias, y)
    release_blas_threads()


@jit(inner=True)
def _block(row, rows, col, cols, x, w, turned, bias, y):
    # the block of y whose rows and columns begin at row and col
    n, c = y.shape[1], x.shape[1]
    y_part, w_part = y.reshape(-1)[row * n + col :], w.reshape(-1)[col if turned else col * c :]
    if bias.size:
        copy_rows(bias[col:], 0, y_part, n, rows, cols)
    gemm(False, not turned, rows, cols, c, x[row : row + rows].reshape(-1), c, w_part, w.shape[1], y_part, n,
         1.0 if bias.size else 0.0)  # fmt: skip


# ---- backward ------------------------------------------------------------------------------------


def linear_backward(dy: np.ndarray, x: np.ndarray, w: np.ndarray, needs: tuple[bool, bool, bool]) -> Gradients:
    """See functional/linear.py."""
    if _is_transposed(w):
        dx, dw, db = _gradients(dy, x, w.T, True, *needs)
        return dx, None if dw is None else dw.T, db
    return _gradients(dy, x, w, False, *needs)


def _gradients(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, turned: bool, x_needs: bool, w_needs: bool, b_needs: bool
) -> Gradients:
    """The gradients; ``turned``, w and dw are (C, N)."""
    n, c, dtype = dy.shape[-1], x.shape[-1], x.dtype
    rows, dy_rows = as_rows(x), as_rows(dy)
    m, in_place = len(rows), w.flags.c_contiguous and w.flags.writeable and w.dtype == dy.dtype == dtype
    together = x_needs and w_needs and in_place and dtype in NO_BIAS and m * n * c >= 1 << 17
    if not (has_blas and together) or by_tiles(dtype, m, c, n) or by_tiles(dtype, n, c, m):
        left, right = (rows, dy_rows) if turned else (dy_rows, rows)
        dx = product(dy, w.T if turned else w) if x_needs else None
        return dx, product(left.T, right) if w_needs else None, sum_rows(dy_rows) if b_needs else None
    dx, dw, width = np.empty(x.shape, dtype), np.empty(w.shape, dtype), n if b_needs else 0
    sums, db = np.empty((max(parts_of(m, n, c)), width)), np.empty(width, dtype)
    _all_gradients(contiguous(dy_rows), contiguous(rows), w, turned, as_rows(dx), dw, sums, db)
    return dx, dw, db if b_needs else None


@jit(parallel=True)
def _all_gradients(dy, x, w, turned, dx, dw, sums, db):
    # dy: (M, N), x: (M, C), w, dw: (N, C), or (C, N) if turned; sums: (parts, N), or (parts, 0) if
    # unwanted
    hold_blas_threads()
    m, parts = dy.shape[0], sums.shape[0]
    for part in prange(parts):
        _input_gradient(part * m // parts, (part + 1) * m // parts, dy, w, turned, dx, sums[part])
        _weight_gradient(np.int64(part), parts, dy, x, turned, dw)
    release_blas_threads()
    sum_parts(sums, db)


@jit(inner=True)
def _input_gradient(lo, hi, dy, w, turned, dx, sums):
    # rows [lo, hi) of dx = dy w, and the sums over these rows of dy, if any are wanted
    n, c, dy_rows = dy.shape[1], dx.shape[1], dy[lo:hi]
    gemm(False, turned, hi - lo, c, n, dy_rows.reshape(-1), n, w.reshape(-1), w.shape[1],
         dx[lo:hi].reshape(-1), c, 0.0)  # fmt: skip
    sums[:] = 0
    if sums.size:
        add_rows(dy_rows, sums)


@jit(inner=True)
def _weight_gradient(part, parts, dy, x, turned, dw):
    # one of the parts, some rows or columns, of dw = dy^T x, or x^T dy if turned
    left, right = (x, dy) if turned else (dy, x)
    rows, cols = dw.shape
    by_rows = rows >= cols
    length = rows if by_rows else cols
    lo, hi = part * length // parts, (part + 1) * length // parts
    row, col = (lo, 0) if by_rows else (0, lo)
    height, width = (hi - lo, cols) if by_rows else (rows, hi - lo)
    gemm(True, False, height, width, dy.shape[0], left.reshape(-1)[row:], rows, right.reshape(-1)[col:], cols,
         dw.reshape(-1)[row * cols + col :], cols, 0.0)  # fmt: skip
