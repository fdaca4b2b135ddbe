"""Operations that move entries about without changing them: joining, splitting, turning, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..tensor import Tensor, operand


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
