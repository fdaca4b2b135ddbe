"""How a Python loop becomes machine code: the ``jit`` and ``kernel`` decorators, the thread pool, fast exponentials.

Every kernel of this package is written twice. Its *NumPy twin* says what is computed, in whole-array expressions; the
*Numba kernel* below it says the same in loops that LLVM turns into vector instructions, shared between threads. A test
proves them equal, and ``MINILLM_KERNELS=numpy`` runs the whole library on the twins.

There is one thread pool, Numba's. NumPy's matrix product would bring a second one (OpenBLAS), and two pools that take
turns on the same cores wait for each other at every change: see ``matmul.py``.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba import prange, types
from numba.extending import overload

from . import KERNELS

__all__ = [
    "CORES",
    "JIT",
    "KERNELS",
    "PAIRS",
    "address",
    "as_rows",
    "by_dtype",
    "contiguous",
    "erf",
    "exp",
    "f32",
    "get_num_threads",
    "integers",
    "jit",
    "kernel",
    "like",
    "on_compile",
    "prange",
    "release_freed_memory",
    "row_max",
    "set_num_threads",
    "sigmoid",
    "tanh",
]


_settings: Any = numba.config  # its attributes come from the environment: unknown to a type checker
CORES: int = _settings.NUMBA_DEFAULT_NUM_THREADS  # that this process may use
JIT = not _settings.DISABLE_JIT  # False under NUMBA_DISABLE_JIT=1: the loops run as plain Python

# The freedoms LLVM gets: reorder sums, fuse multiply and add, divide by multiplying. Not "no NaN" and "no infinity"
# (part of fastmath=True), which would break -inf masks and NaN checks.
SAFE_MATH = {"nsz", "arcp", "contract", "afn", "reassoc"}

# OpenMP's waiting threads spin, and then sleep. 10,000 turns outlast the 100 us of Python between two kernels; the
# default of 300,000 would also keep a core from other programs, and from the thread that everybody waits for.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

if not os.environ.get("NUMBA_THREADING_LAYER"):
    # OpenMP's threads spin for a moment between two kernels and wake in 3 us; the portable work queue takes 80 us.
    _settings.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]

PAIRS: dict[str, tuple[Callable, Callable]] = {}  # kernel name -> (kernel, its NumPy twin), for the tests

F = TypeVar("F", bound=Callable[..., Any])


def kernel(twin: Callable) -> Callable[[F], F]:
    """Publish a kernel beside its NumPy ``twin``; the name is bound to the twin under ``MINILLM_KERNELS=numpy``."""

    def bind(fast: F) -> F:
        PAIRS[fast.__name__] = (fast, twin)
        fast.__doc__ = fast.__doc__ or twin.__doc__
        return twin if KERNELS == "numpy" else fast  # type: ignore[return-value]

    return bind


def jit(
    function: Callable | None = None,
    *,
    parallel: bool = False,
    reorder: bool = True,
    inline: bool = False,
    inner: bool = False,
) -> Any:
    """Compile loops at their first call, and keep the machine code beside the source for the next process.

    Where the folder cannot be written (a read-only installation), Numba keeps it in the user's own cache folder; where
    that fails too, the code is compiled anew in each process. ``reorder=False`` keeps the order of additions as
    written, where a rounding error was put there on purpose. ``inline=True`` is for the formula of one number: always
    put into the loop that calls it, for a loop with a call inside is not vectorised. ``inner=True`` is for what only
    other kernels call: it becomes part of them, and neither a way in from Python, which would check and unpack every
    argument, is compiled for it, nor a place in the cache kept.
    """
    if function is None:
        return lambda f: jit(f, parallel=parallel, reorder=reorder, inline=inline, inner=inner)
    options: dict[str, Any] = {
        "fastmath": SAFE_MATH if reorder else {"nsz", "contract"},
        "parallel": parallel,
        "nogil": True,
        "forceinline": inline,
        "error_model": "numpy",
        "no_cpython_wrapper": inner,
        "no_cfunc_wrapper": True,
    }
    if not JIT:  # plain Python; NumPy's integers then wrap around as silently as the processor's
        return np.errstate(over="ignore")(function)
    try:
        dispatcher = numba.njit(cache=not inner, **options)(function)
        _stamp_cache(dispatcher)
    except (RuntimeError, OSError):  # "no locator available": nowhere to write
        dispatcher = numba.njit(**options)(function)
    _one_signature(dispatcher)
    if inner:
        _no_way_in(dispatcher)
    return dispatcher


def _one_signature(dispatcher: Any) -> None:
    """Let a kernel that others call with ``0`` and with ``n`` compile once: to Numba, a constant is a type."""
    compile_for = dispatcher.compile

    def compile_once(signature: Any) -> Any:
        return compile_for(tuple(map(types.unliteral, signature)) if isinstance(signature, tuple) else signature)

    dispatcher.compile = compile_once


def _no_way_in(dispatcher: Any) -> None:
    """Make a call from Python a TypeError; without its wrapper, Numba would jump to nowhere."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{dispatcher.py_func.__name__} is for other kernels: it has no way in from Python")

    def remember(compiled: Any) -> None:
        dispatcher.overloads[tuple(compiled.signature.args)] = compiled

    dispatcher.add_overload, dispatcher._compile_for_args = remember, refuse


def _stamp_cache(dispatcher: Any) -> None:
    """Let a change in any file of kernels/ void the cached code: Numba looks only at the kernel's own file."""
    index = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if index is not None and hasattr(index, "_source_stamp"):
        index._source_stamp = _SOURCES


_SOURCES = tuple(
    (path.name, path.stat().st_mtime, path.stat().st_size) for path in sorted(Path(__file__).parent.rglob("*.py"))
)


def on_compile(callback: Callable[[str, float | None], None]) -> Callable[[], None]:
    """Call ``callback(name, None)`` when a kernel begins to compile and ``callback(name, seconds)`` when it is done.

    Kernels that come from the cache are not announced. Returns a function that ends the announcements.
    """
    from numba.core import event

    class Listener(event.Listener):
        def __init__(self) -> None:
            self.begun: dict[int, float] = {}

        def on_start(self, ev: Any) -> None:
            self.begun[id(ev.data["dispatcher"])] = time.perf_counter()
            callback(ev.data["dispatcher"].py_func.__name__, None)

        def on_end(self, ev: Any) -> None:
            dispatcher, now = ev.data["dispatcher"], time.perf_counter()
            callback(dispatcher.py_func.__name__, now - self.begun.pop(id(dispatcher), now))

    listener = Listener()
    event.register("numba:compile", listener)
    return lambda: event.unregister("numba:compile", listener)


# ---- threads ---------------------------------------------------------------------------------------------------------


def set_num_threads(n: int) -> None:
    """Let the kernels use ``n`` threads, 1 <= n <= the number that Numba started with (by default all cores)."""
    most = _settings.NUMBA_NUM_THREADS
    if not isinstance(n, int) or not 1 <= n <= most:
        raise ValueError(f"set_num_threads: expected an integer from 1 to {most}; got {n!r}")
    numba.set_num_threads(n)


def get_num_threads() -> int:
    """How many threads the kernels use."""
    return numba.get_num_threads()


def _threads_from_environment() -> None:
    text = os.environ.get("MINILLM_THREADS")
    if text is None:
        return
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"MINILLM_THREADS must be a positive integer; got {text!r}")
    set_num_threads(min(int(text), _settings.NUMBA_NUM_THREADS))


_threads_from_environment()


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of returning them to the system.

    A training step allocates the same arrays as the step before. By default a large one is mapped and unmapped each
    time, and every page is zeroed by the system at its first touch: several milliseconds a step.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc accepts
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    except (OSError, AttributeError):  # another C library: nothing to set
        pass


def release_freed_memory() -> None:
    """Give kept blocks back to the system after all: for work on a stream, where no step is like the one before.

    Its arrays are of all sizes, and the small ones that live on keep the holes between them from joining: 1 GB of text
    would leave 1 GB of holes behind.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library, which was not asked to keep them
        pass


if sys.platform == "linux":
    _keep_freed_memory()


# ---- arrays ----------------------------------------------------------------------------------------------------------


def contiguous(x: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """``x`` as a writable C-contiguous float32 or float64 array: one compiled signature per dtype, and no other.

    With ``dtype``, as that one: the arrays of one call share a dtype.
    """
    if dtype is not None and x.dtype != dtype:
        x = x.astype(dtype)
    elif x.dtype != np.float32 and x.dtype != np.float64:
        x = x.astype(np.float32)
    flags = x.flags
    return x if flags.c_contiguous and flags.writeable else x.copy()


def address(x: np.ndarray) -> int:
    """Where in memory the numbers of ``x`` begin; good for as long as somebody holds the array."""
    try:
        buffer: Any = x  # which a type checker does not know that arrays are
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # 1 us; x.ctypes.data takes 3, and tables are long
    except (TypeError, ValueError, BufferError):  # read-only, not contiguous, or empty
        return x.ctypes.data


def integers(x: np.ndarray) -> np.ndarray:
    """Ids as a writable C-contiguous int64 array, for the same reason."""
    x = np.ascontiguousarray(x, np.int64)
    return x if x.flags.writeable else x.copy()


def as_rows(x: np.ndarray) -> np.ndarray:
    """(..., V) -> (N, V), a view: kernels see two axes whatever the batch looks like."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) if x.ndim != 2 else x


# ---- exp, tanh, sigmoid, erf that vectorise --------------------------------------------------------------------------
# LLVM has no vector form of them, and calling the C library costs 4 ns an element. In float32 a polynomial costs
# 0.2 to 0.45 ns and is right to 1.4 ulp (sigmoid 2.5); in float64 (gradient checks) the C library's functions serve.

f32 = np.float32
_LOG2E = f32(1.44269504)
_LN2_HI, _LN2_LO = f32(0.693359375), f32(-2.12194440e-4)  # ln 2 in two parts, so that n * ln2_hi is exact
_ROUND = f32(1.5 * 2**23)


@jit(reorder=False, inline=True, inner=True)
def _exp32(x):
    # x = n ln 2 + r, |r| <= ln 2 / 2  ->  e^x = 2^n e^r; a polynomial for e^r, whose exponent bits then grow by n.
    # Added to 1.5 * 2^23, where floats have no fraction, a number is rounded and stands as an integer in the last bits.
    shifted = x * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HI) - n * _LN2_LO
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    p = p * r + f32(1)
    p = p * r + f32(1)
    # subtle: Numba widens int32 arithmetic to int64, half as many in a vector, unless cast back each time
    exponent = np.int32(np.float32(shifted).view(np.int32) << np.int32(23))
    y = np.int32(np.float32(p).view(np.int32) + exponent).view(np.float32)
    y = f32(0) if x < f32(-87.33654) else y  # below the smallest normal number
    return y if x <= f32(88.72283) else x + f32(np.inf)  # beyond the largest; and NaN stays NaN


@jit(reorder=False, inline=True, inner=True)
def _tanh32(x):
    # near 0 a polynomial keeps the relative precision that 1 - 2 / (e^2x + 1) would lose to cancellation
    z = x * x
    p = f32(-5.70498872745e-3)
    p = p * z + f32(2.06390887954e-2)
    p = p * z + f32(-5.37397155531e-2)
    p = p * z + f32(1.33314422036e-1)
    p = p * z + f32(-3.33332819422e-1)
    small = x + x * z * p
    a = abs(x)
    large = f32(1) - f32(2) / (_exp32(a + a) + f32(1))
    return small if a < f32(0.625) else (large if x > f32(0) else (-large if x < f32(0) else x))


@jit(reorder=False, inline=True, inner=True)
def _sigmoid32(x):
    return f32(1) / (f32(1) + _exp32(-x))  # where e^-x is infinite, 0


@jit(reorder=False, inline=True, inner=True)
def _erf32(x):
    # near 0 x (1 + P(x^2)), farther out 1 - e^Q(|x|), Q fitted to log erfc; from |x| = 4 on erf is 1 in float32
    a = min(abs(x), f32(4))
    z = a * a
    p = f32(-6.09035487e-4)
    p = p * z + f32(5.01196180e-3)
    p = p * z + f32(-2.67789084e-2)
    p = p * z + f32(1.12821408e-1)
    p = p * z + f32(-3.76125246e-1)
    p = p * z + f32(1.28379151e-1)
    q = f32(1.97181842e-4)
    q = q * a + f32(-3.05560860e-3)
    q = q * a + f32(2.22770907e-2)
    q = q * a + f32(-1.04037367e-1)
    q = q * a + f32(-6.37059748e-1)
    q = q * a + f32(-1.12774956)
    q = q * a + f32(-1.77493115e-4)
    y = a + a * p if a < f32(0.9) else f32(1) - _exp32(q)
    y = -y if x < f32(0) else y
    return x if x != x else y


def by_dtype(name: str, float32_version: Callable, python_version: Callable) -> Callable:
    """A function for use inside kernels: the fast one for float32, the C library's for float64."""

    def function(x):
        return python_version(x)

    function.__name__ = function.__qualname__ = name

    @overload(function, jit_options={"forceinline": True})
    def choose(x):
        if x == types.float32:
            return lambda x: float32_version(x)
        return lambda x: python_version(x)

    return function


@jit(inner=True)
def _sigmoid64(x):
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


def like(x, value):
    """``value`` in the dtype of ``x`` (a number or an array): inside kernels a float32 times 0.5 would be a float64."""
    return x.dtype.type(value)


@overload(like)
def _choose_like(x, value):
    if getattr(x, "dtype", x) == types.float32:
        return lambda x, value: np.float32(value)
    return lambda x, value: np.float64(value)


@jit(inner=True)
def _row_max32(x):
    # LLVM does not vectorise a maximum of floats, which NaN would spoil, but it does one of integers. The bits of
    # positive floats are in the order of the floats; those of negative ones are, once all but the sign are flipped.
    sign_bit, rest = np.int32(31), np.int32(0x7FFFFFFF)
    bits = x.view(np.int32)
    top = np.int32(-0x80000000)
    for j in range(bits.size):
        top = max(top, np.int32(bits[j] ^ np.int32(np.int32(bits[j] >> sign_bit) & rest)))
    return np.int32(top ^ np.int32(np.int32(top >> sign_bit) & rest)).view(np.float32)


@jit
def _row_max64(x):
    top = -np.inf
    for j in range(x.size):
        top = max(top, x[j])
    return top


def row_max(x):
    """The largest of a row (for kernels). Where the row holds NaN: NaN or a number, so let NaN come through the sum."""
    return np.max(x, initial=-np.inf)


@overload(row_max)
def _choose_row_max(x):
    row_max_of_dtype = _row_max32 if x.dtype == types.float32 else _row_max64
    return lambda x: row_max_of_dtype(x)


exp = by_dtype("exp", _exp32, math.exp) if JIT else np.exp
tanh = by_dtype("tanh", _tanh32, math.tanh) if JIT else np.tanh
erf = by_dtype("erf", _erf32, math.erf) if JIT else math.erf
sigmoid = by_dtype("sigmoid", _sigmoid32, _sigmoid64) if JIT else _sigmoid64
