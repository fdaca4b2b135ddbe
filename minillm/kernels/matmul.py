"""Matrix products, most of the work of every model: ``y = a @ b``, in the same thread pool as every other kernel.

The product itself is BLAS's ``sgemm`` (``dgemm`` in float64), taken from the OpenBLAS library that came with NumPy
and called from *inside* Numba's parallel loops, each thread its own rows. Measured on two cores, a (768, 128) x (128,
512) product followed by an element-wise kernel: 8.0 ms when NumPy's BLAS threads and Numba's threads take turns (each
pool spins while the other wants the cores), 0.95 ms in one pool.

Where the processor has AVX-512, large products in float32 are faster still by the tiles of ``tile.py``. Small ones,
those in float64 and batches of matrices stay with BLAS.

Where the library is not found (macOS's Accelerate, a NumPy built otherwise) the product is ``np.matmul`` and keeps
BLAS's own threads; ``matmul_path()`` says which way is taken and why.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ._jit import CORES, JIT, KERNELS, as_rows, contiguous, jit, kernel, prange
from .shared import BLAS_CALLS, BLAS_THREADS, integers, lock, unlock
from .tile import COLS, ROWS, multiply_add, pack, room

Gradients = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112


def _find_blas() -> tuple[ctypes.CDLL | None, str, str, Any]:
    """(library, prefix and suffix of its symbols, its integer type) of the OpenBLAS that NumPy has loaded."""
    from threadpoolctl import threadpool_info

    for info in threadpool_info():
        if info.get("internal_api") != "openblas":
            continue
        library = ctypes.CDLL(info["filepath"])
        for prefix, suffix, integer in (
            ("scipy_", "64_", types.int64),
            ("", "64_", types.int64),
            ("", "", types.int32),
        ):
            if hasattr(library, f"{prefix}cblas_sgemm{suffix}") and hasattr(library, f"{prefix}cblas_dgemm{suffix}"):
                return library, prefix, suffix, integer
    return None, "", "", types.int64


_BLAS, _PREFIX, _SUFFIX, _INT = _find_blas() if JIT and KERNELS == "numba" else (None, "", "", types.int64)


has_blas = _BLAS is not None


def matmul_path() -> str:
    """Which way the matrix products take, in words: for ``minillm info`` and for benchmarks."""
    if KERNELS == "numpy":
        return "np.matmul (MINILLM_KERNELS=numpy)"
    if not JIT:
        return "np.matmul (NUMBA_DISABLE_JIT=1)"
    if _BLAS is None:
        return "np.matmul (NumPy's OpenBLAS was not found, so there are two thread pools)"
    tiles = ", large products by register tiles (AVX-512)" if ROWS == 8 else ""
    return f"{_PREFIX}cblas_sgemm{_SUFFIX} of NumPy's OpenBLAS inside Numba's threads{tiles}"


def _external(symbol: str, returns: Any, *arguments: Any) -> Any:
    """A function of the BLAS library, callable from kernels; bound by name, so that compiled code can be cached."""
    import llvmlite.binding as llvm

    assert _BLAS is not None
    name = f"minillm_{symbol}"
    llvm.add_symbol(name, ctypes.cast(getattr(_BLAS, f"{_PREFIX}{symbol}{_SUFFIX}"), ctypes.c_void_p).value)
    return types.ExternalFunction(name, returns(*arguments))


if _BLAS is not None:
    _i32, _ptr = types.int32, types.voidptr
    _flags, _sizes = (_i32, _i32, _i32), (_INT, _INT, _INT)
    _f, _d = types.float32, types.float64
    _sgemm = _external("cblas_sgemm", types.void, *_flags, *_sizes, _f, _ptr, _INT, _ptr, _INT, _f, _ptr, _INT)
    _dgemm = _external("cblas_dgemm", types.void, *_flags, *_sizes, _d, _ptr, _INT, _ptr, _INT, _d, _ptr, _INT)
    _get_blas_threads = _external("openblas_get_num_threads", _i32)
    _set_blas_threads = _external("openblas_set_num_threads", types.void, _i32)

    @jit
    def _gemm32(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta):
        _sgemm(ROW_MAJOR, TRANS if ta else NO_TRANS, TRANS if tb else NO_TRANS, m, n, k,
               np.float32(1), a.ctypes, lda, b.ctypes, ldb, np.float32(beta), c.ctypes, ldc)  # fmt: skip

    @jit
    def _gemm64(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta):
        _dgemm(ROW_MAJOR, TRANS if ta else NO_TRANS, TRANS if tb else NO_TRANS, m, n, k,
               1.0, a.ctypes, lda, b.ctypes, ldb, float(beta), c.ctypes, ldc)  # fmt: skip

    def gemm(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta):
        """c = op(a) @ op(b) + beta c on flat row-major arrays, op transposing where its flag is set (for kernels)."""

    @overload(gemm)
    def _choose_gemm(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta):
        gemm_of_dtype = _gemm32 if a.dtype == types.float32 else _gemm64
        return lambda ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta: gemm_of_dtype(
            ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta
        )

    @jit
    def hold_blas_threads():
        """Keep BLAS to the calling thread until ``release_blas_threads``; several Python threads may do so at once."""
        lock()
        shared = integers()
        if shared[BLAS_CALLS] == 0:
            shared[BLAS_THREADS] = _get_blas_threads()
            if shared[BLAS_THREADS] != 1:
                _set_blas_threads(1)
        shared[BLAS_CALLS] += 1
        unlock()

    @jit
    def release_blas_threads():
        """Let the user's own NumPy code have its BLAS threads again, when nobody else holds them."""
        lock()
        shared = integers()
        shared[BLAS_CALLS] -= 1
        if shared[BLAS_CALLS] == 0 and shared[BLAS_THREADS] != 1:
            _set_blas_threads(shared[BLAS_THREADS])
        unlock()

    @jit(inner=True)
    def _copy_rows(x, x_row, y, y_row, rows, cols):
        # a loop, for an assignment of slices brings Numba's text of an error along: 1.7 seconds of compilation
        for i in range(rows):
            from_row, to_row = x[i * x_row : i * x_row + cols], y[i * y_row : i * y_row + cols]
            for j in range(cols):
                to_row[j] = from_row[j]

    @jit(parallel=True)
    def _blocks(a, a0, lda, ta, b, b0, ldb, tb, c, c0, ldc, m, n, k, row_parts, col_parts, bias):
        # c = op(a) op(b) + bias for each matrix of a batch. a: (1 or batch, .), b alike, c: (batch, .), flat;
        # a0, b0, c0: where the matrix begins; lda ...: the length of a row in memory. Each task owns a block of one c.
        parts = row_parts * col_parts
        hold_blas_threads()
        for task in prange(c.shape[0] * parts):
            i, part = task // parts, task % parts
            r, s = part // col_parts, part % col_parts
            row, rows = r * m // row_parts, (r + 1) * m // row_parts - r * m // row_parts
            col, cols = s * n // col_parts, (s + 1) * n // col_parts - s * n // col_parts
            a_i = a[i if a.shape[0] > 1 else 0][a0 + (row if ta else row * lda) :]
            b_i = b[i if b.shape[0] > 1 else 0][b0 + (col * ldb if tb else col) :]
            c_i = c[i][c0 + row * ldc + col :]
            if bias.size:
                _copy_rows(bias[col:], 0, c_i, ldc, rows, cols)
            gemm(ta, tb, rows, cols, k, a_i, lda, b_i, ldb, c_i, ldc, 1.0 if bias.size else 0.0)
        release_blas_threads()


# ---- by tiles --------------------------------------------------------------------------------------------------------
# Where a processor has AVX-512, tile.py multiplies 1.15 times as fast as OpenBLAS: 220 GFLOP/s on two cores where BLAS
# has 190, measured at the products of a GPT of width 384. Each matrix b is packed into panels first, which pays from
# about 128 rows of a on.

_TILES = ROWS == 8
_HEIGHT, _DEPTH = 64, 1024  # rows of a block, and terms of a sum, that stay in the second-level cache with a panel


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
    # c += a b for ``depth`` terms of the sums, from ``first`` on; a: from there on, b (k, n) in panels
    whole, b = n // COLS * COLS, panels[first * COLS :]
    multiply_add(a, a_row, a_step, rows, depth, b, k * COLS, COLS, c, ldc, whole)
    if whole < n:
        edge = np.zeros(rows * COLS, c.dtype)  # columns of the last panel, which is not full
        _copy_rows(c[whole:], ldc, edge, COLS, rows, n - whole)
        multiply_add(a, a_row, a_step, rows, depth, b[whole * k :], 0, COLS, edge, COLS, COLS)
        _copy_rows(edge, COLS, c[whole:], ldc, rows, n - whole)


@jit(inner=True)
def _multiply_panels(a, a_row, a_step, rows, k, panels, c, ldc, n):
    # c += a b for b (k, n) in panels
    # columns of a transposed a that lie a multiple of 4 KB apart share few places of the cache: side by side, then
    aside = a_row == 1 and a_step % 1024 == 0
    columns = room(min(_DEPTH, k) * rows if aside else 0, c)
    for first in range(0, k, _DEPTH):
        depth, a_part, step = min(_DEPTH, k - first), a[first * a_step :], a_step
        if aside:
            _copy_rows(a_part, a_step, columns, rows, depth, rows)
            a_part, step = columns, rows
        _add_terms(a_part, a_row, step, rows, first, depth, k, panels, c, ldc, n)


@jit(inner=True)
def _begin_rows(c, ldc, at, rows, cols, bias, residual):
    # rows of c = residual + bias, from its place ``at`` on; either may be empty, residual lies as c does
    for i in range(at, at + rows * ldc, ldc):
        c_row, residual_row = c[i : i + cols], residual[i : i + cols]
        if not residual.size:
            for j in range(cols):
                c_row[j] = bias[j]
        elif bias.size:
            for j in range(cols):
                c_row[j] = residual_row[j] + bias[j]
        else:
            for j in range(cols):
                c_row[j] = residual_row[j]


@jit(inner=True)
def _tiles_block(a, a_row, a_step, rows, k, panels, c, ldc, at, n, bias, residual):
    # some rows of c = residual + a b + bias, from its place ``at`` on
    if bias.size + residual.size:
        _begin_rows(c, ldc, at, rows, n, bias, residual)
    else:
        for i in range(at, at + rows * ldc, ldc):
            c[i : i + n] = 0
    _multiply_panels(a, a_row, a_step, rows, k, panels, c[at:], ldc, n)


@jit(inner=True)
def _flipped_block(a, a_row, a_step, rows, k, panels, c, ldc, n):
    # some columns of c^T = a b
    width = _padded(n)
    block = np.zeros(rows * width, c.dtype)
    _multiply_panels(a, a_row, a_step, rows, k, panels, block, width, width)
    for i in range(n):
        to = c[i * ldc : i * ldc + rows]
        for j in range(rows):
            to[j] = block[j * width + i]


@jit(parallel=True)
def _tiles(a, a0, a_row, a_step, panels, c, c0, ldc, m, n, k, bias, residual, flipped):
    # c = residual + a b + bias for one matrix a (m, k) and b (k, n) in panels; or, with none of those, c^T = a b
    parts = _parts_by_tiles(m)
    for part in prange(parts):
        row, end = _block_of(np.int64(part), parts, m)
        if flipped:
            _flipped_block(a[a0 + row * a_row :], a_row, a_step, end - row, k, panels, c[c0 + row :], ldc, n)
        else:
            at = c0 + row * ldc
            _tiles_block(a[a0 + row * a_row :], a_row, a_step, end - row, k, panels, c, ldc, at, n, bias, residual)


@jit(parallel=True)
def transposed_products(a, panels, c, more_panels, more_c, sums):
    """c = a^T b and sums_j = sum_i a_ij, for a (k, m), b (k, n) in panels (for kernels).

    more_panels, more_c: a second b and its c, or no columns. Together, because each part of a is then fetched, and laid
    side by side, once for both products and the sums.
    """
    (k, m), flat_a = a.shape, a.reshape(-1)
    parts = _parts_by_tiles(m)
    for part in prange(parts):
        row, end = _block_of(np.int64(part), parts, m)
        rows, c_i, more_i, sums_i = end - row, c[row:end].reshape(-1), more_c[row:end].reshape(-1), sums[row:end]
        c_i[:], more_i[:], sums_i[:] = 0, 0, 0
        columns = room(min(_DEPTH, k) * rows, flat_a)
        for first in range(0, k, _DEPTH):
            depth = min(_DEPTH, k - first)
            _copy_rows(flat_a[first * m + row :], m, columns, rows, depth, rows)
            for i in range(depth):
                for j in range(rows):
                    sums_i[j] += columns[i * rows + j]
            for panels_i, c_ij, n in ((panels, c_i, c.shape[1]), (more_panels, more_i, more_c.shape[1])):
                _add_terms(columns, 1, rows, rows, first, depth, k, panels_i, c_ij, n, n)


def by_tiles(dtype: np.dtype, m: int, n: int, k: int) -> bool:
    """Whether a product (m, k) @ (k, n) is worth the tiles."""
    return _TILES and dtype == np.float32 and max(m, n) >= 128 and min(m, n) >= COLS and k >= ROWS


def _multiply(a, a0, lda, ta, b, b0, ldb, tb, c, c0, ldc, m, n, k, bias):
    """c = op(a) op(b) + bias for one matrix of each; a, b, c: (1, .), the rest as in ``_blocks``."""
    tiled = by_tiles(c.dtype, m, n, k)
    if tiled and n > m and not bias.size:  # c^T = b^T a^T: the smaller matrix is the one to pack
        panels = pack(a[0, a0:], lda, not ta, k, m)
        _tiles(b[0], b0, *((ldb, 1) if tb else (1, ldb)), panels, c[0], c0, ldc, n, m, k, bias, bias, True)
    elif tiled and m >= 128:
        panels = pack(b[0, b0:], ldb, tb, k, n)
        lie = (1, lda) if ta else (lda, 1)
        _tiles(a[0], a0, *lie, panels, c[0], c0, ldc, m, n, k, bias, _NONE[c.dtype], False)
    else:
        _blocks(a, a0, lda, ta, b, b0, ldb, tb, c, c0, ldc, m, n, k, *parts_of(m, n, k), bias)


_NONE = {np.dtype(t): np.empty(0, t) for t in (np.float32, np.float64)}


# each part packs the matrix that all share anew: in two, the products of a GPT of width 384 take 5 % less than in eight
_MOST_PARTS = 2 if CORES <= 2 else 8


def parts_of(m: int, n: int, k: int) -> tuple[int, int]:
    """Into how many blocks of rows and of columns a product is cut: by its shape and the machine alone.

    The number of threads in use must not decide: a product cut elsewhere may round differently.
    """
    work = m * n * k
    parts = 1 if work < 1 << 17 else 2 if work < 1 << 28 else _MOST_PARTS
    rows = min(parts, m) if m >= n else 1
    return (rows, 1) if rows > 1 else (1, min(parts, n))


def _flat(x: np.ndarray) -> tuple[np.ndarray, bool]:
    """(batch, rows * cols) without a copy where x or its transpose is contiguous, and whether it is transposed."""
    batch = x.size // (x.shape[-1] * x.shape[-2]) if x.size else 0
    flags = x.flags
    if not (flags.c_contiguous and flags.writeable):
        swapped = x.swapaxes(-1, -2)
        if swapped.flags.c_contiguous and flags.writeable:
            return swapped.reshape(batch, -1), True
        x = x.copy(order="C")
    return x.reshape(batch, -1), False


def product_numpy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """y = a @ b.   a: (..., M, K), b: (..., K, N) -> (..., M, N); leading axes broadcast, as ``np.matmul``."""
    return np.matmul(a, b)


@kernel(twin=product_numpy)
def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # noqa: D103
    if a.ndim == b.ndim == 2 and a.size * b.size <= 1 << 13:  # tiny: this is NumPy's shortest way
        return a.dot(b)
    if _BLAS is None or a.ndim < 2 or b.ndim < 2 or a.dtype != b.dtype or a.dtype.char not in "fd":
        return np.matmul(a, b)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if k != b.shape[-2] or a.size * n <= 1 << 13 or b.size == 0:  # tiny (or an error, which NumPy words)
        return np.matmul(a, b)
    if b.ndim == 2:  # one matrix for the whole batch: its rows are one long product
        lead: tuple[int, ...] = a.shape[:-2]
        a = a.reshape(-1, k) if a.ndim > 2 else a
        m = a.shape[0]
    else:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a = a if a.shape[:-2] == lead or a.ndim == 2 else np.broadcast_to(a, lead + a.shape[-2:])
        b = b if b.shape[:-2] == lead else np.broadcast_to(b, lead + b.shape[-2:])
    rows_of_one = m // max(1, math.prod(lead)) if b.ndim == 2 else m
    c = np.empty((*lead, rows_of_one, n), a.dtype)
    flat_c = c.reshape(1 if b.ndim == 2 else -1, m * n)
    (flat_a, ta), (flat_b, tb) = _flat(a), _flat(b)
    lda, ldb, none = m if ta else k, k if tb else n, _NONE[a.dtype]
    if flat_c.shape[0] == 1:
        _multiply(flat_a, 0, lda, ta, flat_b, 0, ldb, tb, flat_c, 0, n, m, n, k, none)
    else:
        rows, cols = parts_of(m, n, k) if flat_c.shape[0] < 8 else (1, 1)
        _blocks(flat_a, 0, lda, ta, flat_b, 0, ldb, tb, flat_c, 0, n, m, n, k, rows, cols, none)
    return c


# ---- linear layers ---------------------------------------------------------------------------------------------------


def linear_forward_numpy(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    by_columns: bool = False,
    residual: np.ndarray | None = None,
) -> np.ndarray:
    """y = x w^T + b, or residual + x w^T + b.

    x: (..., C), w: (N, C), or (C, N) by_columns, b: (N,) or None, residual: (..., N) or None -> (..., N).
    """
    y = np.matmul(x, w if by_columns else w.T)
    y = y if b is None else y + b
    return y if residual is None else residual + y


if _BLAS is not None:

    @jit(inner=True)
    def linear_block(row, rows, col, cols, x, w, by_columns, bias, residual, y):
        """A block of y = residual + x w^T + bias, whose rows and columns begin at row and col (for kernels)."""
        n, c = y.shape[1], x.shape[1]
        flat_y, at, begun = y.reshape(-1), row * n + col, bias.size + residual.size > 0
        if begun:
            _begin_rows(flat_y, n, at, rows, cols, bias[col:], residual)
        w_part = w.reshape(-1)[col if by_columns else col * c :]
        gemm(False, not by_columns, rows, cols, c, x[row : row + rows].reshape(-1), c, w_part, w.shape[1],
             flat_y[at:], n, 1.0 if begun else 0.0)  # fmt: skip

    @jit(parallel=True)
    def _linear(x, w, by_columns, bias, residual, y, row_parts, col_parts):
        # x: (M, C), w: (N, C), or (C, N) by_columns, bias: (N,) or (0,), residual: as y but flat, or (0,), y: (M, N)
        hold_blas_threads()
        for part in prange(row_parts * col_parts):
            r, s, (m, n) = part // col_parts, part % col_parts, y.shape
            row, rows = r * m // row_parts, (r + 1) * m // row_parts - r * m // row_parts
            col, cols = s * n // col_parts, (s + 1) * n // col_parts - s * n // col_parts
            linear_block(row, rows, col, cols, x, w, by_columns, bias, residual, y)
        release_blas_threads()


@kernel(twin=linear_forward_numpy)
def linear_forward(  # noqa: D103
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    by_columns: bool = False,
    residual: np.ndarray | None = None,
) -> np.ndarray:
    dtype, none = x.dtype, _NONE.get(x.dtype)
    if _BLAS is None or none is None or not x.size or w.dtype != dtype:
        return linear_forward_numpy(x, w, b, by_columns, residual)
    if w.flags.f_contiguous and not w.flags.c_contiguous:
        w, by_columns = w.T, not by_columns
    x, w, (c, n) = contiguous(x), contiguous(w), w.shape if by_columns else w.shape[::-1]
    y = np.empty((*x.shape[:-1], n), dtype)
    rows, rows_of_y = as_rows(x), as_rows(y)
    m, bias = len(rows), none if b is None else contiguous(b, dtype)
    first = none if residual is None else contiguous(residual, dtype).reshape(-1)
    tiled = by_tiles(dtype, m, n, c)
    if tiled and b is None and residual is None:
        return product(x, w if by_columns else w.T)
    if tiled and m >= 128:
        panels = pack(w.reshape(-1), w.shape[1], not by_columns, c, n)
        _tiles(rows.reshape(-1), 0, c, 1, panels, y.reshape(-1), 0, n, m, n, c, bias, first, False)
    else:
        _linear(rows, w, by_columns, bias, first, rows_of_y, *parts_of(m, n, c))
    return y


def joint_linear_forward_numpy(
    x: np.ndarray, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray] | None
) -> np.ndarray:
    """y = [x w_1^T + b_1 | x w_2^T + b_2 | ...].   x: (..., C), w_i: (N_i, C) -> (..., N_1 + N_2 + ...)."""
    return linear_forward_numpy(x, np.concatenate(weights), None if biases is None else np.concatenate(biases))


@kernel(twin=joint_linear_forward_numpy)
def joint_linear_forward(  # noqa: D103
    x: np.ndarray, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray] | None
) -> np.ndarray:
    if _BLAS is None or not x.size or any(w.dtype != x.dtype for w in weights):
        return joint_linear_forward_numpy(x, weights, biases)
    k, width = x.shape[-1], sum(len(w) for w in weights)
    y = np.empty((*x.shape[:-1], width), x.dtype)
    flat_x, flat_y, m, column = contiguous(x).reshape(1, -1), y.reshape(1, -1), x.size // k, 0
    for i, w in enumerate(weights):
        n, bias = len(w), _NONE[x.dtype] if biases is None else contiguous(biases[i])
        flat_w, tw = _flat(w)  # w as stored (N, C) is the transpose of what the product wants
        _multiply(flat_x, 0, k, False, flat_w, 0, n if tw else k, not tw, flat_y, column, width, m, n, k, bias)
        column += n
    return y


def linear_backward_numpy(
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, by_columns: bool, x_needs: bool, w_needs: bool, b_needs: bool
) -> Gradients:
    """The gradients of y = x w^T + b, None where it is not needed: dx = dy w, dw = dy^T x, db = sum of the rows of dy.

    dy: (..., N), x: (..., C), w: (N, C); by_columns, w and dw: (C, N), y = x w + b.
    """
    rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dx = np.matmul(dy, w.T if by_columns else w) if x_needs else None
    left, right = (rows, dy_rows) if by_columns else (dy_rows, rows)
    return dx, left.T @ right if w_needs else None, sum_rows_numpy(dy_rows) if b_needs else None


@jit(inner=True)
def add_rows(x, y):
    """y_j += sum_i x_ij (for kernels): four rows at a time, so that y is read and written once for all of them."""
    fours = x.shape[0] // 4 * 4
    for i in range(0, fours, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(y.size):
            y[j] += (a[j] + b[j]) + (c[j] + d[j])
    for i in range(fours, x.shape[0]):
        row = x[i]
        for j in range(y.size):
            y[j] += row[j]


if _BLAS is not None:

    @jit(inner=True)
    def input_gradient(lo, hi, dy, w, by_columns, dx, sums):
        """Rows [lo, hi) of dx = dy w, and the sums over these rows of dy, if any are wanted (for kernels)."""
        n, c, dy_rows = dy.shape[1], dx.shape[1], dy[lo:hi]
        gemm(False, by_columns, hi - lo, c, n, dy_rows.reshape(-1), n, w.reshape(-1), w.shape[1],
             dx[lo:hi].reshape(-1), c, 0.0)  # fmt: skip
        sums[:] = 0
        add_rows(dy_rows, sums)

    @jit(inner=True)
    def weight_gradient(part, parts, dy, x, by_columns, dw):
        """One of the parts, some rows or columns, of dw = dy^T x, or x^T dy by columns (for kernels)."""
        left, right = (x, dy) if by_columns else (dy, x)
        rows, cols = dw.shape
        by_rows = rows >= cols
        length = rows if by_rows else cols
        lo, hi = part * length // parts, (part + 1) * length // parts
        row, col = (lo, 0) if by_rows else (0, lo)
        height, width = (hi - lo, cols) if by_rows else (rows, hi - lo)
        gemm(True, False, height, width, dy.shape[0], left.reshape(-1)[row:], rows, right.reshape(-1)[col:], cols,
             dw.reshape(-1)[row * cols + col :], cols, 0.0)  # fmt: skip

    @jit(parallel=True)
    def _linear_gradients(dy, x, w, by_columns, dx, dw, sums, db):
        # dy: (M, N), x: (M, C), w, dw: (N, C), or (C, N) by_columns; sums: (parts, N), or (parts, 0) if unwanted
        hold_blas_threads()
        m, parts = dy.shape[0], sums.shape[0]
        for part in prange(parts):
            input_gradient(part * m // parts, (part + 1) * m // parts, dy, w, by_columns, dx, sums[part])
            weight_gradient(np.int64(part), parts, dy, x, by_columns, dw)
        release_blas_threads()
        db[:] = 0
        add_rows(sums, db)


@kernel(twin=linear_backward_numpy)
def linear_backward(  # noqa: D103
    dy: np.ndarray, x: np.ndarray, w: np.ndarray, by_columns: bool, x_needs: bool, w_needs: bool, b_needs: bool
) -> Gradients:
    if not by_columns and w.flags.f_contiguous and not w.flags.c_contiguous:  # a transpose: dw, too, as it is stored
        dx, dw, db = linear_backward(dy, x, w.T, True, x_needs, w_needs, b_needs)
        return dx, None if dw is None else dw.T, db
    n, c, dtype = dy.shape[-1], x.shape[-1], x.dtype
    rows, dy_rows = as_rows(x), as_rows(dy)
    m, in_place = len(rows), w.flags.c_contiguous and w.flags.writeable and w.dtype == dy.dtype == dtype
    together = x_needs and w_needs and in_place and dtype.char in "fd" and m * n * c >= 1 << 17
    if _BLAS is None or not together or by_tiles(dtype, m, c, n) or by_tiles(dtype, n, c, m):
        left, right = (rows, dy_rows) if by_columns else (dy_rows, rows)
        dx = product(dy, w.T if by_columns else w) if x_needs else None
        return dx, product(left.T, right) if w_needs else None, sum_rows(dy_rows) if b_needs else None
    dx, dw, width = np.empty(x.shape, dtype), np.empty(w.shape, dtype), n if b_needs else 0
    sums, db = np.empty((max(parts_of(m, n, c)), width), dtype), np.empty(width, dtype)
    _linear_gradients(contiguous(dy_rows), contiguous(rows), w, by_columns, as_rows(dx), dw, sums, db)
    return dx, dw, db if b_needs else None


def joint_linear_backward_numpy(
    dy: np.ndarray, x: np.ndarray, weights: Sequence[np.ndarray], x_needs: bool, b_needs: bool
) -> tuple[np.ndarray | None, list[np.ndarray], np.ndarray | None]:
    """dx = sum_i dy_i w_i,  dw_i = dy_i^T x,  db = sum of the rows of dy;   dy_i the columns of layer i."""
    columns = np.split(dy.reshape(-1, dy.shape[-1]), np.cumsum([len(w) for w in weights])[:-1], axis=1)
    rows = x.reshape(-1, x.shape[-1])
    dx = sum(d @ w for d, w in zip(columns, weights, strict=True)).reshape(x.shape) if x_needs else None
    return dx, [d.T @ rows for d in columns], sum_rows_numpy(np.concatenate(columns, axis=1)) if b_needs else None


@kernel(twin=joint_linear_backward_numpy)
def joint_linear_backward(  # noqa: D103
    dy: np.ndarray, x: np.ndarray, weights: Sequence[np.ndarray], x_needs: bool, b_needs: bool
) -> tuple[np.ndarray | None, list[np.ndarray], np.ndarray | None]:
    # laying the weights together costs less than a product with each: dy and x are read once
    w = weights[0] if len(weights) == 1 else np.concatenate(weights)
    dx, dw, db = linear_backward(dy, x, w, False, x_needs, True, b_needs)
    assert dw is not None  # it was asked for
    return dx, np.split(dw, np.cumsum([len(w) for w in weights])[:-1]), db


def sum_rows_numpy(x: np.ndarray) -> np.ndarray:
    """y_j = sum_i x_ij, the gradient of a bias.   x: (N, C) -> (C,)."""
    return x.sum(axis=0)


@jit(parallel=True)
def _sum_rows(x, sums, y):
    # each task adds rows that follow each other in memory; to share the columns out took 2.5 times as long
    parts = sums.shape[0]
    for part in prange(parts):
        sums[part] = 0
        add_rows(x[part * x.shape[0] // parts : (part + 1) * x.shape[0] // parts], sums[part])
    y[:] = 0
    add_rows(sums, y)


@kernel(twin=sum_rows_numpy)
def sum_rows(x: np.ndarray) -> np.ndarray:  # noqa: D103
    x = contiguous(x)
    y = np.empty(x.shape[1], x.dtype)
    _sum_rows(x, np.empty((1 if x.size < 1 << 15 else 8, y.size), x.dtype), y)
    return y
