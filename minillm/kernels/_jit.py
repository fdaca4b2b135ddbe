"""How a Python loop becomes machine code: the ``jit`` decorator, its cache, and who is told when
something compiles.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import binding as llvm
from numba import prange as prange  # for the files of kernels
from numba import types
from numba.core.codegen import get_host_cpu_features

from . import process
from .settings import KERNELS as KERNELS

process.numba_module()  # settles the threading layer before anything can start one

from .inner import OnlyInner, WholeKernel, no_way_in  # noqa: E402
from .turns import in_turn  # noqa: E402

_settings: Any = numba.config  # its attributes come from the environment: unknown to a type checker
CORES: int = _settings.NUMBA_DEFAULT_NUM_THREADS  # that this process may use
JIT = not _settings.DISABLE_JIT  # False under NUMBA_DISABLE_JIT=1: the loops run as plain Python

# The freedoms LLVM gets: reorder sums, fuse multiply and add. Not "no NaN" and "no infinity" (part
# of fastmath=True), which would break -inf masks and NaN checks; nor quotients and roots from the
# processor's estimates (arcp, afn), which differ from maker to maker.
SAFE_MATH = {"nsz", "contract", "reassoc"}


def jit(
    function: Callable | None = None,
    *,
    parallel: bool = False,
    reorder: bool = True,
    inline: bool = False,
    inner: bool = False,
) -> Any:
    """Compile loops at their first call, and keep the machine code beside the source for the next
    process.

    Where the folder cannot be written (a read-only installation), Numba keeps it in the user's own
    cache folder; where that fails too, the code is compiled anew in each process. ``reorder=False``
    keeps the order of additions as written, where a rounding error was put there on purpose.
    ``inline=True`` is for the formula of one number: always put into the loop that calls it, for a
    loop with a call inside is not vectorised. ``inner=True`` is for what only other kernels call:
    it becomes part of them, and neither a way in from Python, which would check and unpack every
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
        "pipeline_class": OnlyInner if inner else WholeKernel,
    }
    if not JIT:  # plain Python; NumPy's integers then wrap around as silently as the processor's
        return np.errstate(over="ignore")(function)
    try:
        dispatcher = numba.njit(cache=not inner, **options)(function)
        _stamp_cache(dispatcher)
    except (RuntimeError, OSError):  # "no locator available": nowhere to write
        dispatcher = numba.njit(**options)(function)
    _compile_once(dispatcher)
    if inner:
        no_way_in(dispatcher)
    return dispatcher


def _compile_once(dispatcher: Any) -> None:
    """Let a kernel compile once that others call with ``0`` and with ``n`` (to Numba, a constant is
    a type), or that another process compiles.
    """
    compile_for, table = dispatcher.compile, getattr(_index_of(dispatcher), "_index_path", None)

    def compile_once(signature: Any) -> Any:
        with in_turn(table):
            return compile_for(tuple(map(types.unliteral, signature)) if isinstance(signature, tuple) else signature)

    dispatcher.compile = compile_once


def _stamp_cache(dispatcher: Any) -> None:
    """Let a change in any file of kernels/ void the cached code: Numba looks only at the kernel's
    own file.
    """
    index = _index_of(dispatcher)
    if index is not None and hasattr(index, "_source_stamp"):
        index._source_stamp = _SOURCES
        _forgive_damage(index)


def _index_of(dispatcher: Any) -> Any:
    """Numba's table of what the cache holds of a kernel; None where nothing is kept."""
    return getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)


def _forgive_damage(index: Any) -> None:
    """Let a file of the cache that is damaged (a power cut) count as one that is missing: it is
    compiled and written anew. And let one that cannot be written (a full disk) be missing.
    """
    load_index, load_data, save = index._load_index, index._load_data, index.save

    def index_or_nothing() -> dict:
        try:
            return load_index()
        except OSError:
            raise
        except Exception:  # whatever a pickle raises that was cut off
            return {}

    def data_or_missing(name: str) -> Any:
        try:
            return load_data(name)
        except Exception as error:
            raise FileNotFoundError(name) from error  # on which Numba compiles

    def save_or_not(key: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            save(key, data)

    index._load_index, index._load_data, index.save = index_or_nothing, data_or_missing, save_or_not


_HERE = Path(__file__).parent
_SOURCES = tuple(
    (path.relative_to(_HERE).as_posix(), path.stat().st_mtime, path.stat().st_size)
    for path in sorted(_HERE.rglob("*.py"))
)


def cache_folder() -> Path | None:
    """Where Numba keeps the machine code of this folder; None where it can write nowhere."""
    try:
        kept: Any = numba.njit(cache=True)(_nothing)
        return Path(kept._cache.cache_path)
    except (RuntimeError, OSError, AttributeError):  # AttributeError: NUMBA_DISABLE_JIT
        return None


def compiles_for(feature: str) -> bool:
    """Whether machine code may use a feature of processors: of this one, unless
    ``NUMBA_CPU_FEATURES`` lists others.
    """
    return f"+{feature}" in _features().split(",")


def _features() -> str:
    listed = _settings.CPU_FEATURES
    return get_host_cpu_features() if listed is None else listed


def cache_key() -> str:
    """The first digits of a hash of all that machine code depends on."""
    target = numba.__version__, _settings.CPU_NAME or llvm.get_host_cpu_name(), _features()
    return hashlib.sha256(repr((_SOURCES, *target)).encode()).hexdigest()[:16]


def _nothing() -> None:
    pass


def is_compiled(kernel: Any) -> bool:
    """Whether there is machine code of a kernel for this processor, in this process or from one
    before.
    """
    if not JIT or kernel.signatures:
        return True
    index, processor = _index_of(kernel), kernel.targetctx.codegen().magic_tuple()
    return index is not None and any(key[1] == processor for key in index._load_index())


def on_compile(callback: Callable[[str, float | None], None]) -> Callable[[], None]:
    """Call ``callback(name, None)`` when a kernel begins to compile and ``callback(name, seconds)``
    when it is done.

    Kernels that come from the cache are not announced. Returns a function that ends the
    announcements.
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
