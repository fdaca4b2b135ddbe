"""Operations on each entry by itself: exp, log, sqrt and their kin, and the choice between two tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor, broadcasting, operand, unbroadcast


def exp(x: Tensor) -> Tensor:
    """y = e^x;   dx = dy y."""
    y = np.exp(x.data)

    def backward(dy):
        return (dy * y,)

    return Tensor.from_op(y, (x,), backward)


def log(x: Tensor) -> Tensor:
    """y = ln x;   dx = dy / x. Zero gives -inf, negative entries NaN, as NumPy."""
    a = x.data

    def backward(dy):
        return (dy / a,)

    with np.errstate(divide="ignore", invalid="ignore"):
        return Tensor.from_op(np.log(a), (x,), backward)


def sqrt(x: Tensor) -> Tensor:
    """y = x^(1/2);   dx = dy / (2 y)."""
    with np.errstate(invalid="ignore"):
        y = np.sqrt(x.data)

    def backward(dy):
        with np.errstate(divide="ignore"):
            return (dy / (2 * y),)

    return Tensor.from_op(y, (x,), backward)


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """Take from x where the condition holds, else from y; each side gets the gradient of the entries it gave."""
    chosen = np.asarray(condition.data if isinstance(condition, Tensor) else condition, dtype=bool)
    like = x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else Tensor(x)
    x, y = operand(x, like), operand(y, like)
    a_shape, b_shape = x.shape, y.shape

    def backward(dz):
        zero = dz.dtype.type(0)
        return (
            unbroadcast(np.where(chosen, dz, zero), a_shape),
            unbroadcast(np.where(chosen, zero, dz), b_shape),
        )

    def where(a, b):
        return np.where(chosen, a, b)

    return Tensor.from_op(broadcasting(where, x.data, y.data), (x, y), backward)
