"""Shapes and dtypes that do not match: what NumPy stretches forward must be summed back in the
gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .engine import Node


def unbroadcast(dy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo broadcasting: (what NumPy stretched) is summed back to ``shape``.

    An entry that was copied along an axis reaches the loss by as many paths as it has copies, and
    gradients add.

    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    if dy.shape == shape:
        return dy
    extra = dy.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(i + extra for i, n in enumerate(shape) if n == 1 and dy.shape[i + extra] != 1)
    return total(dy, axes, keepdims=True).reshape(shape)


def total(x: np.ndarray, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> np.ndarray:
    """The sum of ``x`` over ``axis``, that of float32 numbers in float64.   (..., N, ...) -> (...)

    From 16,777,216 on float32 cannot count one by one: a plain sum over the first axis would stand
    still there.
    """
    wide = np.float64 if x.dtype == np.float32 else None
    return np.asarray(x.sum(axis=axis, keepdims=keepdims, dtype=wide)).astype(x.dtype if wide else None, copy=False)


def running_total(x: np.ndarray, axis: int) -> np.ndarray:
    """The sums of the first 1, 2, ... entries along ``axis``, those of float32 numbers in float64.
    """
    wide = np.float64 if x.dtype == np.float32 else None
    return x.cumsum(axis=axis, dtype=wide).astype(x.dtype if wide else None, copy=False)


def deviations(x: np.ndarray, axis: int | tuple[int, ...] | None) -> tuple[np.ndarray, int]:
    """How far each entry is from the mean over ``axis``, and of how many entries that is the mean.
    """
    sums = total(x, axis, keepdims=True)
    n = x.size // max(1, sums.size)
    return x - sums / n, n


def added_at(shape: tuple[int, ...], index: Any, dy: np.ndarray) -> np.ndarray:
    """Zeros of ``shape`` with ``dy`` added in at ``index``: an entry that is named several times
    gets the sum.

    >>> added_at((3,), np.array([0, 2, 2]), np.array([1.0, 2.0, 3.0]))
    array([1., 0., 5.])
    """
    size = math.prod(shape)
    places = np.arange(size).reshape(shape)[index]  # where each entry of dy was taken from, counted through
    sums = np.bincount(places.reshape(-1), weights=dy.reshape(-1), minlength=size)  # in float64
    return sums.reshape(shape).astype(dy.dtype, copy=False)


def broadcasting(function: Callable, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``function(a, b)``, with a sentence instead of NumPy's message when the shapes do not fit.

    Integers and booleans beside floats become floats of that width; NumPy would widen int64 and
    float32 to float64.
    """
    if a.dtype != b.dtype:
        if b.dtype.kind == "f" and a.dtype.kind != "f":
            a = a.astype(b.dtype)
        elif a.dtype.kind == "f" and b.dtype.kind != "f":
            b = b.astype(a.dtype)
    try:
        return function(a, b)
    except ValueError:
        inner = 2 if function.__name__ == "product" else 0  # the axes that a matrix product has for itself
        for axis in range(1 + inner, min(a.ndim, b.ndim) + 1):
            m, n = a.shape[-axis], b.shape[-axis]
            if m != n and 1 not in (m, n):
                raise ValueError(
                    f"{'matmul' if inner else function.__name__}: shapes {a.shape} and {b.shape} do not fit: "
                    f"axis -{axis} has {m} and {n} (equal lengths, or one of them 1, would)"
                ) from None
        raise


def floats(x: Node) -> np.ndarray:
    """The array behind ``x``, for operations on real numbers: integers and booleans become float32.
    """
    if not isinstance(x, Node):
        raise TypeError(f"expected a Tensor; got {type(x).__name__}. Tensor(x) makes one")
    return x._data if x._data.dtype.kind == "f" else x._data.astype(np.float32)


def alike(*tensors: Node) -> list[np.ndarray]:
    """The arrays behind tensors of real numbers, in one dtype: float64 if one of them is."""
    arrays = [floats(t) for t in tensors]
    dtype = np.result_type(*arrays)
    return [a.astype(dtype, copy=False) for a in arrays]


def with_axes(y: np.ndarray, axis: int | tuple[int, ...] | None, keepdims: bool, ndim: int) -> np.ndarray:
    """Give an array of ``ndim`` axes that was reduced its axes back, with length 1: for axis 1,
    (M,) -> (M, 1).

    So it broadcasts against what it was reduced from. A 0-d array had no axes to lose.
    """
    return y if keepdims or axis is None or ndim == 0 else np.expand_dims(y, axis)


def array_index(index: Any) -> Any:
    """An index in which Tensors have become arrays; floats are refused."""
    if isinstance(index, tuple):
        return tuple(array_index(i) for i in index)
    if isinstance(index, Node):
        index = index._data
    if isinstance(index, float) or (isinstance(index, np.ndarray) and index.dtype.kind == "f"):
        raise IndexError(f"an index must be made of integers, booleans or slices; got {index!r}")
    return index


def native(array: np.ndarray) -> np.ndarray:
    """The array in this machine's byte order: files and networks may have another."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
