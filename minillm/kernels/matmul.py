"""Matrix products, most of the work of every model: ``y = a @ b``, in the same thread pool as every other kernel.

The product itself is BLAS's ``sgemm`` (``dgemm`` in float64), taken from the OpenBLAS library that NumPy brought with it
and called from *inside* Numba's parallel loops, each thread its own rows. Measured on two cores, a (768, 128) x (128,
512) product followed by an element-wise kernel: 8.0 ms when NumPy's BLAS threads and Numba's threads take turns (each
pool spins while the other wants the cores), 0.95 ms in one pool.

Where the library is not found (macOS's Accelerate, a NumPy built otherwise) the product is ``np.matmul`` and keeps
BLAS's own threads; ``matmul_path()`` says which way is taken and why.
"""

from __future__ import annotations

import ctypes

import numpy as np
from numba import types
from numba.extending import overload

from ._jit import JIT, KERNELS, jit, kernel, prange

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112


def _find_blas() -> tuple[ctypes.CDLL | None, str, str, type]:
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


def matmul_path() -> str:
    """Which way the matrix products take, in words: for ``minillm info`` and for benchmarks."""
    if KERNELS == "numpy":
        return "np.matmul (MINILLM_KERNELS=numpy)"
    if not JIT:
        return "np.matmul (NUMBA_DISABLE_JIT=1)"
    if _BLAS is None:
        return "np.matmul (NumPy's OpenBLAS was not found, so there are two thread pools)"
    return f"{_PREFIX}cblas_sgemm{_SUFFIX} of NumPy's OpenBLAS inside Numba's threads"


def _external(symbol: str, returns: types.Type, *arguments: types.Type) -> types.ExternalFunction:
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
        """Keep BLAS to the calling thread, and return what to give back to ``release_blas_threads``."""
        before = _get_blas_threads()
        if before != 1:
            _set_blas_threads(1)
        return before

    @jit
    def release_blas_threads(before):
        """Let the user's own NumPy code have its BLAS threads again."""
        if before != 1:
            _set_blas_threads(before)

    @jit(parallel=True)
    def _matmul_parts(a, ta, b, tb, c, m, n, k, row_parts, col_parts):
        # a: (1 or batch, M K), b: (1 or batch, K N), c: (batch, M N); each task owns a block of one c
        parts = row_parts * col_parts
        blas = hold_blas_threads()
        for task in prange(c.shape[0] * parts):
            i, part = task // parts, task % parts
            r, s = part // col_parts, part % col_parts
            row, rows = r * m // row_parts, (r + 1) * m // row_parts - r * m // row_parts
            col, cols = s * n // col_parts, (s + 1) * n // col_parts - s * n // col_parts
            a_i = a[i if a.shape[0] > 1 else 0][row if ta else row * k :]
            b_i = b[i if b.shape[0] > 1 else 0][col * k if tb else col :]
            gemm(ta, tb, rows, cols, k, a_i, m if ta else k, b_i, k if tb else n, c[i][row * n + col :], n, 0.0)
        release_blas_threads(blas)


def parts_of(m: int, n: int, k: int) -> tuple[int, int]:
    """Into how many blocks of rows and of columns a product is cut: by its shape alone.

    The number of threads must not decide: a product cut elsewhere may round differently.
    """
    work = m * n * k
    parts = 1 if work < 1 << 17 else 2 if work < 1 << 28 else 8
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


def matmul_numpy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """y = a @ b.   a: (..., M, K), b: (..., K, N) -> (..., M, N); leading axes broadcast, as ``np.matmul``."""
    return np.matmul(a, b)


@kernel(twin=matmul_numpy)
def matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # noqa: D103
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
    c = np.empty((*lead, m // (int(np.prod(lead)) if b.ndim == 2 else 1), n), a.dtype)
    flat_c = c.reshape(1 if b.ndim == 2 else -1, m * n)
    rows, cols = parts_of(m, n, k) if flat_c.shape[0] < 8 else (1, 1)
    _matmul_parts(*_flat(a), *_flat(b), flat_c, m, n, k, rows, cols)
    return c
