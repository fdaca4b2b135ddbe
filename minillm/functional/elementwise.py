"""Operations on each entry by itself: exp, log, sqrt and their kin, and the choice between two
tensors.

"(...) -> (...)": y has the shape of x, whatever that is. Two tensors are stretched to one shape, as
NumPy's arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor, broadcasting, floats, operand, unbroadcast


def exp(x: Tensor) -> Tensor:
    """y = e^x;   dx = dy y.   (...) -> (...)"""
    y = np.exp(floats(x))

    def backward(dy):
        return (dy * y,)

    return Tensor.from_op(y, (x,), backward)


def log(x: Tensor) -> Tensor:
    """y = ln x;   dx = dy / x.   (...) -> (...). Zero gives -inf, negative entries NaN, as NumPy.
    """
    a = floats(x)

    def backward(dy):
        return (dy / a,)

    with np.errstate(divide="ignore", invalid="ignore"):
        return Tensor.from_op(np.log(a), (x,), backward)


def sqrt(x: Tensor) -> Tensor:
    """y = x^(1/2);   dx = dy / (2 y).   (...) -> (...)"""
    with np.errstate(invalid="ignore"):
        y = np.sqrt(floats(x))

    def backward(dy):
        with np.errstate(divide="ignore"):
            return (dy / (2 * y),)

    return Tensor.from_op(y, (x,), backward)


def where(condition: Any, x: Any, y: Any) -> Tensor:
    """z = x where the condition holds, else y;
    dx = dz where it holds, dy = dz where it does not, else 0.

    condition, x, y: shapes that broadcast to one, (...) -> z: (...). What was not taken gets 0,
    even of dz = infinity.
    """
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


def log1p(x: Tensor) -> Tensor:
    """y = ln(1 + x), exact for tiny x, where 1 + x would lose digits;   dx = dy / (1 + x).
    (...) -> (...)
    """
    a = floats(x)

    def backward(dy):
        return (dy / (1 + a),)

    with np.errstate(divide="ignore", invalid="ignore"):
        return Tensor.from_op(np.log1p(a), (x,), backward)


def rsqrt(x: Tensor) -> Tensor:
    """y = x^(-1/2);   dx = -dy y^3 / 2.   (...) -> (...)"""
    with np.errstate(divide="ignore", invalid="ignore"):
        y = 1 / np.sqrt(floats(x))

    def backward(dy):
        return (dy * (-0.5 * y**3),)

    return Tensor.from_op(y, (x,), backward)


def abs(x: Tensor) -> Tensor:  # noqa: A001 - the field's word
    """y = |x|;   dx = dy sign(x), 0 at 0.   (...) -> (...)"""
    return x.__abs__()


def sin(x: Tensor) -> Tensor:
    """y = sin x;   dx = dy cos x.   (...) -> (...)"""
    a = floats(x)

    def backward(dy):
        return (dy * np.cos(a),)

    return Tensor.from_op(np.sin(a), (x,), backward)


def cos(x: Tensor) -> Tensor:
    """y = cos x;   dx = -dy sin x.   (...) -> (...)"""
    a = floats(x)

    def backward(dy):
        return (-dy * np.sin(a),)

    return Tensor.from_op(np.cos(a), (x,), backward)


def clip(x: Tensor, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002 - torch's words
    """y = x, but at least ``min`` and at most ``max``;   dx = dy, and 0 where x lies outside.
    (...) -> (...)

    The bounds are numbers (or arrays that broadcast to x), and have no gradient: ``maximum`` and
    ``minimum`` give one. y keeps x's dtype; integers between bounds that are not become float32.
    """
    if min is None and max is None:
        raise ValueError("clip: expected min, max or both; got neither")
    low, high, a = min, max, x.data
    if a.dtype.kind == "f" or any(np.asarray(bound).dtype.kind == "f" for bound in (min, max)):
        a = floats(x)
        low, high = (bound if bound is None else np.asarray(bound, a.dtype) for bound in (min, max))
    inside = np.ones(a.shape, bool)
    if low is not None:
        inside &= a >= low
    if high is not None:
        inside &= a <= high

    def backward(dy):
        return (np.where(inside, dy, dy.dtype.type(0)),)

    return Tensor.from_op(np.clip(a, low, high), (x,), backward)


def maximum(x: Any, y: Any) -> Tensor:
    """z = x where x > y, else y;   dx = dz where x > y, dz / 2 where x = y, else 0;   dy likewise.

    x, y: shapes that broadcast to one, (...) -> z: (...). NaN beats all numbers; both sides then
    get dz.
    """
    return _choose(np.maximum, np.less, x, y)


def minimum(x: Any, y: Any) -> Tensor:
    """z = x where x < y, else y;   dx = dz where x < y, dz / 2 where x = y, else 0;   dy likewise.

    x, y: shapes that broadcast to one, (...) -> z: (...). NaN beats all numbers; both sides then
    get dz.
    """
    return _choose(np.minimum, np.greater, x, y)


def _choose(function: np.ufunc, loses: np.ufunc, x: Any, y: Any) -> Tensor:
    like = x if isinstance(x, Tensor) else y if isinstance(y, Tensor) else Tensor(x)
    x, y = operand(x, like), operand(y, like)
    a, b = x.data, y.data

    def backward(dz):
        share, nothing = np.where(a == b, dz / 2, dz), dz.dtype.type(0)
        da, db = np.where(loses(a, b), nothing, share), np.where(loses(b, a), nothing, share)
        return unbroadcast(da, a.shape), unbroadcast(db, b.shape)

    return Tensor.from_op(broadcasting(function, a, b), (x, y), backward, op=function.__name__)


def dropout(x: Tensor, p: float, rng: np.random.Generator | None = None, training: bool = True) -> Tensor:
    """Set a random share ``p`` of the entries to zero and scale up the rest, while training
    (Srivastava et al. 2014).

    y = x m / (1 - p), m ~ Bernoulli(1 - p);   dx = dy m / (1 - p).
    x: (...) -> (...)
    Divided by 1 - p, so that the mean of every entry stays what it was, and nothing need be done
    when not training.
    Raises ValueError unless 0 <= p < 1.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p must be in [0, 1); got {p}")
    if not training or p == 0:
        return x
    a = floats(x)
    draw = np.random.default_rng(rng).random(x.shape, dtype=np.float32)
    keep = (draw >= p).astype(a.dtype) * a.dtype.type(1 / (1 - p))

    def backward(dy):
        return (dy * keep,)

    return Tensor.from_op(a * keep, (x,), backward)
