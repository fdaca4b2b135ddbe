"""A kernel and the definition that it stands for."""

from collections.abc import Callable
from typing import Any

from minillm import kernels


def pair(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled function and the NumPy definition of this name."""
    file, definition = kernels.DEFINITIONS[name]
    return kernels.load(file, name), definition
