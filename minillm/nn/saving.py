"""Weights and other numbers in one file, and back: ``save`` and ``load``.

>>> import os, tempfile
>>> from minillm import nn, optim
>>> model = nn.Linear(2, 3, rng=0)
>>> optimizer = optim.AdamW(model.parameters())
>>> path = os.path.join(tempfile.mkdtemp(), "step100.safetensors")
>>> save({"model": model, "optimizer": optimizer.state_dict(), "step": 100}, path)
>>> found = load(path)
>>> model.load_state_dict(found["model"])
>>> optimizer.load_state_dict(found["optimizer"])
>>> int(found["step"])
100
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..autograd.torch_words import torch_arguments
from ..files import Pathlike, atomic_file, read_safetensors, write_safetensors
from ..tensor import Tensor
from .module import Module

BETWEEN = "/"  # the names of nested dictionaries: model/layers.0.weight


def save(state: Module | Mapping[str, Any], path: Pathlike) -> None:
    """Write a module's parameters, or a dictionary of arrays, into a safetensors file, whole or not
    at all.

    state: a Module, or a dictionary whose values are arrays, Tensors, numbers, Modules, or such
    dictionaries again. Raises TypeError for what is no number, ValueError for a name with a slash.
    """
    if isinstance(state, str | os.PathLike):
        raise TypeError(f"save: state must be a Module or a dictionary, and stand before the path; got {state!r:.60}")
    with atomic_file(path) as staging:
        write_safetensors(staging, dict(_flat("", state)))


@torch_arguments
def load(path: Pathlike) -> dict[str, Any]:
    """Read what `save` wrote, or any safetensors file: a dictionary of arrays, nested as it was.

    ``model.load_state_dict(load(path))`` takes them over. Raises ValueError for a file that is
    damaged, or of another format.
    """
    state: dict[str, Any] = {}
    for name, array in read_safetensors(path).items():
        *outer, last = name.split(BETWEEN)
        inside = state
        for part in outer:
            inside = inside.setdefault(part, {})
            if not isinstance(inside, dict):
                raise ValueError(f"{path}: {name!r} lies inside an entry that is an array itself")
        if last in inside:
            raise ValueError(f"{path}: {name!r} is an array, and holds others")
        inside[last] = array
    return state


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) of everything in a value, the names of the dictionaries around it before its
    own.
    """
    if isinstance(value, Module):
        value = value.state_dict()
    if isinstance(value, Mapping):
        for name, part in value.items():
            if not isinstance(name, str) or not name or BETWEEN in name:
                raise ValueError(f"save: a name must be a text without {BETWEEN!r}; got {name!r}")
            yield from _flat(f"{prefix}{BETWEEN}{name}" if prefix else name, part)
        return
    array = value.data if isinstance(value, Tensor) else np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"save: {prefix or 'state'} must be a Module, or arrays, numbers and dictionaries of them; "
            f"got {type(value).__name__}. JSON keeps the rest"
        )
    if not prefix:
        raise TypeError('save: give the array a name, save({"x": x}, path)')
    yield prefix, array
