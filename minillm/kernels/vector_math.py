"""exp, tanh, sigmoid, erf and a row's maximum that vectorise, for use inside kernels.

LLVM has no vector form of them, and calling the C library costs 4 ns an element. In float32 a
polynomial costs 0.2 to 0.45 ns and is right to 1.4 ulp (sigmoid 2.5); in float64 (gradient checks)
the C library's functions serve.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import types
from numba.extending import overload

from ._jit import JIT, jit

f32 = np.float32
_LOG2E = f32(1.44269504)
_LN2_HI, _LN2_LO = f32(0.693359375), f32(-2.12194440e-4)  # ln 2 in two parts, so that n * ln2_hi is exact
_ROUND = f32(1.5 * 2**23)


@jit(reorder=False, inline=True, inner=True)
def _exp32(x):
    # x = n ln 2 + r, |r| <= ln 2 / 2  ->  e^x = 2^n e^r; a polynomial for e^r, whose exponent bits
    # then grow by n. Added to 1.5 * 2^23, where floats have no fraction, a number is rounded and
    # stands as an integer in the last bits.
    shifted = x * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = (x - n * _LN2_HI) - n * _LN2_LO
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    p = p * r + f32(1)
    p = p * r + f32(1)
    # subtle: Numba widens int32 arithmetic to int64, half as many in a vector, unless cast back
    # each time
    exponent = np.int32(np.float32(shifted).view(np.int32) << np.int32(23))
    y = np.int32(np.float32(p).view(np.int32) + exponent).view(np.float32)
    y = f32(0) if x < f32(-87.33654) else y  # below the smallest normal number
    return y if x <= f32(88.72283) else x + f32(np.inf)  # beyond the largest; and NaN stays NaN


@jit(reorder=False, inline=True, inner=True)
def _tanh32(x):
    # near 0 a polynomial keeps the relative precision that 1 - 2 / (e^2x + 1) would lose to
    # cancellation
    z = x * x
    p = f32(-5.70498872745e-3)
    p = p * z + f32(2.06390887954e-2)
    p = p * z + f32(-5.37397155531e-2)
    p = p * z + f32(1.33314422036e-1)
    p = p * z + f32(-3.33332819422e-1)
    small = x + x * z * p
    a = abs(x)
    large = f32(1) - f32(2) / (_exp32(a + a) + f32(1))
    return small if a < f32(0.625) else (large if x > f32(0) else (-large if x < f32(0) else x))


@jit(reorder=False, inline=True, inner=True)
def _sigmoid32(x):
    return f32(1) / (f32(1) + _exp32(-x))  # where e^-x is infinite, 0


@jit(reorder=False, inline=True, inner=True)
def _erf32(x):
    # near 0 x (1 + P(x^2)), farther out 1 - e^Q(|x|), Q fitted to log erfc; from |x| = 4 on erf is
    # 1 in float32
    a = min(abs(x), f32(4))
    z = a * a
    p = f32(-6.09035487e-4)
    p = p * z + f32(5.01196180e-3)
    p = p * z + f32(-2.67789084e-2)
    p = p * z + f32(1.12821408e-1)
    p = p * z + f32(-3.76125246e-1)
    p = p * z + f32(1.28379151e-1)
    q = f32(1.97181842e-4)
    q = q * a + f32(-3.05560860e-3)
    q = q * a + f32(2.22770907e-2)
    q = q * a + f32(-1.04037367e-1)
    q = q * a + f32(-6.37059748e-1)
    q = q * a + f32(-1.12774956)
    q = q * a + f32(-1.77493115e-4)
    y = a + a * p if a < f32(0.9) else f32(1) - _exp32(q)
    y = -y if x < f32(0) else y
    return x if x != x else y


def by_dtype(name: str, float32_version: Callable, python_version: Callable) -> Callable:
    """A function for use inside kernels: the fast one for float32, the C library's for float64."""

    def function(x):
        return python_version(x)

    function.__name__ = function.__qualname__ = name

    @overload(function, jit_options={"forceinline": True})
    def choose(x):
        if x == types.float32:
            return lambda x: float32_version(x)
        return lambda x: python_version(x)

    return function


@jit(inner=True)
def _sigmoid64(x):
    e = math.exp(-abs(x))
    return (1.0 if x >= 0 else e) / (1.0 + e)


def like(x, value):
    """``value`` in the dtype of ``x`` (a number or an array): inside kernels a float32 times 0.5
    would be a float64.
    """
    return x.dtype.type(value)


@overload(like)
def _choose_like(x, value):
    if getattr(x, "dtype", x) == types.float32:
        return lambda x, value: np.float32(value)
    return lambda x, value: np.float64(value)


@jit(inner=True)
def _row_max32(x):
    # LLVM does not vectorise a maximum of floats, which NaN would spoil, but it does one of
    # integers. The bits of positive floats are in the order of the floats; those of negative ones
    # are, once all but the sign are flipped.
    sign_bit, rest = np.int32(31), np.int32(0x7FFFFFFF)
    bits = x.view(np.int32)
    top = np.int32(-0x80000000)
    for j in range(bits.size):
        top = max(top, np.int32(bits[j] ^ np.int32(np.int32(bits[j] >> sign_bit) & rest)))
    return np.int32(top ^ np.int32(np.int32(top >> sign_bit) & rest)).view(np.float32)


@jit
def _row_max64(x):
    top = -np.inf
    for j in range(x.size):
        top = max(top, x[j])
    return top


def row_max(x):
    """The largest of a row (for kernels). Where the row holds NaN: NaN or a number, so let NaN come
    through the sum.
    """
    return np.max(x, initial=-np.inf)


@overload(row_max)
def _choose_row_max(x):
    row_max_of_dtype = _row_max32 if x.dtype == types.float32 else _row_max64
    return lambda x: row_max_of_dtype(x)


exp = by_dtype("exp", _exp32, math.exp) if JIT else np.exp
tanh = by_dtype("tanh", _tanh32, math.tanh) if JIT else np.tanh
erf = by_dtype("erf", _erf32, math.erf) if JIT else math.erf
sigmoid = by_dtype("sigmoid", _sigmoid32, _sigmoid64) if JIT else _sigmoid64
