"""Each kernel beside its definition: what tests compare."""

from collections.abc import Callable
from typing import Any

import minillm.functional
import minillm.optim  # noqa: F401 - the definitions are known once they were imported
from minillm import kernels


def pair(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(the kernel, its definition), whichever of the two the library uses."""
    file, definition = kernels.DEFINITIONS[name]
    return kernels.load(file, name), definition


def all_pairs() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """name -> (kernel, definition) of all there are."""
    return {name: pair(name) for name in kernels.DEFINITIONS}
