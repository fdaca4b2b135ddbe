"""Large products in float32: c = a b, by the tall tiles of ``tile.py``, in blocks that stay in the
caches.

The plan is that of every BLAS (Goto and van de Geijn, "Anatomy of high-performance matrix
multiplication", 2008), its two inner loops exchanged. WIDTH columns and DEPTH terms of the sums are
taken at a time: so much of b, packed into panels, waits in the second-level cache. One band of a
stays in the first, while the panels go past it, tile by tile.

    for WIDTH columns, for DEPTH terms:
        pack the panels of b
        for HEIGHT rows of a:
            pack their bands
            for each band, for each panel: c += a b

Every sum is taken in the order of its terms, each added by a fused multiply-add, and what waits in
c for the next terms is what stood in the register. So a sum has the same bits however the product
is cut: for any number of threads, and on any processor that has such an instruction. OpenBLAS keeps
this order on processors with AVX-512 up to some 400 terms, and elsewhere not.

Small products, those in float64, batches of matrices, and all on processors without that
instruction are left to BLAS.
"""

from __future__ import annotations

import platform

import numpy as np

from . import settings
from ._jit import compiles_for, jit, prange
from .process import get_num_threads
from .rows import copy_rows
from .tile import TALL_COLS, TALL_ROWS, multiply_bands, pack_bands, pack_panel, room, room_for_bands

Array = np.ndarray
HEIGHT, DEPTH, WIDTH = 96, 256, 512  # tuned on an Emerald Rapids, with AVX-512 and with AVX2
FUSED = compiles_for("fma") or platform.machine() not in ("x86_64", "AMD64")  # multiply-adds: others have no flag


def by_tiles(dtype: np.dtype, m: int, n: int, k: int) -> bool:
    """Whether a product (m, k) @ (k, n) is worth the packing."""
    large = dtype == np.float32 and max(m, n) >= 128 and min(m, n) >= 32 and k >= 8
    return large and FUSED and settings.products() != "blas"


@jit(inner=True)
def _pack(b, ldb, b_turned, depth, n, panels):
    # the panels of b (depth, n), flat, or its transpose lies there, ldb from row to row
    for col in range(0, n, TALL_COLS):
        panel, at = panels[col * depth : (col + TALL_COLS) * depth], col * (ldb if b_turned else 1)
        pack_panel(b, at, ldb, b_turned, depth, min(TALL_COLS, n - col), TALL_COLS, panel)


@jit(inner=True)
def _block_product(bands, rows, depth, panels, first, first_row, c, ldc, n):
    # c = first + a b for some rows of a and some terms of the sums
    whole = n // TALL_COLS * TALL_COLS
    multiply_bands(bands, rows, depth, panels, depth, first, first_row, c, ldc, whole)
    if whole < n:  # the last panel is not full
        edge = np.zeros(rows * TALL_COLS, c.dtype)
        copy_rows(first[whole:], first_row, edge, TALL_COLS, rows, n - whole)
        last = panels[whole * depth :]
        multiply_bands(bands, rows, depth, last, depth, edge, TALL_COLS, edge, TALL_COLS, TALL_COLS)
        copy_rows(edge, TALL_COLS, c[whole:], ldc, rows, n - whole)


@jit(inner=True)
def multiply_part(a, a_row, a_step, b, ldb, b_turned, c, ldc, m, n, k, bias):
    """c = a b + bias in this thread: see ``multiply_by_tiles`` (for kernels)."""
    panels = room(min(DEPTH, k) * (min(WIDTH, n) + TALL_COLS), c)
    bands, nothing = room_for_bands(min(HEIGHT, m), min(DEPTH, k), c), np.zeros(min(WIDTH, n), c.dtype)
    for col in range(0, n, WIDTH):
        cols, bias_part = min(WIDTH, n - col), bias[col:] if bias.size else nothing
        for term in range(0, k, DEPTH):
            depth = min(DEPTH, k - term)
            begin = col * ldb + term if b_turned else term * ldb + col
            _pack(b[begin:], ldb, b_turned, depth, cols, panels)
            for row in range(0, m, HEIGHT):
                rows, c_part = min(HEIGHT, m - row), c[row * ldc + col :]
                pack_bands(a[row * a_row + term * a_step :], a_row, a_step, rows, depth, bands)
                first, first_row = (bias_part, 0) if term == 0 else (c_part, ldc)
                _block_product(bands, rows, depth, panels, first, first_row, c_part, ldc, cols)


@jit(parallel=True)
def _multiply(parts, a, a_row, a_step, b, ldb, b_turned, c, m, n, k, bias):
    for part in prange(parts):
        if m >= n:
            lo, hi = _share(part, parts, m, TALL_ROWS)
            multiply_part(a[lo * a_row :], a_row, a_step, b, ldb, b_turned, c[lo * n :], n, hi - lo, n, k, bias)
        else:
            lo, hi = _share(part, parts, n, TALL_COLS)
            b_part, bias_part = b[lo * ldb if b_turned else lo :], bias[lo:] if bias.size else bias
            multiply_part(a, a_row, a_step, b_part, ldb, b_turned, c[lo:], n, m, hi - lo, k, bias_part)


@jit(inner=True)
def _share(part, parts, n, unit):
    # of n numbers, in whole units but for the last
    units = (n + unit - 1) // unit
    return np.int64(part) * units // parts * unit, min(n, (np.int64(part) + 1) * units // parts * unit)


def multiply_by_tiles(
    a: Array, a_turned: bool, b: Array, b_turned: bool, c: Array, m: int, n: int, k: int, bias: Array
) -> None:
    """c = a b + bias; a: (m, k), b: (k, n), flat, or their transposes lie there; c: (m n,),
    bias: (n,), or (0,) for none.
    """
    steps = (1, m) if a_turned else (k, 1)
    _multiply(get_num_threads(), a, *steps, b, k if b_turned else n, b_turned, c, m, n, k, bias)
