"""Layer norm and RMS norm along the last axis: each row is measured and scaled while it is in the nearest cache.

A backward also sums the gradients of ``weight`` and ``bias`` over all rows. Threads that added into one shared array
would race, so the rows are cut into blocks, by their number alone: each block has its own partial sum, and the partial
sums are added in order. The result is the same, bit for bit, whatever the number of threads.
"""

from __future__ import annotations

import numpy as np

from ._jit import as_rows, contiguous, jit, kernel, like, prange
from .matmul import add_rows

_SERIAL = 1 << 13  # below so many numbers one thread is done before a second one has woken up
_BLOCKS = 16  # of rows, in a backward


def _weight_of(x: np.ndarray, weight: np.ndarray | None, otherwise: float = 1.0) -> np.ndarray:
    """The weight, or the bias, in the dtype of x; where there is none what changes nothing: one loop serves all."""
    return np.full(x.shape[-1], otherwise, x.dtype) if weight is None else contiguous(weight, x.dtype)


def _flat(x: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """The numbers of x side by side; none where there is no x."""
    return np.empty(0, dtype) if x is None else contiguous(x, dtype).reshape(-1)


# ---- layer norm ------------------------------------------------------------------------------------------------------


def layer_norm_forward_numpy(
    x: np.ndarray, weight: np.ndarray | None = None, bias: np.ndarray | None = None, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Move every row to mean 0 and variance 1, then scale and shift (Ba, Kiros and Hinton, 2016).

    x: (..., C), weight, bias: (C,) or None -> y: (..., C), mean, rstd: (N,) for the N rows, kept for the backward.
    xhat = (x - mean x) rstd,  rstd = 1 / sqrt(mean (x - mean x)^2 + eps),  y = xhat weight + bias
    """
    rows = as_rows(x)
    weight, bias = _weight_of(x, weight), _weight_of(x, bias, 0.0)
    mean = rows.mean(axis=-1)
    rstd = (1 / np.sqrt(rows.var(axis=-1) + eps)).astype(x.dtype)
    y = (rows - mean[:, None]) * rstd[:, None] * weight + bias
    return y.reshape(x.shape), mean, rstd


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


@jit(parallel=True)
def _layer_norm_rows(x, weight, bias, eps, y, mean, rstd):
    if x.size < _SERIAL:
        for n in range(x.shape[0]):
            mean[n], rstd[n] = _layer_norm_row(x[n], weight, bias, eps, y[n])
    else:
        for n in prange(x.shape[0]):
            mean[n], rstd[n] = _layer_norm_row(x[n], weight, bias, eps, y[n])


@kernel(twin=layer_norm_forward_numpy)
def layer_norm_forward(  # noqa: D103
    x: np.ndarray, weight: np.ndarray | None = None, bias: np.ndarray | None = None, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = contiguous(x)
    y, rows = np.empty(x.shape, x.dtype), as_rows(x)
    mean, rstd = np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    _layer_norm_rows(rows, _weight_of(x, weight), _weight_of(x, bias, 0.0), x.dtype.type(eps), as_rows(y), mean, rstd)
    return y, mean, rstd


def layer_norm_backward_numpy(
    dy: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray | None,
    mean: np.ndarray,
    rstd: np.ndarray,
    before: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of layer norm.   dy, x, before, dx: (..., C), mean, rstd: (N,), weight, dweight, dbias: (C,).

    y = xhat weight + bias       ->  dweight = sum_rows dy xhat,  dbias = sum_rows dy,  dxhat = dy weight
    xhat = (x - mean x) rstd     ->  dx = rstd (dxhat - mean dxhat - xhat mean(dxhat xhat)):
    what would move a row's mean or its variance has no effect on xhat, and is taken out.
    before: another part of x's gradient, that dx is to have in it.
    """
    weight = _weight_of(x, weight)
    xhat = (as_rows(x) - mean[:, None]) * rstd[:, None]
    dy = as_rows(dy)
    dxhat = dy * weight
    along = (dxhat * xhat).mean(axis=-1, keepdims=True)
    dx = (rstd[:, None] * (dxhat - dxhat.mean(axis=-1, keepdims=True) - xhat * along)).reshape(x.shape)
    return dx if before is None else before + dx, (dy * xhat).sum(axis=0), dy.sum(axis=0)


@jit(inner=True)
def _layer_norm_backward_row(dy, x, weight, mean, rstd, before, dx, dweight, dbias):
    total, along = like(x, 0), like(x, 0)
    for j in range(x.size):
        xhat = (x[j] - mean) * rstd
        total += dy[j] * weight[j]
        along += dy[j] * weight[j] * xhat
        dweight[j] += dy[j] * xhat
        dbias[j] += dy[j]
    total /= like(x, x.size)
    along /= like(x, x.size)
    if before.size:
        for j in range(x.size):
            dx[j] = before[j] + rstd * (dy[j] * weight[j] - total - (x[j] - mean) * rstd * along)
    else:
        for j in range(x.size):
            dx[j] = rstd * (dy[j] * weight[j] - total - (x[j] - mean) * rstd * along)


@jit(parallel=True)
def _layer_norm_backward_rows(dy, x, weight, mean, rstd, before, dx, dweights, dbiases, dweight, dbias):
    # before: flat, of as many numbers as x, or of none
    (n_rows, width), blocks = x.shape, dweights.shape[0]
    for b in prange(blocks):
        dweights[b], dbiases[b] = like(x, 0), like(x, 0)
        for n in range(b * n_rows // blocks, (b + 1) * n_rows // blocks):
            so_far = before[n * width : (n + 1) * width]
            _layer_norm_backward_row(dy[n], x[n], weight, mean[n], rstd[n], so_far, dx[n], dweights[b], dbiases[b])
    dweight[:], dbias[:] = 0, 0
    add_rows(dweights, dweight)
    add_rows(dbiases, dbias)


@kernel(twin=layer_norm_backward_numpy)
def layer_norm_backward(  # noqa: D103
    dy: np.ndarray,
    x: np.ndarray,
    weight: np.ndarray | None,
    mean: np.ndarray,
    rstd: np.ndarray,
    before: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, mean, rstd = contiguous(x), contiguous(mean, x.dtype), contiguous(rstd, x.dtype)
    dy, rows = as_rows(contiguous(dy, x.dtype)), as_rows(x)
    weight, width = _weight_of(x, weight), x.shape[-1]
    dx, partial = np.empty(x.shape, x.dtype), np.empty((2, min(_BLOCKS, len(rows)), width), x.dtype)
    dweight, dbias = np.empty(width, x.dtype), np.empty(width, x.dtype)
    _layer_norm_backward_rows(dy, rows, weight, mean, rstd, _flat(before, x.dtype), as_rows(dx),
                              partial[0], partial[1], dweight, dbias)  # fmt: skip
    return dx, dweight, dbias


# ---- RMS norm --------------------------------------------------------------------------------------------------------


def rms_norm_forward_numpy(
    x: np.ndarray, weight: np.ndarray | None = None, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray]:
    """Scale every row to a mean square of 1: layer norm without mean and bias (Zhang and Sennrich, 2019).

    x: (..., C), weight: (C,) or None -> y: (..., C), rstd: (N,) for the N rows, kept for the backward.
    y = x rstd weight,  rstd = 1 / sqrt(mean x^2 + eps)
    """
    rows = as_rows(x)
    rstd = (1 / np.sqrt((rows * rows).mean(axis=-1) + eps)).astype(x.dtype)
    y = rows * rstd[:, None] * _weight_of(x, weight)
    return y.reshape(x.shape), rstd


@jit(inner=True)
def _rms_norm_row(x, weight, eps, y):
    squares = like(x, 0)
    for j in range(x.size):
        squares += x[j] * x[j]
    rstd = like(x, 1) / np.sqrt(squares / like(x, x.size) + eps)
    for j in range(x.size):
        y[j] = x[j] * rstd * weight[j]
    return rstd


@jit(parallel=True)
def _rms_norm_rows(x, weight, eps, y, rstd):
    if x.size < _SERIAL:
        for n in range(x.shape[0]):
            rstd[n] = _rms_norm_row(x[n], weight, eps, y[n])
    else:
        for n in prange(x.shape[0]):
            rstd[n] = _rms_norm_row(x[n], weight, eps, y[n])


@kernel(twin=rms_norm_forward_numpy)
def rms_norm_forward(  # noqa: D103
    x: np.ndarray, weight: np.ndarray | None = None, eps: float = 1e-5
) -> tuple[np.ndarray, np.ndarray]:
    x = contiguous(x)
    y, rows = np.empty(x.shape, x.dtype), as_rows(x)
    rstd = np.empty(len(rows), x.dtype)
    weight = _weight_of(x, weight)
    _rms_norm_rows(rows, weight, x.dtype.type(eps), as_rows(y), rstd)
    return y, rstd


def rms_norm_backward_numpy(
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray | None, rstd: np.ndarray, before: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of RMS norm.   dy, x, before, dx: (..., C), rstd: (N,), weight, dweight: (C,).

    xhat = x rstd, y = xhat weight  ->  dweight = sum_rows dy xhat,  dxhat = dy weight,
    dx = rstd (dxhat - xhat mean(dxhat xhat)):  what would only stretch the row is taken out.
    before: another part of x's gradient, that dx is to have in it.
    """
    xhat = as_rows(x) * rstd[:, None]
    dy = as_rows(dy)
    dxhat = dy * _weight_of(x, weight)
    dx = (rstd[:, None] * (dxhat - xhat * (dxhat * xhat).mean(axis=-1, keepdims=True))).reshape(x.shape)
    return dx if before is None else before + dx, (dy * xhat).sum(axis=0)


@jit(inner=True)
def _rms_norm_backward_row(dy, x, weight, rstd, before, dx, dweight):
    along = like(x, 0)
    for j in range(x.size):
        xhat = x[j] * rstd
        along += dy[j] * weight[j] * xhat
        dweight[j] += dy[j] * xhat
    along /= like(x, x.size)
    if before.size:
        for j in range(x.size):
            dx[j] = before[j] + rstd * (dy[j] * weight[j] - x[j] * rstd * along)
    else:
        for j in range(x.size):
            dx[j] = rstd * (dy[j] * weight[j] - x[j] * rstd * along)


@jit(parallel=True)
def _rms_norm_backward_rows(dy, x, weight, rstd, before, dx, dweights, dweight):
    (n_rows, width), blocks = x.shape, dweights.shape[0]
    for b in prange(blocks):
        dweights[b] = like(x, 0)
        for n in range(b * n_rows // blocks, (b + 1) * n_rows // blocks):
            so_far = before[n * width : (n + 1) * width]
            _rms_norm_backward_row(dy[n], x[n], weight, rstd[n], so_far, dx[n], dweights[b])
    dweight[:] = 0
    add_rows(dweights, dweight)


@kernel(twin=rms_norm_backward_numpy)
def rms_norm_backward(  # noqa: D103
    dy: np.ndarray, x: np.ndarray, weight: np.ndarray | None, rstd: np.ndarray, before: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    x, rstd = contiguous(x), contiguous(rstd, x.dtype)
    dy, rows = as_rows(contiguous(dy, x.dtype)), as_rows(x)
    weight = _weight_of(x, weight)
    dx, dweights = np.empty(x.shape, x.dtype), np.empty((min(_BLOCKS, len(rows)), x.shape[-1]), x.dtype)
    dweight = np.empty(x.shape[-1], x.dtype)
    _rms_norm_backward_rows(dy, rows, weight, rstd, _flat(before, x.dtype), as_rows(dx), dweights, dweight)
    return dx, dweight
