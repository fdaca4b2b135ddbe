"""Matrix products, most of the work of every model: the large ones of float32 by our own tiles
(tile_products.py), all others by BLAS (blas.py).
"""

from __future__ import annotations

import math

import numpy as np

from . import blas
from ._jit import CORES, jit, prange
from .blas import gemm, has_blas, hold_blas_threads, release_blas_threads
from .tile_products import by_tiles, multiply_by_tiles

NO_BIAS = {np.dtype(t): np.empty(0, t) for t in (np.float32, np.float64)}
_TINY = 1 << 13  # multiplications up to which NumPy's shortest way is the quickest


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """See tensor.py."""
    if a.ndim == b.ndim == 2 and a.size * b.size <= _TINY:
        return a.dot(b)
    if not has_blas or a.ndim < 2 or b.ndim < 2 or a.dtype != b.dtype or a.dtype.char not in "fd":
        return by_numpy(a, b)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if k != b.shape[-2] or a.size * n <= _TINY or b.size == 0:  # (or an error, which NumPy words)
        return by_numpy(a, b)
    if b.ndim == 2:  # one matrix for the whole batch: its rows are one long product
        rows = a.reshape(-1, k) if a.ndim > 2 else a
        c = np.empty((len(rows), n), a.dtype)
        _multiply(rows, b, c)
        return c.reshape(*a.shape[:-1], n)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = a if a.shape[:-2] == batch or a.ndim == 2 else np.broadcast_to(a, batch + a.shape[-2:])
    b = b if b.shape[:-2] == batch else np.broadcast_to(b, batch + b.shape[-2:])
    c = np.empty((*batch, m, n), a.dtype)
    count = math.prod(batch)
    if count == 1:
        _multiply(a.reshape(m, k), b.reshape(k, n), c.reshape(m, n))
    else:
        (flat_a, a_turned), (flat_b, b_turned) = _flat(a), _flat(b)
        parts = parts_of(m, n, k) if count < 8 else (1, 1)
        _blocks(flat_a, a_turned, flat_b, b_turned, c.reshape(count, -1), m, n, k, *parts)
    return c


def by_numpy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """NumPy's product, where what is too small for a float is 0 and no error."""
    with np.errstate(under="ignore"):
        return np.matmul(a, b)


def _multiply(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """c = a b for matrices, c contiguous."""
    (m, n), k = c.shape, a.shape[1]
    (flat_a, a_turned), (flat_b, b_turned) = _flat(a), _flat(b)
    if by_tiles(c.dtype, m, n, k):
        multiply_by_tiles(flat_a[0], a_turned, flat_b[0], b_turned, c.reshape(-1), m, n, k, NO_BIAS[c.dtype])
    else:
        _blocks(flat_a, a_turned, flat_b, b_turned, c.reshape(1, -1), m, n, k, *parts_of(m, n, k))


def matmul_path() -> str:
    """The ways of products, in words."""
    tiles = has_blas and by_tiles(np.dtype(np.float32), 128, 128, 128)
    return blas.matmul_path() + (", large ones by register tiles" if tiles else "")


def _flat(x: np.ndarray) -> tuple[np.ndarray, bool]:
    """(batch, rows * cols) without a copy where x or its transpose is contiguous, and whether it is
    transposed.
    """
    batch = x.size // (x.shape[-1] * x.shape[-2]) if x.size else 0
    flags = x.flags
    if not (flags.c_contiguous and flags.writeable):
        swapped = x.swapaxes(-1, -2)
        if swapped.flags.c_contiguous and flags.writeable:
            return swapped.reshape(batch, -1), True
        x = x.copy(order="C")
    return x.reshape(batch, -1), False


# each part packs the matrix that all share anew: in two, the products of a GPT of width 384 take 5
# % less than in eight
_MOST_PARTS = 2 if CORES <= 2 else 8


def parts_of(m: int, n: int, k: int) -> tuple[int, int]:
    """Into how many blocks of rows and of columns a product is cut: by its shape and the machine
    alone.

    The number of threads in use must not decide: a product cut elsewhere may round differently.
    """
    work = m * n * k
    parts = 1 if work < 1 << 17 else 2 if work < 1 << 28 else _MOST_PARTS
    rows = min(parts, m) if m >= n else 1
    return (rows, 1) if rows > 1 else (1, min(parts, n))


@jit(parallel=True)
def _blocks(a, a_turned, b, b_turned, c, m, n, k, row_parts, col_parts):
    # c = a b for each matrix of a batch. a: (1 or batch, m k), or transposed in memory; b: (1 or
    # batch, k n), likewise;
    # c: (batch, m n). Each task owns a block of one c.
    lda, ldb, parts = m if a_turned else k, k if b_turned else n, row_parts * col_parts
    hold_blas_threads()
    for task in prange(c.shape[0] * parts):
        i, part = task // parts, task % parts
        r, s = part // col_parts, part % col_parts
        row, rows = r * m // row_parts, (r + 1) * m // row_parts - r * m // row_parts
        col, cols = s * n // col_parts, (s + 1) * n // col_parts - s * n // col_parts
        a_i = a[i if a.shape[0] > 1 else 0][row if a_turned else row * lda :]
        b_i = b[i if b.shape[0] > 1 else 0][col * ldb if b_turned else col :]
        gemm(a_turned, b_turned, rows, cols, k, a_i, lda, b_i, ldb, c[i][row * n + col :], n, 0.0)
    release_blas_threads()
