"""NumPy's own BLAS, found and called from inside kernels: matrix products in the same thread pool
as everything else.

``sgemm`` (``dgemm`` in float64) is taken from the OpenBLAS library that came with NumPy, and each
of Numba's threads calls it for its own rows. Measured on two cores, a (768, 128) x (128, 512)
product followed by an element-wise kernel: 8.0 ms when NumPy's BLAS threads and Numba's take turns
(each pool spins while the other wants the cores), 0.95 ms in one pool.

Where the library is not found (macOS's Accelerate, a NumPy built otherwise), ``has_blas`` is False,
nobody calls what is below it, and products are ``np.matmul``'s, with BLAS's own threads.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import overload

from ._jit import JIT, KERNELS, jit
from .shared import BLAS_CALLS, BLAS_THREADS, integers, lock, unlock

ROW_MAJOR, NO_TRANS, TRANS = 101, 111, 112


class Blas(NamedTuple):
    """The OpenBLAS that NumPy has loaded."""

    library: ctypes.CDLL
    prefix: str  # of its symbols
    suffix: str
    integer: Any  # the type of its sizes


def _find() -> Blas | None:
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
                return Blas(library, prefix, suffix, integer)
    return None


_BLAS = _find() if JIT and KERNELS == "numba" else None
has_blas = _BLAS is not None


def matmul_path() -> str:
    """Which way the matrix products take, in words: for ``minillm info`` and for benchmarks."""
    if KERNELS == "numpy":
        return "np.matmul (MINILLM_KERNELS=numpy)"
    if not JIT:
        return "np.matmul (NUMBA_DISABLE_JIT=1)"
    if _BLAS is None:
        return "np.matmul (NumPy's OpenBLAS was not found, so there are two thread pools)"
    return f"{_BLAS.prefix}cblas_sgemm{_BLAS.suffix} of NumPy's OpenBLAS inside Numba's threads"


def _external(symbol: str, returns: Any, *arguments: Any) -> Any:
    """A function of the library, callable from kernels; bound by name, so that compiled code can be
    cached.

    Without the library the name stands for a place that nobody calls: the machine code is the same.
    """
    import llvmlite.binding as llvm

    name, place = f"minillm_{symbol}", ctypes.addressof(_NOWHERE)
    if _BLAS is not None:
        function = getattr(_BLAS.library, f"{_BLAS.prefix}{symbol}{_BLAS.suffix}")
        place = ctypes.cast(function, ctypes.c_void_p).value or place
    llvm.add_symbol(name, place)
    return types.ExternalFunction(name, returns(*arguments))


_NOWHERE = ctypes.c_int64()
_i32, _int, _ptr = types.int32, _BLAS.integer if _BLAS else types.int64, types.voidptr
_flags, _sizes = (_i32, _i32, _i32), (_int, _int, _int)
_f, _d = types.float32, types.float64
_sgemm = _external("cblas_sgemm", types.void, *_flags, *_sizes, _f, _ptr, _int, _ptr, _int, _f, _ptr, _int)
_dgemm = _external("cblas_dgemm", types.void, *_flags, *_sizes, _d, _ptr, _int, _ptr, _int, _d, _ptr, _int)
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
    """c = op(a) @ op(b) + beta c on flat row-major arrays, op transposing where its flag is set
    (for kernels).
    """


@overload(gemm)
def _choose_gemm(ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta):
    gemm_of_dtype = _gemm32 if a.dtype == types.float32 else _gemm64
    return lambda ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta: gemm_of_dtype(
        ta, tb, m, n, k, a, lda, b, ldb, c, ldc, beta
    )


@jit
def hold_blas_threads():
    """Keep BLAS to the calling thread until ``release_blas_threads``; several Python threads may do
    so at once.
    """
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
