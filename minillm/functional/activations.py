"""What a neuron does with its weighted sum: the non-linearities, and softmax, which turns scores
into probabilities.

"(...) -> (...)": each entry by itself, y has the shape of x, whatever that is.

Some have their definitions on arrays, forward and backward, just below; ``@compiled`` lets a
faster function do the same.
"""

from __future__ import annotations

import math

import numpy as np

from ..autograd.shapes import floats, total
from ..kernels import compiled
from ..tensor import Tensor
from .checks import check_gelu, last_axis
from .shaping import chunk


def tanh(x: Tensor) -> Tensor:
    """y = (e^x - e^-x) / (e^x + e^-x), between -1 and 1;   dx = dy (1 - y^2).   (...) -> (...)"""
    y = np.tanh(floats(x))

    def backward(dy):
        return (dy * ((1 - y) * (1 + y)),)  # = dy (1 - y^2), where y^2 might underflow

    return Tensor.from_op(y, (x,), backward)


def sigmoid(x: Tensor) -> Tensor:
    """y = 1 / (1 + e^-x), between 0 and 1;   dx = dy y (1 - y).   (...) -> (...)"""
    y = sigmoid_forward(floats(x))

    def backward(dy):
        return (sigmoid_backward(dy, y),)

    return Tensor.from_op(y, (x,), backward)


@compiled("activations")
def sigmoid_forward(x: np.ndarray) -> np.ndarray:
    """y, for x of any shape."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))  # no exponent is positive: nothing overflows


@compiled("activations")
def sigmoid_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dx, from y alone."""
    return dy * y * (1 - y)


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0);   dx = dy where x > 0, else 0.   (...) -> (...)"""
    a = floats(x)

    def backward(dy):
        return (np.where(a <= 0, dy.dtype.type(0), dy),)  # not dy * (a > 0): infinity times 0 is NaN

    return Tensor.from_op(np.maximum(a, 0), (x,), backward)


def gelu(x: Tensor, approximate: str = "tanh") -> Tensor:
    """y = x P(x), P(x) = P(N(0, 1) <= x): lets through what is large, damps what is small
    (Hendrycks & Gimpel 2016).

    approximate "none": P(x) = (1 + erf(x / sqrt 2)) / 2; "tanh", as GPT-2, near to it and once
    cheaper: P(x) = (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
    dx = dy (P(x) + x P'(x)).   (...) -> (...)
    """
    check_gelu("gelu", approximate)
    a, exact = floats(x), approximate == "none"

    def backward(dy):
        return (gelu_backward(dy, a, exact),)

    return Tensor.from_op(gelu_forward(a, exact), (x,), backward)


@compiled("activations")
def gelu_forward(x: np.ndarray, exact: bool) -> np.ndarray:
    """y, for x of any shape."""
    P, _ = _below(x, exact)
    return x * P


@compiled("activations")
def gelu_backward(dy: np.ndarray, x: np.ndarray, exact: bool) -> np.ndarray:
    """dx, of the shape of x."""
    P, slope = _below(x, exact)
    return dy * (P + x * slope)


def _below(x: np.ndarray, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """P(x), how likely a standard normal variable is below x, and P'(x)."""
    if exact:
        erfc = np.vectorize(math.erfc, otypes=[x.dtype])  # erfc(-z) = 1 + erf(z), without cancellation
        return erfc(-x / math.sqrt(2)) / 2, np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    c = math.sqrt(2 / math.pi)
    P = sigmoid_forward(2 * c * (x + 0.044715 * x**3))  # = (1 + tanh u) / 2, which cancels where tanh u is near -1
    return P, P * (1 - P) * 2 * c * (1 + 3 * 0.044715 * x**2)


def silu(x: Tensor) -> Tensor:
    """y = x s, s = sigmoid(x);   dx = dy s (1 + x (1 - s)).   (...) -> (...)"""
    a = floats(x)

    def backward(dy):
        return (silu_backward(dy, a),)

    return Tensor.from_op(silu_forward(a), (x,), backward)


@compiled("activations")
def silu_forward(x: np.ndarray) -> np.ndarray:
    """y, for x of any shape."""
    return x * sigmoid_forward(x)


@compiled("activations")
def silu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx, of the shape of x."""
    s = sigmoid_forward(x)
    return dy * s * (1 + x * (1 - s))


def swiglu(gate_up: Tensor) -> Tensor:
    """h = silu(gate) up: one half of the projections decides how much of the other half passes
    (Shazeer 2020).

    gate_up: (..., 2 I), gate in the first half, up in the second -> h: (..., I).
    """
    width = last_axis("swiglu", gate_up)
    if width % 2:
        raise ValueError(f"swiglu: the last axis holds two halves, gate and up; got the odd length {width}")
    gate, up = chunk(gate_up, 2)
    return silu(gate) * up


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Turn scores into probabilities along ``axis``.

    x: (..., V) -> y: (..., V), every row >= 0 and summing to 1.
    y_i = exp(x_i - max x) / sum_j exp(x_j - max x);   dx_i = y_i (dy_i - sum_j dy_j y_j)

    Why subtract the max? exp(100) is beyond float32. A constant added to all scores cancels in the
    quotient, so the greatest may as well be 0, and nothing overflows. A score of -inf gives
    probability 0; a row of nothing else NaN.
    """
    last_axis("softmax", x)
    if axis not in (-1, x.ndim - 1):
        return softmax(x.swapaxes(axis, -1)).swapaxes(axis, -1)
    y = softmax_forward(floats(x))

    def backward(dy):
        return (softmax_backward(dy, y),)

    return Tensor.from_op(y, (x,), backward)


@compiled("softmax")
def softmax_forward(x: np.ndarray) -> np.ndarray:
    """x: (..., V) -> y: (..., V)."""
    e = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return e / total(e, axis=-1, keepdims=True)


@compiled("softmax")
def softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy, y: (..., V) -> dx: (..., V)."""
    return y * (dy - total(dy * y, axis=-1, keepdims=True))  # one score that rises lowers all other probabilities


def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """The logarithm of softmax, without taking the logarithm of a tiny number.

    x: (..., V) -> y: (..., V), every entry <= 0.
    y_i = x_i - max x - log sum_j exp(x_j - max x);   dx_i = dy_i - softmax(x)_i sum_j dy_j
    """
    last_axis("log_softmax", x)
    if axis not in (-1, x.ndim - 1):
        return log_softmax(x.swapaxes(axis, -1)).swapaxes(axis, -1)
    y = log_softmax_forward(floats(x))

    def backward(dy):
        return (log_softmax_backward(dy, y),)

    return Tensor.from_op(y, (x,), backward)


@compiled("softmax")
def log_softmax_forward(x: np.ndarray) -> np.ndarray:
    """x: (..., V) -> y: (..., V)."""
    z = x - x.max(axis=-1, keepdims=True, initial=-np.inf)
    return z - np.log(total(np.exp(z), axis=-1, keepdims=True))


@compiled("softmax")
def log_softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy, y: (..., V) -> dx: (..., V)."""
    return dy - np.exp(y) * total(dy, axis=-1, keepdims=True)


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
    """y = x where x > 0, else alpha (e^x - 1);   dx = dy, or dy alpha e^x.   (...) -> (...)
    (Clevert et al. 2015)
    """
    a = floats(x)
    with np.errstate(under="ignore"):
        below = a.dtype.type(alpha) * np.expm1(np.minimum(a, 0))

    def backward(dy):
        with np.errstate(under="ignore"):
            return (dy * np.where(a <= 0, below + dy.dtype.type(alpha), dy.dtype.type(1)),)

    return Tensor.from_op(np.where(a <= 0, below, a), (x,), backward)


def softplus(x: Tensor) -> Tensor:
    """y = ln(1 + e^x), a relu without the corner;   dx = dy sigmoid(x).   (...) -> (...)"""
    a = floats(x)

    def backward(dy):
        with np.errstate(under="ignore"):
            return (dy * sigmoid_forward(a),)

    with np.errstate(under="ignore"):
        return Tensor.from_op(np.logaddexp(a, a.dtype.type(0)), (x,), backward)
