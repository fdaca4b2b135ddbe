"""The activations of functional/activations.py: a formula for one number, and loops that LLVM turns
into vectors.
"""

from __future__ import annotations

import math

import numpy as np

from ._jit import JIT, jit, prange
from .rows import by_entries, loop
from .vector_math import by_dtype, exp, f32, like, sigmoid

_FEW = 1 << 14
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715
_SQRT_HALF = math.sqrt(0.5)
_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


# ---- sigmoid -------------------------------------------------------------------------------------


@loop(_FEW)
def _sigmoid(x, y):
    for i in prange(x.size):
        y[i] = sigmoid(x[i])


def sigmoid_forward(x: np.ndarray) -> np.ndarray:
    """See functional/activations.py."""
    return by_entries(_sigmoid, x)


@loop(_FEW)
def _sigmoid_backward(dy, y, dx):
    for i in prange(y.size):
        dx[i] = dy[i] * y[i] * (like(y, 1) - y[i])


def sigmoid_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """See functional/activations.py."""
    return by_entries(_sigmoid_backward, dy, y)


# ---- gelu ----------------------------------------------------------------------------------------


@jit(inline=True, inner=True)
def _gelu(x):
    # (1 + tanh u) / 2 = sigmoid(2u), which does not cancel where tanh u is near -1
    return x * sigmoid(like(x, 2 * _SQRT_2_OVER_PI) * (x + like(x, _GELU_CUBIC) * x * x * x))


@jit(inline=True, inner=True)
def _gelu_slope(x):
    s = sigmoid(like(x, 2 * _SQRT_2_OVER_PI) * (x + like(x, _GELU_CUBIC) * x * x * x))
    inner = like(x, 2 * _SQRT_2_OVER_PI) + like(x, 6 * _SQRT_2_OVER_PI * _GELU_CUBIC) * x * x
    return s + x * s * (like(x, 1) - s) * inner


@jit(inline=True, inner=True)
def _normal32(x):
    # The tail beyond |x| is e^(-x^2/2) P(t), t = 1 / (1 + 0.35 |x| / sqrt 2), the form of Hastings
    # (1955) with P fitted anew: at most 5e-8 off. One exponential serves both numbers: 1.6 times as
    # fast as erf and exp apart.
    bell = exp(f32(-0.5) * x * x)
    t = f32(1) / (f32(1) + f32(0.35 * _SQRT_HALF) * abs(x))
    p = f32(-0.187927929)
    p = p * t + f32(0.728036153)
    p = p * t + f32(-0.600924984)
    p = p * t + f32(0.610070869)
    p = p * t + f32(0.0294328327)
    p = p * t + f32(0.225955711)
    p = p * t + f32(0.195357392)
    tail = f32(0.5) * bell * p * t
    return (tail if x < f32(0) else f32(1) - tail), f32(_INV_SQRT_2PI) * bell


@jit(inner=True)
def _normal64(x):
    return 0.5 * math.erfc(-x * _SQRT_HALF), _INV_SQRT_2PI * math.exp(-0.5 * x * x)


# (how likely a standard normal variable is below x, its density at x)
_normal = by_dtype("_normal", _normal32, _normal64) if JIT else _normal64


@jit(inline=True, inner=True)
def _gelu_exact(x):
    below, _ = _normal(x)
    return x * below


@jit(inline=True, inner=True)
def _gelu_exact_slope(x):
    below, density = _normal(x)
    return below + x * density


@loop(_FEW)
def _gelu_tanh_entries(x, y):
    for i in prange(x.size):
        y[i] = _gelu(x[i])


@loop(_FEW)
def _gelu_exact_entries(x, y):
    for i in prange(x.size):
        y[i] = _gelu_exact(x[i])


def gelu_forward(x: np.ndarray, exact: bool) -> np.ndarray:
    """See functional/activations.py."""
    return by_entries(_gelu_exact_entries if exact else _gelu_tanh_entries, x)


@loop(_FEW)
def _gelu_tanh_backward(dy, x, dx):
    for i in prange(x.size):
        dx[i] = dy[i] * _gelu_slope(x[i])


@loop(_FEW)
def _gelu_exact_backward(dy, x, dx):
    for i in prange(x.size):
        dx[i] = dy[i] * _gelu_exact_slope(x[i])


def gelu_backward(dy: np.ndarray, x: np.ndarray, exact: bool) -> np.ndarray:
    """See functional/activations.py."""
    return by_entries(_gelu_exact_backward if exact else _gelu_tanh_backward, dy, x)


# ---- silu ----------------------------------------------------------------------------------------


@loop(_FEW)
def _silu(x, y):
    for i in prange(x.size):
        y[i] = x[i] * sigmoid(x[i])


def silu_forward(x: np.ndarray) -> np.ndarray:
    """See functional/activations.py."""
    return by_entries(_silu, x)


@loop(_FEW)
def _silu_backward(dy, x, dx):
    for i in prange(x.size):
        s = sigmoid(x[i])
        dx[i] = dy[i] * (s + x[i] * s * (like(x, 1) - s))


def silu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """See functional/activations.py."""
    return by_entries(_silu_backward, dy, x)


@jit(inner=True)
def _swiglu_row(gate, up, h):
    # h = silu(gate) up, of one token (for kernels)
    for j in range(h.size):
        h[j] = gate[j] * sigmoid(gate[j]) * up[j]
