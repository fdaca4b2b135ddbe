"""A kernel beside the NumPy definition whose work it does, for the tests that prove them equal."""

from collections.abc import Callable
from typing import Any

import minillm.functional  # noqa: F401 - its definitions name their kernels
from minillm import kernels


def pair(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(the kernel, the definition) of a function that is decorated with ``compiled``."""
    file, definition = kernels.DEFINITIONS[name]
    return kernels.load(file, name), definition
