"""What loops over rows share: one text for one thread and for many, and sums that do not stand
still.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np

from ._jit import jit, prange
from .layout import as_rows, contiguous


class Loop:
    """A loop compiled from one text for one thread and for many: without threads ``prange`` is
    ``range``.

    Below ``few`` numbers one thread is done before a second one has woken up. Their count alone
    decides, so the result is the same for any number of threads.
    """

    def __init__(self, function: Any, few: int) -> None:
        alone = FunctionType(function.__code__, function.__globals__, f"{function.__name__}_alone")
        alone.__qualname__ = alone.__name__  # Numba's cache tells the two programs apart by their names
        self.few, self.alone, self.parallel = few, jit(alone), jit(function, parallel=True)

    def __call__(self, size: int, *arguments: object) -> None:
        (self.alone if size < self.few else self.parallel)(*arguments)


def loop(few: int) -> Callable[[Any], Loop]:
    """Make a `Loop` of a function."""
    return lambda function: Loop(function, few)


def by_entries(loop: Loop, *arrays: np.ndarray) -> np.ndarray:
    """The array that ``loop(*arrays, y)`` fills, entry by entry: all are of one shape, whatever
    that is.
    """
    like = contiguous(arrays[-1])
    y = np.empty(like.shape, like.dtype)
    loop(y.size, *[contiguous(x, y.dtype).reshape(-1) for x in arrays[:-1]], like.reshape(-1), y.reshape(-1))
    return y


def by_rows(loop: Loop, *arrays: np.ndarray) -> np.ndarray:
    """The array that ``loop(*arrays, y)`` fills, row by row: all are (..., V)."""
    like = contiguous(arrays[-1])
    y = np.empty(like.shape, like.dtype)
    loop(y.size, *[as_rows(contiguous(x, y.dtype)) for x in arrays[:-1]], as_rows(like), as_rows(y))
    return y


# ---- sums of rows --------------------------------------------------------------------------------
# From 16,777,216 on float32 cannot count one by one, and long before that its sums lose digits. So
# a few rows at a time are added in their own dtype, and these sums in float64.

_FEW_ROWS = 256


@jit(inner=True)
def _add_few_rows(x, y):
    # y_j += sum_i x_ij, four rows at a time, so that y is read and written once for all of them
    fours = x.shape[0] // 4 * 4
    for i in range(0, fours, 4):
        a, b, c, d = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(y.size):
            y[j] += (a[j] + b[j]) + (c[j] + d[j])
    for i in range(fours, x.shape[0]):
        row = x[i]
        for j in range(y.size):
            y[j] += row[j]


@jit(inner=True)
def add_rows(x, y):
    """y_j += sum_i x_ij for y in float64 (for kernels)."""
    some = np.empty(y.size, x.dtype)
    for i in range(0, x.shape[0], _FEW_ROWS):
        some[:] = 0
        _add_few_rows(x[i : i + _FEW_ROWS], some)
        for j in range(y.size):
            y[j] += some[j]


@jit(inner=True)
def sum_parts(parts, y):
    """y_j = sum_p parts_pj for partial sums in float64, in their order (for kernels)."""
    for j in range(y.size):
        total = 0.0
        for p in range(parts.shape[0]):
            total += parts[p, j]
        y[j] = total


@jit(parallel=True)
def _sum_rows(x, sums, y):
    # each task adds rows that follow each other in memory; to share the columns out took 2.5 times
    # as long
    parts = sums.shape[0]
    for part in prange(parts):
        sums[part] = 0
        add_rows(x[part * x.shape[0] // parts : (part + 1) * x.shape[0] // parts], sums[part])
    sum_parts(sums, y)


def sum_rows(x: np.ndarray) -> np.ndarray:
    """y_j = sum_i x_ij.   x: (N, C) -> (C,)."""
    x = contiguous(x)
    y = np.empty(x.shape[1], x.dtype)
    _sum_rows(x, np.empty((1 if x.size < 1 << 15 else 8, y.size)), y)
    return y


@jit(inner=True)
def copy_rows(x, x_row, y, y_row, rows, cols):
    """y = x for ``rows`` rows of ``cols`` numbers in flat arrays, x_row and y_row apart (for
    kernels).
    """
    # a loop, for an assignment of slices brings Numba's text of an error along: 1.7 seconds of
    # compilation
    for i in range(rows):
        from_row, to_row = x[i * x_row : i * x_row + cols], y[i * y_row : i * y_row + cols]
        for j in range(cols):
            to_row[j] = from_row[j]
