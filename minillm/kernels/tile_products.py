"""Large products in float32 by the register tiles of ``tile.py``, on processors with AVX-512 where
they are quicker than BLAS (``paths.py``).

On one they are 1.15 times as fast as OpenBLAS: 220 GFLOP/s on two cores where BLAS has 190, at the
products of a GPT of width 384. On another (Emerald Rapids) 0.9 times, and 0.6 where sums are as
long as a batch. The matrix b is packed into panels first, which pays from about 128 rows of a on.
Small products, those in float64 and batches of matrices stay with BLAS.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit, prange
from .paths import MANY, way
from .rows import copy_rows
from .tile import COLS, ROWS, multiply_add, room

_HEIGHT, _DEPTH = 64, 1024  # rows of a block, and terms of a sum, that stay in the second-level cache with a panel


def by_tiles(dtype: np.dtype, m: int, n: int, k: int) -> bool:
    """Whether a product (m, k) @ (k, n) is worth the tiles."""
    large = dtype == np.float32 and max(m, n) >= 128 and min(m, n) >= COLS and k >= ROWS
    return large and way(MANY) != "blas"


@jit(inner=True)
def _padded(n):
    return (n + COLS - 1) // COLS * COLS


@jit(inner=True)
def _parts_by_tiles(m):
    return 2 * ((m + 2 * _HEIGHT - 1) // (2 * _HEIGHT))  # an even number: two threads get the same


@jit(inner=True)
def _block_of(part, parts, n):
    # rows [lo, hi) of n: of equal size but for whole tiles
    return part * n // parts // ROWS * ROWS, n if part == parts - 1 else (part + 1) * n // parts // ROWS * ROWS


@jit(inner=True)
def _add_terms(a, a_row, a_step, rows, first, depth, k, panels, c, ldc, n):
    # c += a b for ``depth`` terms of the sums, from ``first`` on; a: from there on, b (k, n) in
    # panels
    whole, b = n // COLS * COLS, panels[first * COLS :]
    multiply_add(a, a_row, a_step, rows, depth, b, k * COLS, COLS, c, ldc, whole)
    if whole < n:
        edge = np.zeros(rows * COLS, c.dtype)  # columns of the last panel, which is not full
        copy_rows(c[whole:], ldc, edge, COLS, rows, n - whole)
        multiply_add(a, a_row, a_step, rows, depth, b[whole * k :], 0, COLS, edge, COLS, COLS)
        copy_rows(edge, COLS, c[whole:], ldc, rows, n - whole)


@jit(inner=True)
def _multiply_panels(a, a_row, a_step, rows, k, panels, c, ldc, n):
    # c += a b for b (k, n) in panels columns of a transposed a that lie a multiple of 4 KB apart
    # share few places of the cache: side by side, then
    aside = a_row == 1 and a_step % 1024 == 0
    columns = room(min(_DEPTH, k) * rows if aside else 0, c)
    for first in range(0, k, _DEPTH):
        depth, a_part, step = min(_DEPTH, k - first), a[first * a_step :], a_step
        if aside:
            copy_rows(a_part, a_step, columns, rows, depth, rows)
            a_part, step = columns, rows
        _add_terms(a_part, a_row, step, rows, first, depth, k, panels, c, ldc, n)


@jit(inner=True)
def _block(a, a_row, a_step, rows, k, panels, c, ldc, n, bias):
    # some rows of c = a b + bias; bias: (n,), or (0,) for none
    if bias.size:
        copy_rows(bias, 0, c, ldc, rows, n)
    else:
        for i in range(0, rows * ldc, ldc):
            c[i : i + n] = 0
    _multiply_panels(a, a_row, a_step, rows, k, panels, c, ldc, n)


@jit(inner=True)
def _transposed_block(a, a_row, a_step, rows, k, panels, c, ldc, n):
    # some columns of c^T = a b
    width = _padded(n)
    block = np.zeros(rows * width, c.dtype)
    _multiply_panels(a, a_row, a_step, rows, k, panels, block, width, width)
    for i in range(n):
        to = c[i * ldc : i * ldc + rows]
        for j in range(rows):
            to[j] = block[j * width + i]


@jit(parallel=True)
def multiply_by_tiles(a, a_row, a_step, panels, c, ldc, m, n, k, bias, transposed):
    """c = a b + bias for a (m, k) and b (k, n) in panels; or, ``transposed`` and without bias, c^T
    = a b.

    a, c: flat; a_row, a_step: from row to row and from column to column of a; ldc: from row to row
    of c.
    """
    parts = _parts_by_tiles(m)
    for part in prange(parts):
        row, end = _block_of(np.int64(part), parts, m)
        if transposed:
            _transposed_block(a[row * a_row :], a_row, a_step, end - row, k, panels, c[row:], ldc, n)
        else:
            _block(a[row * a_row :], a_row, a_step, end - row, k, panels, c[row * ldc :], ldc, n, bias)


@jit(parallel=True)
def transposed_products(a, panels, c, more_panels, more_c, sums):
    """c = a^T b and sums_j = sum_i a_ij, for a (k, m), b (k, n) in panels (for kernels).

    more_panels, more_c: a second b and its c, or no columns. Together, because each part of a is
    then fetched, and laid side by side, once for both products and the sums.
    """
    (k, m), flat_a = a.shape, a.reshape(-1)
    parts = _parts_by_tiles(m)
    for part in prange(parts):
        row, end = _block_of(np.int64(part), parts, m)
        rows, c_i, more_i, sums_i = end - row, c[row:end].reshape(-1), more_c[row:end].reshape(-1), sums[row:end]
        c_i[:], more_i[:], sums_i[:] = 0, 0, 0
        columns, some = room(min(_DEPTH, k) * rows, flat_a), np.empty(rows, flat_a.dtype)
        for first in range(0, k, _DEPTH):
            depth = min(_DEPTH, k - first)
            copy_rows(flat_a[first * m + row :], m, columns, rows, depth, rows)
            some[:] = 0  # the sums of these rows first: a long sum in float32 would stand still
            for i in range(depth):
                for j in range(rows):
                    some[j] += columns[i * rows + j]
            for j in range(rows):
                sums_i[j] += some[j]
            for panels_i, c_ij, n in ((panels, c_i, c.shape[1]), (more_panels, more_i, more_c.shape[1])):
                _add_terms(columns, 1, rows, rows, first, depth, k, panels_i, c_ij, n, n)
