"""Operations that move entries about without changing them: joining, splitting, turning, padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.shapes import added_at
from ..tensor import Tensor, array_index, operand, total, unbroadcast
from .checks import check_ids, one_axis
from .elementwise import where


def concatenate(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """y = [a | b | ...], end to end along an existing axis;
    da, db, ... = dy cut at the same places.

    tensors: (..., N_i, ...), equal but for that axis -> (..., N_1 + N_2 + ..., ...).
    """
    parts = _tensors("concatenate", tensors)
    axis = one_axis("concatenate", parts[0], axis)
    try:
        y = np.concatenate([t.data for t in parts], axis=axis, dtype=common_dtype(parts))
    except ValueError as error:
        raise ValueError(f"concatenate: {error}; got shapes {[t.shape for t in parts]}, axis {axis}") from None
    ends = np.cumsum([t.shape[axis] for t in parts])[:-1]

    def backward(dy):
        return np.split(dy, ends, axis=axis)

    return Tensor.from_op(y, parts, backward)


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """y[i] = x_i along a new axis;   dx_i = dy[i].   n tensors (...) -> (n, ...) for axis 0"""
    parts = _tensors("stack", tensors)
    if any(t.shape != parts[0].shape for t in parts):
        raise ValueError(f"stack: all tensors must have one shape; got {[t.shape for t in parts]}")
    axis, n = one_axis("stack", parts[0], axis, more=1), len(parts)

    def backward(dy):
        return [np.take(dy, i, axis=axis) for i in range(n)]

    return Tensor.from_op(np.stack([t.data for t in parts], axis=axis, dtype=common_dtype(parts)), parts, backward)


def _tensors(name: str, tensors: Sequence[Any]) -> tuple[Tensor, ...]:
    if not len(tensors):
        raise ValueError(f"{name}: expected at least one tensor; got none")
    like = next((t for t in tensors if isinstance(t, Tensor)), Tensor(0.0))
    return tuple(operand(t, like) for t in tensors)


def common_dtype(parts: Sequence[Tensor]) -> np.dtype:
    """The widest float among them, or the widest integer where there is none."""
    dtypes = [t.dtype for t in parts]
    return np.result_type(*([d for d in dtypes if d.kind == "f"] or dtypes))


def split(x: Tensor, sizes: int | Sequence[int], axis: int = -1) -> list[Tensor]:
    """Cut along ``axis`` into parts of the given sizes (one number: parts of that size, the last
    maybe shorter).

    x: (..., N_1 + N_2 + ..., ...) -> [(..., N_1, ...), (..., N_2, ...), ...];
    dx = dy in the part's place, else 0.
    """
    axis = one_axis("split", x, axis)
    length = x.shape[axis]
    if isinstance(sizes, (int, np.integer)):
        if sizes < 1:
            raise ValueError(f"split: the size of a part must be at least 1; got {sizes}")
        sizes = [min(sizes, length - start) for start in range(0, max(1, length), sizes)]
    if sum(sizes) != length or min(sizes) < 0:
        raise ValueError(f"split: sizes must add up to {length}, the length of axis {axis}; got {list(sizes)}")
    before = (slice(None),) * axis
    ends = np.cumsum(sizes)
    return [x[(*before, slice(int(end - size), int(end)))] for end, size in zip(ends, sizes, strict=True)]


def chunk(x: Tensor, chunks: int, axis: int = -1) -> list[Tensor]:
    """Cut along ``axis`` into ``chunks`` equal parts (or fewer, and the last shorter, where that
    does not come out).

    x: (..., N, ...) -> [(..., ceil(N / chunks), ...), ...];   dx = dy in each part's place.
    """
    if not isinstance(chunks, (int, np.integer)) or chunks < 1:
        raise ValueError(f"chunk: expected at least 1 part; got {chunks}")
    axis = one_axis("chunk", x, axis)
    return split(x, max(1, -(-x.shape[axis] // chunks)), axis)


def squeeze(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Leave out axes of length 1 (all, or those named): (M, 1, N) -> (M, N);   dx = dy reshaped."""
    return x.reshape(np.squeeze(x.data, axis=axis).shape)


def unsqueeze(x: Tensor, axis: int) -> Tensor:
    """Put in an axis of length 1: (M, N) -> (M, 1, N) for axis 1;   dx = dy reshaped."""
    axis = one_axis("unsqueeze", x, axis, more=1)
    return x.reshape(*x.shape[:axis], 1, *x.shape[axis:])


def broadcast_to(x: Tensor, shape: int | Sequence[int]) -> Tensor:
    """Repeat along axes of length 1 (or missing ones): (M, 1) -> (K, M, N);
    dx = sum of dy over all copies.
    """
    before = x.shape

    def backward(dy):
        return (unbroadcast(dy, before),)

    try:
        y = np.broadcast_to(x.data, shape)
    except ValueError:
        raise ValueError(f"broadcast_to: shape {before} cannot be stretched to {shape}") from None
    return Tensor.from_op(y.copy(), (x,), backward)


def flip(x: Tensor, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """y_i = x_(N-1-i) along ``axis`` (all axes by default), dx_i = dy_(N-1-i).
    (...) -> the same shape
    """

    def backward(dy):
        return (np.flip(dy, axis),)

    return Tensor.from_op(np.flip(x.data, axis).copy(), (x,), backward)


def pad(x: Tensor, widths: Any, value: float = 0.0) -> Tensor:
    """Put ``value`` around x;   dx = the inner part of dy.

    x: (N_1, N_2, ...) -> (before_1 + N_1 + after_1, ...). widths as NumPy's: ((before, after), ...)
    per axis, or one number for all.
    """
    try:
        pairs = np.broadcast_to(np.asarray(widths), (x.ndim, 2))
        y = np.pad(x.data, widths, constant_values=value)
    except ValueError:
        raise ValueError(
            f"pad: widths must be one number >= 0, or a pair (before, after) for each axis of {x.shape}; got {widths}"
        ) from None
    inside = tuple(slice(int(low), int(low) + n) for (low, _), n in zip(pairs, x.shape, strict=True))

    def backward(dy):
        return (dy[inside],)

    return Tensor.from_op(y, (x,), backward)


def tile(x: Tensor, repeats: int | Sequence[int]) -> Tensor:
    """Lay copies of x side by side, as ``np.tile``: (M, N) -> (r M, s N);
    dx = sum of dy over all copies.
    """
    counts = (repeats,) if isinstance(repeats, int) else tuple(repeats)
    ndim = max(x.ndim, len(counts))
    counts = (1,) * (ndim - len(counts)) + counts
    shape = (1,) * (ndim - x.ndim) + x.shape
    paired = [n for pair in zip(counts, shape, strict=True) for n in pair]  # each axis as (copies, length)
    before = x.shape

    def backward(dy):
        return (total(dy.reshape(paired), tuple(range(0, 2 * ndim, 2))).reshape(before),)

    return Tensor.from_op(np.tile(x.data, counts), (x,), backward)


def take(x: Tensor, indices: Any, axis: int = 0) -> Tensor:
    """y[i] = x[indices[i]] along ``axis``;
    dx[indices[i]] += dy[i]: what is taken twice gets both gradients.

    x: (N, ...), indices: (K,) -> (K, ...) for axis 0.
    """
    index = array_index(indices)
    return x[(*(slice(None),) * one_axis("take", x, axis), np.asarray(index))]


def gather(x: Tensor, indices: Any, axis: int = -1) -> Tensor:
    """One entry per place: y[i, j] = x[i, indices[i, j]] for axis 1 (torch's gather,
    ``np.take_along_axis``).

    x: (M, N), indices: (M, K) -> y: (M, K);   dx[i, indices[i, j]] += dy[i, j].
    """
    index, axis = np.asarray(array_index(indices)), one_axis("gather", x, axis)
    if index.ndim != x.ndim:
        raise ValueError(f"gather: indices must have as many axes as x, {x.ndim}; got shape {index.shape}")
    shape = x.shape
    places = list(np.ogrid[tuple(slice(n) for n in index.shape)])
    places[axis] = index

    def backward(dy):
        return (added_at(shape, tuple(places), dy),)

    return Tensor.from_op(x.data[tuple(places)], (x,), backward)


def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """y_ij = x_ij where j <= i + diagonal (on and below it), else 0;   dx likewise.
    (..., M, N) -> (..., M, N)
    """
    return where(np.tril(_ones("tril", x), diagonal), x, np.zeros((), x.dtype))


def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """y_ij = x_ij where j >= i + diagonal (on and above it), else 0;   dx likewise.
    (..., M, N) -> (..., M, N)
    """
    return where(np.triu(_ones("triu", x), diagonal), x, np.zeros((), x.dtype))


def _ones(name: str, x: Tensor) -> np.ndarray:
    if x.ndim < 2:
        raise ValueError(f"{name}: expected at least two axes; got shape {x.shape}")
    return np.ones(x.shape[-2:], bool)


def arange(*limits: float) -> Tensor:
    """The numbers start, start + step, ... below stop, as ``np.arange``: (N,) integers, or float32;
    no gradient.
    """
    values = np.arange(*limits)
    return Tensor(values.astype(np.float32) if values.dtype.kind == "f" else values)


def one_hot(ids: Any, num_classes: int) -> Tensor:
    """A row of zeros with a 1 at each id: ids (...) in [0, num_classes) -> (..., num_classes)
    float32, no gradient.
    """
    return Tensor(np.eye(num_classes, dtype=np.float32)[check_ids("one_hot", ids, num_classes)])
