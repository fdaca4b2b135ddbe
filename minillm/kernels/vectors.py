"""One row of numbers at a time (for kernels): the loops of a few lines that LLVM turns into vector
instructions.
"""

from __future__ import annotations

from ._jit import jit
from .vector_math import exp, like


@jit(inner=True)
def fill(x, value):
    """x = value."""
    for i in range(x.size):
        x[i] = value


@jit(inner=True)
def copy(x, y):
    """y = x, of the length of x; y may go on."""
    for i in range(x.size):
        y[i] = x[i]


@jit(reorder=False, inner=True)
def scale_by(x, factor):
    """x = factor x. (With leave to reorder, LLVM divides each by n where the factor is 1 / n.)"""
    for i in range(x.size):
        x[i] *= factor


@jit(inner=True)
def scaled(x, factor, y):
    """y = factor x."""
    for i in range(x.size):
        y[i] = x[i] * factor


@jit(inner=True)
def add_scaled(factor, x, y):
    """y = y + factor x."""
    for i in range(x.size):
        y[i] += factor * x[i]


@jit(inner=True)
def subtract(x, value):
    """x = x - value."""
    for i in range(x.size):
        x[i] -= value


@jit(inner=True)
def sum_of(x):
    """The sum of x."""
    y = like(x, 0)
    for i in range(x.size):
        y += x[i]
    return y


@jit(inner=True)
def dot(x, y):
    """The sum of x y."""
    z = like(x, 0)
    for i in range(x.size):
        z += x[i] * y[i]
    return z


@jit(inner=True)
def exponentials(x):
    """x = e^x."""
    for i in range(x.size):
        x[i] = exp(x[i])
