"""Arrays in, arrays out: compiled replacements of the NumPy definitions that stand above, in the files a learner reads.

Nobody needs to open this folder to understand what is computed. A definition names the file here that has a faster
function of its name and arguments:

    @compiled("softmax")
    def softmax_forward(x):                                  # the definition, in functional/activations.py
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

A call of ``softmax_forward`` is then a call of ``kernels/softmax.py``'s. Tests prove the two equal. With the
environment variable ``MINILLM_KERNELS=numpy``, and where Numba is not installed, the definition itself is what runs.
Numba is imported when the first kernel is called: ``import minillm`` stays quick and compiles nothing.

How these loops became fast is told in HISTORY.md.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

Function = TypeVar("Function", bound=Callable[..., Any])

_ASKED_FOR = os.environ.get("MINILLM_KERNELS", "numba")
if _ASKED_FOR not in ("numba", "numpy"):
    raise ValueError(f"MINILLM_KERNELS must be 'numba' or 'numpy'; got {_ASKED_FOR!r}")
HAS_NUMBA = importlib.util.find_spec("numba") is not None
KERNELS = _ASKED_FOR if HAS_NUMBA else "numpy"  # what computes: compiled loops, or the definitions

DEFINITIONS: dict[str, tuple[str, Callable[..., Any]]] = {}  # name -> (file of its kernel, the definition)


def compiled(file: str) -> Callable[[Function], Function]:
    """Let the function of the same name in ``kernels/FILE.py`` do the work of a NumPy definition."""

    def replace(definition: Function) -> Function:
        name = definition.__name__
        DEFINITIONS[name] = file, definition
        if KERNELS == "numpy":
            return np.errstate(under="ignore")(definition)  # what is too small for a float is 0; loops never ask
        kernel: Callable[..., Any] | None = None

        @functools.wraps(definition)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal kernel
            if kernel is None:
                kernel = load(file, name)
            return kernel(*args, **kwargs)

        return call  # type: ignore[return-value]

    return replace


def load(file: str, name: str) -> Callable[..., Any]:
    """The function ``name`` of ``kernels/FILE.py``."""
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)


# fmt: off
_ROOMS = {
    "_jit": ("PAIRS", "get_num_threads", "on_compile", "release_freed_memory", "set_num_threads"),
    "decode": ("MOST_ROWS", "Decoder", "Layer", "Matrix", "Norm", "apply", "decode_step"),
    "decode_prompt": ("FEWEST_TOKENS", "read"),
    "quant": ("dequantize_rows", "quantize_rows"),
    "optim": ("adamw_update", "scale_all", "sgd_update", "sum_of_squares"),
}
# fmt: on
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minillm.kernels' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"minillm.kernels.{_HOME[name]}"), name)
    globals()[name] = value  # the next look-up finds it here
    return value
