"""What a neuron does with its weighted sum: the non-linearities, and softmax, which turns scores into probabilities.

"(...) -> (...)": each entry by itself, y has the shape of x, whatever that is.
"""

from __future__ import annotations

import numpy as np

from .. import kernels
from ..tensor import Tensor, floats
from .checks import check_gelu, last_axis


def tanh(x: Tensor) -> Tensor:
    """y = (e^x - e^-x) / (e^x + e^-x), between -1 and 1;   dx = dy (1 - y^2).   (...) -> (...)"""
    y = np.tanh(floats(x))

    def backward(dy):
        return (dy * (1 - y * y),)

    return Tensor.from_op(y, (x,), backward)


def sigmoid(x: Tensor) -> Tensor:
    """y = 1 / (1 + e^-x), between 0 and 1;   dx = dy y (1 - y).   (...) -> (...)"""
    y = kernels.sigmoid_forward(floats(x))

    def backward(dy):
        return (kernels.sigmoid_backward(dy, y),)

    return Tensor.from_op(y, (x,), backward)


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0);   dx = dy where x > 0, else 0.   (...) -> (...)"""
    a = floats(x)

    def backward(dy):
        return (np.where(a <= 0, dy.dtype.type(0), dy),)  # not dy * (a > 0): infinity times 0 is NaN

    return Tensor.from_op(np.maximum(a, 0), (x,), backward)


def gelu(x: Tensor, approximate: str = "tanh") -> Tensor:
    """y = x P(N(0, 1) <= x): lets through what is large, damps what is small (Hendrycks & Gimpel 2016).

    approximate "tanh": y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), as GPT-2; "none": x/2 (1 + erf(x / sqrt 2)).
    dx = dy (P + x p(x)), p the bell curve (or the derivative of the tanh form).   (...) -> (...)
    """
    check_gelu("gelu", approximate)
    a, exact = floats(x), approximate == "none"

    def backward(dy):
        return (kernels.gelu_backward(dy, a, exact),)

    return Tensor.from_op(kernels.gelu_forward(a, exact), (x,), backward)


def silu(x: Tensor) -> Tensor:
    """y = x s(x), s the sigmoid;   dx = dy s (1 + x (1 - s)).   (...) -> (...)"""
    a = floats(x)

    def backward(dy):
        return (kernels.silu_backward(dy, a),)

    return Tensor.from_op(kernels.silu_forward(a), (x,), backward)


def swiglu(gate_up: Tensor) -> Tensor:
    """h = silu(gate) up: one half of the projections decides how much of the other half passes (Shazeer 2020).

    gate_up: (..., 2 I), gate in the first half, up in the second -> h: (..., I).
    dgate = dh up s (1 + gate (1 - s)),  dup = dh silu(gate).
    """
    width = last_axis("swiglu", gate_up)
    if width % 2:
        raise ValueError(f"swiglu: the last axis holds two halves, gate and up; got the odd length {width}")
    a = floats(gate_up)

    def backward(dh):
        return (kernels.swiglu_backward(dh, a),)

    return Tensor.from_op(kernels.swiglu_forward(a), (gate_up,), backward)


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Turn scores into probabilities along ``axis``.

    x: (..., V) -> y: (..., V), every row >= 0 and summing to 1.
    y_i = exp(x_i - max x) / sum_j exp(x_j - max x);   dx = y (dy - sum_j dy_j y_j)

    Why subtract the max? exp(100) is beyond float32. A constant added to all scores cancels in the quotient, so the
    greatest may as well be 0, and nothing overflows.
    """
    last_axis("softmax", x)
    if axis not in (-1, x.ndim - 1):
        return softmax(x.swapaxes(axis, -1)).swapaxes(axis, -1)
    y = kernels.softmax_forward(floats(x))

    def backward(dy):
        return (kernels.softmax_backward(dy, y),)

    return Tensor.from_op(y, (x,), backward)


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of softmax, without taking the logarithm of a tiny number.

    x: (..., V) -> y: (..., V), every entry <= 0.
    y_i = x_i - max x - log sum_j exp(x_j - max x);   dx = dy - softmax(x) sum_j dy_j
    """
    last_axis("log_softmax", x)
    if axis not in (-1, x.ndim - 1):
        return log_softmax(x.swapaxes(axis, -1)).swapaxes(axis, -1)
    y = kernels.log_softmax_forward(floats(x))

    def backward(dy):
        return (kernels.log_softmax_backward(dy, y),)

    return Tensor.from_op(y, (x,), backward)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """y = x where x > 0, else s x, s the negative_slope;   dx = dy or s dy.   (...) -> (...)

    A neuron that is off still hears which way to go (Maas et al. 2013).
    """
    a = floats(x)
    factor = np.where(a > 0, a.dtype.type(1), a.dtype.type(negative_slope))

    def backward(dy):
        return (dy * factor,)

    return Tensor.from_op(a * factor, (x,), backward)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """y = x where x > 0, else alpha (e^x - 1);   dx = dy, or dy alpha e^x.   (...) -> (...)   (Clevert et al. 2015)"""
    a = floats(x)
    below = a.dtype.type(alpha) * np.expm1(np.minimum(a, 0))

    def backward(dy):
        return (dy * np.where(a <= 0, below + dy.dtype.type(alpha), dy.dtype.type(1)),)

    return Tensor.from_op(np.where(a <= 0, below, a), (x,), backward)


def softplus(x: Tensor) -> Tensor:
    """y = ln(1 + e^x), a relu without the corner;   dx = dy sigmoid(x).   (...) -> (...)"""
    a = floats(x)

    def backward(dy):
        return (dy * kernels.sigmoid_forward(a),)

    return Tensor.from_op(np.logaddexp(a, a.dtype.type(0)), (x,), backward)
