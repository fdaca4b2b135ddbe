"""Activations: gelu, silu, sigmoid, tanh, and the gated pair of Llama, swiglu.

Each forward is a formula for one number, and a loop that LLVM turns into vector instructions (eight float32 at a time)
and Numba shares between threads. A backward takes ``dy``, the gradient of the output, and returns the gradient of the
input; it recomputes what it needs from ``x`` rather than keeping it: reading an array costs more than these formulas.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._jit import JIT, as_rows, by_dtype, contiguous, exp, f32, jit, kernel, like, prange, sigmoid, tanh

_SERIAL = 1 << 14  # below so many numbers one thread is done before a second one has woken up

_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_GELU_CUBIC = 0.044715
_SQRT_HALF = math.sqrt(0.5)
_INV_SQRT_2PI = 1 / math.sqrt(2 * math.pi)


def _map1(loop: Any, x: np.ndarray) -> np.ndarray:
    """y = loop(x), element by element, whatever the shape."""
    x = contiguous(x)
    y = np.empty(x.shape, x.dtype)
    loop(x.reshape(-1), y.reshape(-1))
    return y


def _map2(loop: Any, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dx = loop(dy, x), element by element; dy has the shape of x."""
    x = contiguous(x)
    dy = contiguous(dy, x.dtype)
    dx = np.empty(x.shape, x.dtype)
    loop(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return dx


# ---- sigmoid, tanh ---------------------------------------------------------------------------------------------------


def sigmoid_forward_numpy(x: np.ndarray) -> np.ndarray:
    """y = 1 / (1 + e^-x), written so that nothing overflows.   x, y: any shape."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e).astype(x.dtype) / (1 + e)


@jit(parallel=True)
def _sigmoid_loop(x, y):
    if x.size < _SERIAL:
        for i in range(x.size):
            y[i] = sigmoid(x[i])
    else:
        for i in prange(x.size):
            y[i] = sigmoid(x[i])


@kernel(twin=sigmoid_forward_numpy)
def sigmoid_forward(x: np.ndarray) -> np.ndarray:  # noqa: D103
    return _map1(_sigmoid_loop, x)


def sigmoid_backward_numpy(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dx = dy y (1 - y), from the output y.   dy, y, dx: any one shape."""
    return dy * y * (1 - y)


@jit(parallel=True)
def _sigmoid_backward_loop(dy, y, dx):
    one = like(y, 1)
    if y.size < _SERIAL:
        for i in range(y.size):
            dx[i] = dy[i] * y[i] * (one - y[i])
    else:
        for i in prange(y.size):
            dx[i] = dy[i] * y[i] * (one - y[i])


@kernel(twin=sigmoid_backward_numpy)
def sigmoid_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: D103
    return _map2(_sigmoid_backward_loop, dy, y)


def tanh_forward_numpy(x: np.ndarray) -> np.ndarray:
    """y = tanh x.   x, y: any shape."""
    return np.tanh(x)


@jit(parallel=True)
def _tanh_loop(x, y):
    if x.size < _SERIAL:
        for i in range(x.size):
            y[i] = tanh(x[i])
    else:
        for i in prange(x.size):
            y[i] = tanh(x[i])


@kernel(twin=tanh_forward_numpy)
def tanh_forward(x: np.ndarray) -> np.ndarray:  # noqa: D103
    return _map1(_tanh_loop, x)


def tanh_backward_numpy(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dx = dy (1 - y^2), from the output y.   dy, y, dx: any one shape."""
    return dy * (1 - y * y)


@jit(parallel=True)
def _tanh_backward_loop(dy, y, dx):
    one = like(y, 1)
    if y.size < _SERIAL:
        for i in range(y.size):
            dx[i] = dy[i] * (one - y[i] * y[i])
    else:
        for i in prange(y.size):
            dx[i] = dy[i] * (one - y[i] * y[i])


@kernel(twin=tanh_backward_numpy)
def tanh_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: D103
    return _map2(_tanh_backward_loop, dy, y)


# ---- gelu ------------------------------------------------------------------------------------------------------------
# x times the probability that a standard normal variable is below x (Hendrycks and Gimpel, 2016). GPT-2 uses the tanh
# form, an approximation of the normal distribution that was cheaper than erf.


def gelu_forward_numpy(x: np.ndarray, exact: bool = False) -> np.ndarray:
    """Gaussian error linear unit.   x, y: any shape.

    y = x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), or if ``exact``  y = x/2 (1 + erf(x / sqrt 2)).
    """
    if exact:
        return (0.5 * x * (1 + _erf_numpy(x * _SQRT_HALF))).astype(x.dtype)
    return 0.5 * x * (1 + np.tanh(_SQRT_2_OVER_PI * (x + _GELU_CUBIC * x**3)))


_erf_numpy = np.vectorize(math.erf, otypes=[float])


@jit(inline=True, inner=True)
def _gelu(x):
    # (1 + tanh u) / 2 = sigmoid(2u), which does not cancel where tanh u is near -1
    return x * sigmoid(like(x, 2 * _SQRT_2_OVER_PI) * (x + like(x, _GELU_CUBIC) * x * x * x))


@jit(inline=True, inner=True)
def _normal32(x):
    # The tail beyond |x| is e^(-x^2/2) P(t), t = 1 / (1 + 0.35 |x| / sqrt 2), the form of Hastings (1955) with P fitted
    # anew: at most 5e-8 off. One exponential serves both numbers: 1.6 times as fast as erf and exp apart.
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


@jit(parallel=True)
def _gelu_loop(x, y):
    if x.size < _SERIAL:
        for i in range(x.size):
            y[i] = _gelu(x[i])
    else:
        for i in prange(x.size):
            y[i] = _gelu(x[i])


@jit(parallel=True)
def _gelu_exact_loop(x, y):
    if x.size < _SERIAL:
        for i in range(x.size):
            y[i] = _gelu_exact(x[i])
    else:
        for i in prange(x.size):
            y[i] = _gelu_exact(x[i])


@kernel(twin=gelu_forward_numpy)
def gelu_forward(x: np.ndarray, exact: bool = False) -> np.ndarray:  # noqa: D103
    return _map1(_gelu_exact_loop if exact else _gelu_loop, x)


def gelu_backward_numpy(dy: np.ndarray, x: np.ndarray, exact: bool = False) -> np.ndarray:
    """Gradient of gelu.   dy, x, dx: any one shape.

    y = x P(x)  ->  dx = dy (P(x) + x P'(x)),  P the distribution that the form of gelu uses.
    """
    if exact:
        below = 0.5 * (1 + _erf_numpy(x * _SQRT_HALF))
        return (dy * (below + x * _INV_SQRT_2PI * np.exp(-0.5 * x * x))).astype(x.dtype)
    t = np.tanh(_SQRT_2_OVER_PI * (x + _GELU_CUBIC * x**3))
    slope = _SQRT_2_OVER_PI * (1 + 3 * _GELU_CUBIC * x**2)
    return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)


@jit(inline=True, inner=True)
def _gelu_and_slope(x):
    s = sigmoid(like(x, 2 * _SQRT_2_OVER_PI) * (x + like(x, _GELU_CUBIC) * x * x * x))
    inner = like(x, 2 * _SQRT_2_OVER_PI) + like(x, 6 * _SQRT_2_OVER_PI * _GELU_CUBIC) * x * x
    return x * s, s + x * s * (like(x, 1) - s) * inner


@jit(inline=True, inner=True)
def _gelu_exact_and_slope(x):
    below, density = _normal(x)
    return x * below, below + x * density


@jit(parallel=True)
def _gelu_backward_loop(dy, x, dx):
    if x.size < _SERIAL:
        for i in range(x.size):
            dx[i] = dy[i] * _gelu_and_slope(x[i])[1]
    else:
        for i in prange(x.size):
            dx[i] = dy[i] * _gelu_and_slope(x[i])[1]


@jit(parallel=True)
def _gelu_exact_backward_loop(dy, x, dx):
    if x.size < _SERIAL:
        for i in range(x.size):
            dx[i] = dy[i] * _gelu_exact_and_slope(x[i])[1]
    else:
        for i in prange(x.size):
            dx[i] = dy[i] * _gelu_exact_and_slope(x[i])[1]


@kernel(twin=gelu_backward_numpy)
def gelu_backward(dy: np.ndarray, x: np.ndarray, exact: bool = False) -> np.ndarray:  # noqa: D103
    return _map2(_gelu_exact_backward_loop if exact else _gelu_backward_loop, dy, x)


# ---- silu and swiglu -------------------------------------------------------------------------------------------------


def silu_forward_numpy(x: np.ndarray) -> np.ndarray:
    """Sigmoid linear unit: y = x sigmoid(x).   x, y: any shape."""
    return x * sigmoid_forward_numpy(x)


@jit(parallel=True)
def _silu_loop(x, y):
    if x.size < _SERIAL:
        for i in range(x.size):
            y[i] = x[i] * sigmoid(x[i])
    else:
        for i in prange(x.size):
            y[i] = x[i] * sigmoid(x[i])


@kernel(twin=silu_forward_numpy)
def silu_forward(x: np.ndarray) -> np.ndarray:  # noqa: D103
    return _map1(_silu_loop, x)


def silu_backward_numpy(dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """y = x s, s = sigmoid(x)  ->  dx = dy (s + x s (1 - s)).   dy, x, dx: any one shape."""
    s = sigmoid_forward_numpy(x)
    return dy * (s + x * s * (1 - s))


@jit(inline=True, inner=True)
def _silu_slope(x):
    s = sigmoid(x)
    return s + x * s * (like(x, 1) - s)


@jit(parallel=True)
def _silu_backward_loop(dy, x, dx):
    if x.size < _SERIAL:
        for i in range(x.size):
            dx[i] = dy[i] * _silu_slope(x[i])
    else:
        for i in prange(x.size):
            dx[i] = dy[i] * _silu_slope(x[i])


@kernel(twin=silu_backward_numpy)
def silu_backward(dy: np.ndarray, x: np.ndarray) -> np.ndarray:  # noqa: D103
    return _map2(_silu_backward_loop, dy, x)


def swiglu_forward_numpy(gate_up: np.ndarray) -> np.ndarray:
    """The gated activation of Llama: h = silu(gate) * up (Shazeer, "GLU variants improve transformer", 2020).

    gate_up: (..., 2 I) = [gate | up], as one matrix product makes them -> h: (..., I)
    """
    gate, up = np.split(gate_up, 2, axis=-1)
    return silu_forward_numpy(gate) * up


@jit(inner=True)
def _swiglu_row(gate, up, h):
    for j in range(h.size):
        h[j] = gate[j] * sigmoid(gate[j]) * up[j]


@jit(parallel=True)
def _swiglu_rows(gate_up, h):
    width = h.shape[1]
    if h.size < _SERIAL:
        for n in range(h.shape[0]):
            _swiglu_row(gate_up[n, :width], gate_up[n, width:], h[n])
    else:
        for n in prange(h.shape[0]):
            _swiglu_row(gate_up[n, :width], gate_up[n, width:], h[n])


@kernel(twin=swiglu_forward_numpy)
def swiglu_forward(gate_up: np.ndarray) -> np.ndarray:  # noqa: D103
    gate_up = contiguous(gate_up)
    h = np.empty((*gate_up.shape[:-1], gate_up.shape[-1] // 2), gate_up.dtype)
    _swiglu_rows(as_rows(gate_up), as_rows(h))
    return h


def swiglu_backward_numpy(dh: np.ndarray, gate_up: np.ndarray) -> np.ndarray:
    """h = silu(gate) * up  ->  dgate = dh * up * silu'(gate), dup = dh * silu(gate).

    dh: (..., I), gate_up: (..., 2 I) -> dgate_up: (..., 2 I)
    """
    gate, up = np.split(gate_up, 2, axis=-1)
    return np.concatenate([silu_backward_numpy(dh * up, gate), dh * silu_forward_numpy(gate)], axis=-1)


@jit(inner=True)
def _swiglu_backward_row(dh, gate, up, dgate, dup):
    for j in range(dh.size):
        s = sigmoid(gate[j])
        silu = gate[j] * s
        dgate[j] = dh[j] * up[j] * (s + silu * (like(dh, 1) - s))
        dup[j] = dh[j] * silu


@jit(parallel=True)
def _swiglu_backward_rows(dh, gate_up, dgate_up):
    width = dh.shape[1]
    if dh.size < _SERIAL:
        for n in range(dh.shape[0]):
            gate, up = gate_up[n, :width], gate_up[n, width:]
            _swiglu_backward_row(dh[n], gate, up, dgate_up[n, :width], dgate_up[n, width:])
    else:
        for n in prange(dh.shape[0]):
            gate, up = gate_up[n, :width], gate_up[n, width:]
            _swiglu_backward_row(dh[n], gate, up, dgate_up[n, :width], dgate_up[n, width:])


@kernel(twin=swiglu_backward_numpy)
def swiglu_backward(dh: np.ndarray, gate_up: np.ndarray) -> np.ndarray:  # noqa: D103
    gate_up = contiguous(gate_up)
    dh = contiguous(dh, gate_up.dtype)
    dgate_up = np.empty(gate_up.shape, gate_up.dtype)
    _swiglu_backward_rows(as_rows(dh), as_rows(gate_up), as_rows(dgate_up))
    return dgate_up
