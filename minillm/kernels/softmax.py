"""Softmax, its logarithm, and cross-entropy, row by row: see functional/activations.py and
functional/losses.py.

Each row is read while it lies in the nearest cache: once for its maximum, once for its exponentials
and their sum, once to scale.
"""

from __future__ import annotations

import numpy as np

from ._jit import jit, prange
from .layout import contiguous, integers
from .rows import by_rows, loop
from .vector_math import exp, like, row_max
from .vectors import scale_by, sum_of

_FEW = 1 << 13


# ---- softmax -------------------------------------------------------------------------------------


@jit(inner=True)
def _softmax_row(x, y):
    top = row_max(x)
    for j in range(x.size):
        y[j] = exp(x[j] - top)
    scale_by(y, like(x, 1) / sum_of(y))


@loop(_FEW)
def _softmax(x, y):
    for n in prange(x.shape[0]):
        _softmax_row(x[n], y[n])


def softmax_forward(x: np.ndarray) -> np.ndarray:
    """See functional/activations.py."""
    return by_rows(_softmax, x)


@jit(inner=True)
def _softmax_backward_row(dy, y, dx):
    dot = like(y, 0)
    for j in range(y.size):
        dot += dy[j] * y[j]
    for j in range(y.size):
        dx[j] = y[j] * (dy[j] - dot)


@loop(_FEW)
def _softmax_backward(dy, y, dx):
    for n in prange(y.shape[0]):
        _softmax_backward_row(dy[n], y[n], dx[n])


def softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """See functional/activations.py."""
    return by_rows(_softmax_backward, dy, y)


# ---- log softmax ---------------------------------------------------------------------------------


@jit(inner=True)
def _log_sum_exp(x, top, exponentials):
    """log sum_j e^(x_j - top); the exponentials stay in the room for them."""
    for j in range(x.size):
        exponentials[j] = exp(x[j] - top)
    return like(x, np.log(sum_of(exponentials)))


@jit(inner=True)
def _log_softmax_row(x, y):
    top = row_max(x)
    log_total = _log_sum_exp(x, top, y)
    for j in range(x.size):
        y[j] = (x[j] - top) - log_total


@loop(_FEW)
def _log_softmax(x, y):
    for n in prange(x.shape[0]):
        _log_softmax_row(x[n], y[n])


def log_softmax_forward(x: np.ndarray) -> np.ndarray:
    """See functional/activations.py."""
    return by_rows(_log_softmax, x)


@jit(inner=True)
def _log_softmax_backward_row(dy, y, dx):
    total = like(y, 0)
    for j in range(y.size):
        total += dy[j]
    for j in range(y.size):
        dx[j] = dy[j] - exp(y[j]) * total


@loop(_FEW)
def _log_softmax_backward(dy, y, dx):
    for n in prange(y.shape[0]):
        _log_softmax_backward_row(dy[n], y[n], dx[n])


def log_softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """See functional/activations.py."""
    return by_rows(_log_softmax_backward, dy, y)


# ---- cross-entropy -------------------------------------------------------------------------------


@jit(inner=True)
def _cross_entropy_row(x, target, smoothing):
    """(loss, log sum exp) of one row."""
    top = row_max(x)
    log_total = _log_sum_exp(x, top, np.empty_like(x))
    loss = log_total + (top - x[target])
    if smoothing > like(x, 0):
        total = like(x, 0)
        for j in range(x.size):
            total += x[j] - top
        uniform = log_total - total / like(x, x.size)
        loss = (like(x, 1) - smoothing) * loss + smoothing * uniform
    return loss, top + log_total


@jit(parallel=True)
def _cross_entropy(logits, targets, ignore_index, smoothing, losses, lse):
    for n in prange(logits.shape[0]):
        ignored = targets[n] == ignore_index
        losses[n], lse[n] = _cross_entropy_row(logits[n], 0 if ignored else targets[n], smoothing)
        if ignored:
            losses[n] = like(lse, 0)


def cross_entropy_forward(
    logits: np.ndarray, targets: np.ndarray, ignore_index: int, label_smoothing: float
) -> tuple[np.ndarray, np.ndarray]:
    """See functional/losses.py."""
    logits = contiguous(logits)
    losses, lse = np.empty(len(logits), logits.dtype), np.empty(len(logits), logits.dtype)
    _cross_entropy(logits, integers(targets), ignore_index, logits.dtype.type(label_smoothing), losses, lse)
    return losses, lse


@jit(inner=True)
def _cross_entropy_backward_row(dloss, x, target, lse, smoothing, dx):
    share = smoothing / like(x, x.size)
    for j in range(x.size):
        dx[j] = dloss * (exp(x[j] - lse) - share)
    dx[target] -= dloss * (like(x, 1) - smoothing)


@jit(parallel=True)
def _cross_entropy_backward(dlosses, logits, targets, lse, ignore_index, smoothing, dlogits):
    for n in prange(logits.shape[0]):
        if targets[n] == ignore_index:
            dlogits[n] = like(lse, 0)
        else:
            _cross_entropy_backward_row(dlosses[n], logits[n], targets[n], lse[n], smoothing, dlogits[n])


def cross_entropy_backward(
    dlosses: np.ndarray,
    logits: np.ndarray,
    targets: np.ndarray,
    lse: np.ndarray,
    ignore_index: int,
    label_smoothing: float,
) -> np.ndarray:
    """See functional/losses.py."""
    logits = contiguous(logits)
    dlosses, lse = contiguous(dlosses, logits.dtype), contiguous(lse, logits.dtype)
    dlogits = np.empty(logits.shape, logits.dtype)
    smoothing = logits.dtype.type(label_smoothing)
    _cross_entropy_backward(dlosses, logits, integers(targets), lse, ignore_index, smoothing, dlogits)
    return dlogits
