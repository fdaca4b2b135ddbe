"""Many numbers become one along an axis: products, norms, log-sum-exp, running sums.

"(..., N, ...) -> (...)": the axis goes, or stays with length 1 for ``keepdims``; with axis None all
axes go.
"""

from __future__ import annotations

import numpy as np

from ..autograd.shapes import deviations, running_total
from ..tensor import Tensor, floats, total, with_axes
from .checks import one_axis

Axis = int | tuple[int, ...] | None


def prod(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """y = x_1 x_2 ... x_N over ``axis``;
    dx_i = dy times the product of all others, exact where some are zero.

    x: (..., N, ...) -> (...).
    """
    if isinstance(axis, tuple):
        raise ValueError(f"prod: axis must be one axis or None (all of them); got {axis}")
    a = x.data

    def backward(dy):
        # all others = (those before) x (those after): no division, so zeros do no harm
        along = axis if a.ndim else None  # a single number has no axis to move
        flat = a.reshape(-1) if along is None else np.moveaxis(a, along, -1)
        one = np.ones_like(flat[..., :1])
        before = np.cumprod(np.concatenate([one, flat[..., :-1]], axis=-1), axis=-1)
        after = np.cumprod(np.concatenate([one, flat[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
        others = (before * after).reshape(a.shape) if along is None else np.moveaxis(before * after, -1, along)
        return (with_axes(dy, axis, keepdims, a.ndim) * others,)

    with np.errstate(under="ignore"):
        return Tensor.from_op(a.prod(axis=axis, keepdims=keepdims), (x,), backward)


def logsumexp(x: Tensor, axis: Axis = -1, keepdims: bool = False) -> Tensor:
    """y = ln sum_i e^(x_i), a smooth maximum;
    dx = dy softmax(x). A row of -inf gives -inf, and no gradient.

    x: (..., N, ...) -> (...).
    """
    a = floats(x)
    top = a.max(axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0).astype(a.dtype)  # e^(x - max) never overflows
    with np.errstate(divide="ignore", under="ignore"):
        y = np.log(total(np.exp(a - top), axis, keepdims=True)) + top

    def backward(dy):
        weights = np.exp(a - np.where(np.isneginf(y), 0, y))
        return (with_axes(dy, axis, keepdims, a.ndim) * weights,)

    return Tensor.from_op(y if keepdims else np.squeeze(y, axis=axis), (x,), backward)


def std(x: Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """y = sqrt(sum (x - mean)^2 / (N - ddof));
    dx = dy (x - mean) / ((N - ddof) y), and 0 where y is 0.

    x: (..., N, ...) -> (...). ddof is 0, as NumPy's; torch's default is 1.
    """
    a = floats(x)
    centred, n = deviations(a, axis)
    n = max(0, n - ddof)
    with np.errstate(under="ignore"):
        y = np.sqrt(total(centred * centred, axis, keepdims=True) / n)

    def backward(dy):
        dy = np.where(y == 0, dy.dtype.type(0), with_axes(dy, axis, keepdims, a.ndim))
        return (dy * centred / np.where(y == 0, 1, n * y),)

    return Tensor.from_op(y if keepdims else np.squeeze(y, axis=axis), (x,), backward)


def norm(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = sqrt(sum x^2), a vector's length;   dx = dy x / y, and 0 for the zero vector.
    (..., N, ...) -> (...)
    """
    a = floats(x)
    with np.errstate(under="ignore"):
        y = np.sqrt(total(a * a, axis, keepdims=True))

    def backward(dy):
        return (with_axes(dy, axis, keepdims, a.ndim) * a / np.where(y == 0, 1, y),)

    return Tensor.from_op(y if keepdims else np.squeeze(y, axis=axis), (x,), backward)


def cumsum(x: Tensor, axis: int = -1) -> Tensor:
    """y_i = x_1 + ... + x_i along ``axis``; an entry is in every later sum, so dx_i = dy_i +
    dy_(i+1) + ...

    x: (..., N, ...) -> the same shape.
    """
    axis = one_axis("cumsum", x, axis)

    def backward(dy):
        return (np.flip(running_total(np.flip(dy, axis), axis), axis),)

    return Tensor.from_op(running_total(x.data, axis), (x,), backward)
