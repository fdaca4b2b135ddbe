"""What the bits of a result depend on, besides the program and its data: versions, processor,
kernels, threads.

Rounding depends on the order of additions, which differs between versions of the libraries, kinds
of processors and numbers of threads.
"""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["changes", "environment", "version"]


def environment() -> dict[str, Any]:
    """Everything on which the bits of a result depend, as JSON can hold it; ``products`` only where
    MINILLM_PRODUCTS sends them one way.
    """
    from .. import __version__, kernels  # kernels brings Numba, which is needed for nothing else here

    products = "measured" if kernels.KERNELS == "numpy" else kernels.settings.products()
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": version("numba"),
        "minillm": __version__,
        "processor": _processor(),
        "kernels": kernels.KERNELS,
        "threads": kernels.get_num_threads(),
        **({} if products == "measured" else {"products": products}),
    }


def changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    """``saved with numpy 2.4.5, threads 2; now numpy 2.4.6, threads 1``, or nothing when nothing
    changed.
    """
    names = [name for name in {**now, **then} if then.get(name) != now.get(name)]
    if not names:
        return ""
    was, is_ = (", ".join(f"{name} {side.get(name, 'measured')}" for name in names) for side in (then, now))
    return f"saved with {was}; now {is_}"


def version(package: str) -> str:
    """The version of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


@functools.cache
def _processor() -> str:
    """The processor's name; where Linux does not say it, the kind of machine."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        lines = ""
    match = re.search(r"^model name\s*: (.+)$", lines, re.MULTILINE)
    return match[1] if match else platform.processor() or platform.machine()
