"""Layer norm and RMS norm, row by row: each row is measured and scaled while it is in the nearest
cache.

A backward also sums the gradients of ``weight`` and ``bias`` over all rows. Threads that added into
one shared array would race, so the rows are cut into blocks, by their number alone: each block has
its own partial sums, and these are added in order. The result is the same, bit for bit, whatever
the number of threads.

Nor does it depend on where the arrays lie. LLVM makes no vectors of a loop that writes just behind
what it reads, as it may where rows are short, and then rounds otherwise. So no loop both adds up a
row and writes one, and what is written is computed in the order of the text.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit, prange
from .layout import as_rows, contiguous
from .rows import add_rows, loop
from .vector_math import like

_FEW = 1 << 13
_BLOCKS, _MOST_ROWS = 16, 1024  # blocks of rows in a backward; more of them where a block would have more rows


def _alike(*arrays: np.ndarray) -> list[np.ndarray]:
    """The arrays contiguous and in one dtype, float64 if any is."""
    dtype = np.result_type(*arrays)
    return [contiguous(x, dtype) for x in arrays]


def _blocks_of(rows: int) -> int:
    return min(rows, max(_BLOCKS, -(-rows // _MOST_ROWS)))


# ---- layer norm ----------------------------------------------------------------------------------


@jit(inner=True)
def _layer_norm_row(x, weight, bias, eps, y):
    total, squares = like(x, 0), like(x, 0)
    for j in range(x.size):
        total += x[j]
    mean = total / like(x, x.size)
    for j in range(x.size):
        squares += (x[j] - mean) * (x[j] - mean)
    rstd = like(x, 1) / np.sqrt(squares / like(x, x.size) + eps)
    for j in range(x.size):
        y[j] = (x[j] - mean) * rstd * weight[j] + bias[j]
    return mean, rstd


@loop(_FEW)
def _layer_norm(x, weight, bias, eps, y, mean, rstd):
    for n in prange(x.shape[0]):
        mean[n], rstd[n] = _layer_norm_row(x[n], weight, bias, eps, y[n])


def layer_norm_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See functional/norm.py."""
    x, weight, bias = _alike(x, weight, bias)
    y, (mean, rstd) = np.empty(x.shape, x.dtype), (np.empty((*x.shape[:-1], 1), x.dtype) for _ in range(2))
    eps = x.dtype.type(eps)
    _layer_norm(x.size, as_rows(x), weight, bias, eps, as_rows(y), mean.reshape(-1), rstd.reshape(-1))
    return y, mean, rstd


@jit(reorder=False, inner=True)
def _layer_norm_dx(dy, x, weight, mean, rstd, total, along, dx):
    for j in range(x.size):
        dx[j] = rstd * (dy[j] * weight[j] - total - (x[j] - mean) * rstd * along)


@jit(inner=True)
def _layer_norm_backward_row(dy, x, weight, mean, rstd, dx, dweight, dbias):
    total, along = like(x, 0), like(x, 0)
    for j in range(x.size):
        total += dy[j] * weight[j]
        along += dy[j] * weight[j] * ((x[j] - mean) * rstd)
    for j in range(x.size):
        dweight[j] += dy[j] * ((x[j] - mean) * rstd)
        dbias[j] += dy[j]
    total /= like(x, x.size)
    along /= like(x, x.size)
    _layer_norm_dx(dy, x, weight, mean, rstd, total, along, dx)


@jit(parallel=True)
def _layer_norm_backward(dy, x, weight, mean, rstd, dx, partial, sums):
    # partial: (blocks, 2 C), dweight and dbias of each block; sums: (2 C,), both of all
    (n_rows, width), blocks = x.shape, partial.shape[0]
    for b in prange(blocks):
        dweight, dbias = partial[b, :width], partial[b, width:]
        dweight[:], dbias[:] = like(x, 0), like(x, 0)
        for n in range(b * n_rows // blocks, (b + 1) * n_rows // blocks):
            _layer_norm_backward_row(dy[n], x[n], weight, mean[n], rstd[n], dx[n], dweight, dbias)
    add_rows(partial, sums)


def layer_norm_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, rstd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See functional/norm.py."""
    dy, x, weight, mean, rstd = _alike(dy, x, weight, mean, rstd)
    dx, rows, width = np.empty(x.shape, x.dtype), as_rows(x), x.shape[-1]
    partial, sums = np.empty((_blocks_of(len(rows)), 2 * width), x.dtype), np.zeros(2 * width)
    _layer_norm_backward(as_rows(dy), rows, weight, mean.reshape(-1), rstd.reshape(-1), as_rows(dx), partial, sums)
    return dx, sums[:width].astype(x.dtype), sums[width:].astype(x.dtype)


# ---- RMS norm ------------------------------------------------------------------------------------


@jit(inner=True)
def _rms_norm_row(x, weight, eps, y):
    squares = like(x, 0)
    for j in range(x.size):
        squares += x[j] * x[j]
    rstd = like(x, 1) / np.sqrt(squares / like(x, x.size) + eps)
    for j in range(x.size):
        y[j] = x[j] * rstd * weight[j]
    return rstd


@loop(_FEW)
def _rms_norm(x, weight, eps, y, rstd):
    for n in prange(x.shape[0]):
        rstd[n] = _rms_norm_row(x[n], weight, eps, y[n])


def rms_norm_forward(x: np.ndarray, weight: np.ndarray, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """See functional/norm.py."""
    x, weight = _alike(x, weight)
    y, rstd = np.empty(x.shape, x.dtype), np.empty((*x.shape[:-1], 1), x.dtype)
    _rms_norm(x.size, as_rows(x), weight, x.dtype.type(eps), as_rows(y), rstd.reshape(-1))
    return y, rstd


@jit(reorder=False, inner=True)
def _rms_norm_dx(dy, x, weight, rstd, along, dx):
    for j in range(x.size):
        dx[j] = rstd * (dy[j] * weight[j] - x[j] * rstd * along)


@jit(inner=True)
def _rms_norm_backward_row(dy, x, weight, rstd, dx, dweight):
    along = like(x, 0)
    for j in range(x.size):
        along += dy[j] * weight[j] * (x[j] * rstd)
    for j in range(x.size):
        dweight[j] += dy[j] * (x[j] * rstd)
    along /= like(x, x.size)
    _rms_norm_dx(dy, x, weight, rstd, along, dx)


@jit(parallel=True)
def _rms_norm_backward(dy, x, weight, rstd, dx, partial, sums):
    n_rows, blocks = x.shape[0], partial.shape[0]
    for b in prange(blocks):
        dweight = partial[b]
        dweight[:] = like(x, 0)
        for n in range(b * n_rows // blocks, (b + 1) * n_rows // blocks):
            _rms_norm_backward_row(dy[n], x[n], weight, rstd[n], dx[n], dweight)
    add_rows(partial, sums)


def rms_norm_backward(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray, rstd: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """See functional/norm.py."""
    dy, x, weight, rstd = _alike(dy, x, weight, rstd)
    dx, rows, width = np.empty(x.shape, x.dtype), as_rows(x), x.shape[-1]
    partial, sums = np.empty((_blocks_of(len(rows)), width), x.dtype), np.zeros(width)
    _rms_norm_backward(as_rows(dy), rows, weight, rstd.reshape(-1), as_rows(dx), partial, sums)
    return dx, sums.astype(x.dtype)
