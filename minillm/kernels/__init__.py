"""Arrays in, arrays out: compiled replacements of the NumPy definitions that stand above, in the
files a learner reads.

Nobody needs to open this folder to understand what is computed. A definition names the file here
that has a faster function of its name and arguments:

    @compiled("softmax")
    def softmax_forward(x):                                  # as in functional/activations.py, shortened
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

Calling ``softmax_forward`` then calls the one in ``kernels/softmax.py``. Tests compare the two.
The definition itself runs under the environment variable ``MINILLM_KERNELS=numpy``, where Numba is
not installed, and in a forked child of a process whose kernels have threads. Numba is imported when
the first kernel is called: ``import minillm`` stays quick and compiles nothing.

How these loops became fast is told in HISTORY.md.
"""  # noqa: W505

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from . import process, settings
from .process import get_num_threads, release_freed_memory, set_num_threads, threading_layer
from .settings import KERNELS, REASON

Function = TypeVar("Function", bound=Callable[..., Any])

DEFINITIONS: dict[str, tuple[str, Callable[..., Any]]] = {}  # name -> (file of its kernel, the definition)

_what_runs: dict[str, Callable[..., Any]] = {}  # name -> what a call of it is a call of
_first_calls: dict[str, Callable[..., Any]] = {}  # name -> what finds that out


def compiled(file: str) -> Callable[[Function], Function]:
    """Let the function of the same name in ``kernels/FILE.py`` do the work of a NumPy definition.
    """

    def replace(definition: Function) -> Function:
        name = definition.__name__
        quietly = np.errstate(under="ignore")(definition)  # what is too small for a float is 0: loops never ask
        DEFINITIONS[name] = file, quietly
        if settings.KERNELS == "numpy":
            return quietly

        def first_call(*args: Any, **kwargs: Any) -> Any:
            defined = process.forked and _is_parallel(file)
            _what_runs[name] = quietly if defined else load(file, name)
            return _what_runs[name](*args, **kwargs)

        _what_runs[name] = _first_calls[name] = first_call

        @functools.wraps(definition)
        def call(*args: Any, **kwargs: Any) -> Any:
            return _what_runs[name](*args, **kwargs)

        return call  # type: ignore[return-value]

    return replace


@functools.cache
def load(file: str, name: str) -> Callable[..., Any]:
    """The function ``name`` of ``kernels/FILE.py``, for any Python thread; ``decode.step`` is a
    FILE in a folder.
    """
    function = getattr(_file(file), name)
    return process.guarded(function) if KERNELS == "numba" and _is_parallel(file) else function


def _file(file: str) -> Any:
    with process.LOADING:
        try:
            return importlib.import_module(f"{__name__}.{file}")
        except ImportError as error:
            raise ImportError(f"no kernel can be loaded: {error}. MINILLM_KERNELS=numpy runs without Numba") from error


def _is_parallel(file: str) -> bool:
    """Whether the kernels of a file may enter a parallel loop. A file without one says ``PARALLEL =
    False``.
    """
    return getattr(_file(file), "PARALLEL", True)


def _in_a_forked_child() -> None:
    global KERNELS, REASON
    KERNELS, REASON = "numpy", "a fork of a process whose kernels have threads"
    _what_runs.update(_first_calls)


process.when_forked.append(_in_a_forked_child)


# ---- compiling ahead of time ---------------------------------------------------------------------

Call = tuple[str, str, tuple[Any, ...]]  # file, name, arguments


@contextlib.contextmanager
def by_definition(*packages: str) -> Iterator[None]:
    """Inside, the definitions compute whose kernels lie in these folders: it is worth it where that
    takes less time than compiling.
    """
    chosen = {name: rule for name, (file, rule) in DEFINITIONS.items() if file.split(".")[0] in packages}
    with _instead(chosen):
        yield


@contextlib.contextmanager
def noting_calls() -> Iterator[list[Call]]:
    """Inside, the definitions compute, and each call of one is noted: the first of its kind, for
    arguments of the same types call the same kernels. (What a definition itself calls is not: its
    kernel knows what it needs.)

    ``load(file, name)(*arguments)`` then compiles the kernel, in whatever order one likes.
    """
    calls: dict[Any, Call] = {}
    depth = 0

    def noting(file: str, name: str, definition: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            nonlocal depth
            if depth == 0:
                calls.setdefault((name, *map(_kind, args)), (file, name, args))
            depth += 1
            try:
                return definition(*args)
            finally:
                depth -= 1

        return call

    noted: list[Call] = []
    try:
        with _instead({name: noting(file, name, definition) for name, (file, definition) in DEFINITIONS.items()}):
            yield noted
    finally:
        noted += calls.values()


@contextlib.contextmanager
def _instead(functions: dict[str, Callable[..., Any]]) -> Iterator[None]:
    """Inside, these run, whatever ran under their names before."""
    before = dict(_what_runs)
    _what_runs.update(functions)
    try:
        yield
    finally:
        _what_runs.update(before)


def _kind(value: Any) -> Any:
    """What decides which machine code an argument needs: more than its type, so that no kind is
    missed.
    """
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.strides, value.flags.writeable
    return tuple(map(_kind, value)) if isinstance(value, list | tuple) else (type(value), str(value))


def cache_folder() -> Path | None:
    """Where machine code is kept for the next process; None where nothing is kept."""
    return None if KERNELS == "numpy" else _file("_jit").cache_folder()


def cache_key() -> str:
    """A name for this machine code: another one after a change of these files, of Numba, or of the
    processor.
    """
    return _file("_jit").cache_key()


def is_compiled(file: str, name: str) -> bool:
    """Whether there is machine code of the kernel ``name`` of ``kernels/FILE.py``: a call need not
    wait for it.
    """
    return KERNELS == "numpy" or _file("_jit").is_compiled(getattr(_file(file), name))


# ---- what else the library asks ------------------------------------------------------------------


def on_compile(callback: Callable[[str, float | None], None]) -> Callable[[], None]:
    """Call ``callback(name, None)`` when a kernel begins to compile and ``callback(name, seconds)``
    when it is done.

    Kernels that come from the cache are not announced. Returns a function that ends the
    announcements.
    """
    if KERNELS == "numpy":
        return lambda: None
    return _file("_jit").on_compile(callback)


def matmul_path() -> str:
    """Which way the matrix products take, in words."""
    return f"np.matmul ({REASON})" if KERNELS == "numpy" else _file("matmul").matmul_path()


def recurrent_path() -> str:
    """Which way the products in the steps of a recurrent layer take, in words."""
    return f"np.matmul ({REASON})" if KERNELS == "numpy" else _file("paths").recurrent_path()


_ELSEWHERE = {  # what the models' fast decoding asks for
    **dict.fromkeys(("FEWEST_TOKENS", "MOST_ROWS", "Decoder", "Layer", "Matrix", "Norm"), "decode"),
    "read": "decode.prompt",
    "decode_step": "decode.step",
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module 'minillm.kernels' has no attribute {name!r}")
    value = load(_ELSEWHERE[name], name)
    globals()[name] = value  # the next look-up finds it here
    return value
