"""Many numbers become one along an axis: products, norms, log-sum-exp, running sums.

"(..., N, ...) -> (...)": the axis goes, or stays with length 1 for ``keepdims``; with axis None all axes go.
"""

from __future__ import annotations

import numpy as np

from ..tensor import Tensor, floats, with_axes
from .checks import last_axis

Axis = int | tuple[int, ...] | None


def prod(x: Tensor, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """y = x_1 x_2 ... x_N over ``axis``;   dx_i = dy times the product of all others, exact where some are zero.

    x: (..., N, ...) -> (...).
    """
    if isinstance(axis, tuple):
        raise ValueError(f"prod: axis must be one axis or None (all of them); got {axis}")
    a = x.data

    def backward(dy):
        # all others = (those before) x (those after): no division, so zeros do no harm
        flat = a.reshape(-1) if axis is None else np.moveaxis(a, axis, -1)
        one = np.ones_like(flat[..., :1])
        before = np.cumprod(np.concatenate([one, flat[..., :-1]], axis=-1), axis=-1)
        after = np.cumprod(np.concatenate([one, flat[..., :0:-1]], axis=-1), axis=-1)[..., ::-1]
        others = (before * after).reshape(a.shape) if axis is None else np.moveaxis(before * after, -1, axis)
        return (with_axes(dy, axis, keepdims, a.ndim) * others,)

    return Tensor.from_op(np.asarray(a.prod(axis=axis, keepdims=keepdims)), (x,), backward)


def logsumexp(x: Tensor, axis: Axis = -1, keepdims: bool = False) -> Tensor:
    """y = ln sum_i e^(x_i), a smooth maximum;   dx = dy softmax(x). A row of -inf gives -inf, and no gradient.

    x: (..., N, ...) -> (...).
    """
    a = floats(x)
    top = a.max(axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0).astype(a.dtype)  # e^(x - max) never overflows
    with np.errstate(divide="ignore"):
        y = np.log(np.exp(a - top).sum(axis=axis, keepdims=True)) + top

    def backward(dy):
        weights = np.exp(a - np.where(np.isneginf(y), 0, y))
        return (with_axes(dy, axis, keepdims, a.ndim) * weights,)

    return Tensor.from_op(y if keepdims else np.squeeze(y, axis=axis), (x,), backward)


def std(x: Tensor, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """y = sqrt(sum (x - mean)^2 / (N - ddof));   dx = dy (x - mean) / ((N - ddof) y), and 0 where y is 0.

    x: (..., N, ...) -> (...). ddof is 0, as NumPy's; torch's default is 1.
    """
    a = floats(x)
    y = a.std(axis=axis, keepdims=True, ddof=ddof)
    n = a.size / max(1, y.size) - ddof

    def backward(dy):
        centred = a - a.mean(axis=axis, keepdims=True)
        dy = np.where(y == 0, dy.dtype.type(0), with_axes(dy, axis, keepdims, a.ndim))
        return (dy * centred / np.where(y == 0, 1, n * y),)

    return Tensor.from_op(y if keepdims else np.squeeze(y, axis=axis), (x,), backward)


def norm(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = sqrt(sum x^2), a vector's length;   dx = dy x / y, and 0 for the zero vector.   (..., N, ...) -> (...)"""
    a = floats(x)
    y = np.sqrt((a * a).sum(axis=axis, keepdims=True))

    def backward(dy):
        return (with_axes(dy, axis, keepdims, a.ndim) * a / np.where(y == 0, 1, y),)

    return Tensor.from_op(y if keepdims else np.squeeze(y, axis=axis), (x,), backward)


def cumsum(x: Tensor, axis: int = -1) -> Tensor:
    """y_i = x_1 + ... + x_i along ``axis``; an entry is in every later sum, so dx_i = dy_i + dy_(i+1) + ...

    x: (..., N, ...) -> the same shape.
    """
    last_axis("cumsum", x)

    def backward(dy):
        return (np.flip(np.cumsum(np.flip(dy, axis), axis=axis), axis),)

    return Tensor.from_op(np.cumsum(x.data, axis=axis), (x,), backward)
