"""Each kernel beside its definition: what tests compare."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import minillm.functional  # noqa: F401 - the definitions are known once they were imported
from minillm import kernels
from minillm.kernels import _jit


def pair(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(the kernel, its definition), whichever of the two the library uses."""
    if name in kernels.DEFINITIONS:
        file, definition = kernels.DEFINITIONS[name]
        return kernels.load(file, name), definition
    if name in kernels._HOME:
        importlib.import_module(f"minillm.kernels.{kernels._HOME[name]}")
    return _jit.PAIRS[name]


def all_pairs() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """name -> (kernel, definition) of all there are."""
    for file in kernels._ROOMS:
        importlib.import_module(f"minillm.kernels.{file}")
    return {name: pair(name) for name in [*kernels.DEFINITIONS, *_jit.PAIRS]}
