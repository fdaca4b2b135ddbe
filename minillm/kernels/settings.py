"""What the environment asks for: MINILLM_KERNELS, MINILLM_THREADS, MINILLM_PRODUCTS,
MINILLM_PROCESS. Nothing here imports Numba.
"""

from __future__ import annotations

import functools
import importlib.util
import os


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _one_of(variable: str, *values: str) -> str:
    value = os.environ.get(variable, values[0])
    if value not in values:
        raise ValueError(f"{variable} must be {' or '.join(map(repr, values))}; got {value!r}")
    return value


def _what_computes() -> tuple[str, str]:
    """("numba" or "numpy", why)."""
    if _one_of("MINILLM_KERNELS", "numba", "numpy") == "numpy":
        return "numpy", "MINILLM_KERNELS=numpy"
    if not (_is_installed("numba") and _is_installed("llvmlite")):
        return "numpy", "Numba is not installed"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "numpy", "NUMBA_DISABLE_JIT"
    return "numba", "MINILLM_KERNELS=numpy runs the NumPy definitions"


@functools.cache
def threads() -> int | None:
    """How many threads the kernels get in a Python thread that was told no number; None: as many as
    Numba starts.
    """
    text = os.environ.get("MINILLM_THREADS")
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"MINILLM_THREADS must be a positive integer; got {text!r}")
    return int(text)


def products() -> str:
    """Which way the steps of recurrent layers multiply: as measured on this machine, or as told
    (paths.py). ``blas`` sends all products to BLAS.
    """
    return _one_of("MINILLM_PRODUCTS", "measured", "tiles", "tall", "blas")


def may_tune_process() -> bool:
    """Whether process.py may change settings of the whole process."""
    return _one_of("MINILLM_PROCESS", "tuned", "plain") == "tuned"


KERNELS, REASON = _what_computes()  # compiled loops or the definitions, and why
products()  # a wrong value is refused before anything is computed
