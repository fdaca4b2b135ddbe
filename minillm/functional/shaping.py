"""Operations that move entries about without changing them: joining, splitting, turning, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tensor import Tensor, array_index, operand, unbroadcast
from .checks import check_ids


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors end to end along an existing axis; each gets its part of the gradient back."""
    parts = _tensors("concatenate", tensors)
    try:
        y = np.concatenate([t.data for t in parts], axis=axis)
    except ValueError as error:
        raise ValueError(f"concatenate: {error}; got shapes {[t.shape for t in parts]}, axis {axis}") from None
    ends = np.cumsum([t.shape[axis] for t in parts])[:-1]

    def backward(dy):
        return np.split(dy, ends, axis=axis)

    return Tensor.from_op(y, parts, backward)


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Join tensors of one shape along a new axis; each gets its slice of the gradient back."""
    parts = _tensors("stack", tensors)
    if any(t.shape != parts[0].shape for t in parts):
        raise ValueError(f"stack: all tensors must have one shape; got {[t.shape for t in parts]}")
    n = len(parts)

    def backward(dy):
        return [np.take(dy, i, axis=axis) for i in range(n)]

    return Tensor.from_op(np.stack([t.data for t in parts], axis=axis), parts, backward)


def _tensors(name: str, tensors: Sequence[Any]) -> tuple[Tensor, ...]:
    if not len(tensors):
        raise ValueError(f"{name}: expected at least one tensor; got none")
    like = next((t for t in tensors if isinstance(t, Tensor)), Tensor(0.0))
    return tuple(operand(t, like) for t in tensors)


def split(x: Tensor, sizes: int | Sequence[int], axis: int = -1) -> list[Tensor]:
    """Cut along ``axis`` into parts of the given sizes (one number: parts of that size, the last maybe shorter)."""
    length = x.shape[axis]
    if isinstance(sizes, int):
        if sizes < 1:
            raise ValueError(f"split: the size of a part must be at least 1; got {sizes}")
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)]
    if sum(sizes) != length:
        raise ValueError(f"split: sizes must add up to {length}, the length of axis {axis}; got {list(sizes)}")
    before = (slice(None),) * (axis % x.ndim)
    ends = np.cumsum(sizes)
    return [x[(*before, slice(int(end - size), int(end)))] for end, size in zip(ends, sizes, strict=True)]


def chunk(x: Tensor, parts: int, axis: int = -1) -> list[Tensor]:
    """Cut along ``axis`` into ``parts`` equal parts (the last may be shorter)."""
    if parts < 1:
        raise ValueError(f"chunk: expected at least 1 part; got {parts}")
    return split(x, max(1, -(-x.shape[axis] // parts)), axis)


def squeeze(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Leave out axes of length 1 (all, or those named)."""
    return x.reshape(np.squeeze(x.data, axis=axis).shape)


def unsqueeze(x: Tensor, axis: int) -> Tensor:
    """Put in an axis of length 1."""
    return x.reshape(np.expand_dims(x.data, axis).shape)


def broadcast_to(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat along axes of length 1 (or missing ones) up to ``shape``; the copies' gradients are summed back."""
    before = x.shape

    def backward(dy):
        return (unbroadcast(dy, before),)

    return Tensor.from_op(np.broadcast_to(x.data, tuple(shape)).copy(), (x,), backward)


def flip(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Turn the order round along ``axis`` (all axes by default)."""

    def backward(dy):
        return (np.flip(dy, axis),)

    return Tensor.from_op(np.flip(x.data, axis).copy(), (x,), backward)


def pad(x: Tensor, widths: Any, value: float = 0.0) -> Tensor:
    """Put ``value`` around x; widths as NumPy's: ((before, after), ...) per axis, or one number for all."""
    y = np.pad(x.data, widths, constant_values=value)
    pairs = np.broadcast_to(np.asarray(widths), (x.ndim, 2))
    inside = tuple(slice(int(low), int(low) + n) for (low, _), n in zip(pairs, x.shape, strict=True))

    def backward(dy):
        return (dy[inside],)

    return Tensor.from_op(y, (x,), backward)


def tile(x: Tensor, repeats: int | Sequence[int]) -> Tensor:
    """Lay copies of x side by side, as ``np.tile``; their gradients are summed."""
    counts = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    ndim = max(x.ndim, len(counts))
    counts = (1,) * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - x.ndim) + x.shape
    paired = [n for pair in zip(counts, shape, strict=True) for n in pair]  # each axis as (copies, length)
    before = x.shape

    def backward(dy):
        return (dy.reshape(paired).sum(axis=tuple(range(0, 2 * ndim, 2))).reshape(before),)

    return Tensor.from_op(np.tile(x.data, counts), (x,), backward)


def take(x: Tensor, indices: Any, axis: int = 0) -> Tensor:
    """The slices of x at ``indices`` along ``axis``; one that is taken twice gets both gradients."""
    index = array_index(indices)
    return x[(*(slice(None),) * (axis % x.ndim), np.asarray(index))]


def gather(x: Tensor, indices: Any, axis: int = -1) -> Tensor:
    """One entry per place: y[i, j] = x[i, indices[i, j]] for axis 1 (torch's gather, ``np.take_along_axis``)."""
    index = np.asarray(array_index(indices))
    if index.ndim != x.ndim:
        raise ValueError(f"gather: indices must have as many axes as x, {x.ndim}; got shape {index.shape}")
    shape = x.shape
    places = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    places[axis] = index

    def backward(dy):
        dx = np.zeros(shape, dy.dtype)
        np.add.at(dx, tuple(places), dy)
        return (dx,)

    return Tensor.from_op(x.data[tuple(places)], (x,), backward)


def tril(x: Tensor, k: int = 0) -> Tensor:
    """Keep what is on and below the k-th diagonal of the last two axes, zero the rest."""
    return x * np.tril(np.ones(x.shape[-2:], x.dtype), k)


def triu(x: Tensor, k: int = 0) -> Tensor:
    """Keep what is on and above the k-th diagonal of the last two axes, zero the rest."""
    return x * np.triu(np.ones(x.shape[-2:], x.dtype), k)


def arange(*limits: int) -> Tensor:
    """The integers start, start + step, ... below stop, as ``np.arange``."""
    return Tensor(np.arange(*limits))


def one_hot(ids: Any, classes: int) -> Tensor:
    """A row of zeros with a 1 at each id: ids (...) in [0, classes) -> (..., classes) float32, no gradient."""
    return Tensor(np.eye(classes, dtype=np.float32)[check_ids("one_hot", ids, classes)])
