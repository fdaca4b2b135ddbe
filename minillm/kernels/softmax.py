"""Softmax along the last axis, its logarithm, and the cross-entropy of a language model.

Each row is read while it lies in the nearest cache: once for its maximum, once for its exponentials and their sum, once
to scale. The maximum is subtracted because e^x overflows float32 from x = 89 on, and softmax does not change when all
scores move together.
"""

from __future__ import annotations

import numpy as np

from ._jit import as_rows, contiguous, exp, integers, jit, kernel, like, prange, row_max

_SERIAL = 1 << 13  # below so many numbers one thread is done before a second one has woken up


# ---- softmax ---------------------------------------------------------------------------------------------------------


def softmax_forward_numpy(x: np.ndarray) -> np.ndarray:
    """y_i = e^(x_i - max x) / sum_j e^(x_j - max x) along the last axis.   x, y: (..., V).

    A score of -inf gives probability 0; a row of nothing else, or one with NaN or +inf, gives NaN.
    """
    e = np.exp(x - x.max(axis=-1, keepdims=True, initial=-np.inf))
    return e / e.sum(axis=-1, keepdims=True)


@jit(inner=True)
def _softmax_row(x, y):
    top, total = row_max(x), like(x, 0)
    for j in range(x.size):
        y[j] = exp(x[j] - top)
        total += y[j]
    scale = like(x, 1) / total
    for j in range(x.size):
        y[j] *= scale


@jit(parallel=True)
def _softmax_rows(x, y):
    if x.size < _SERIAL:
        for n in range(x.shape[0]):
            _softmax_row(x[n], y[n])
    else:
        for n in prange(x.shape[0]):
            _softmax_row(x[n], y[n])


@kernel(twin=softmax_forward_numpy)
def softmax_forward(x: np.ndarray) -> np.ndarray:  # noqa: D103
    x = contiguous(x)
    y = np.empty(x.shape, x.dtype)
    _softmax_rows(as_rows(x), as_rows(y))
    return y


def softmax_backward_numpy(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dx = y * (dy - sum_j dy_j y_j): raising one score lowers all other probabilities.   dy, y, dx: (..., V)."""
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


@jit(inner=True)
def _softmax_backward_row(dy, y, dx):
    dot = like(y, 0)
    for j in range(y.size):
        dot += dy[j] * y[j]
    for j in range(y.size):
        dx[j] = y[j] * (dy[j] - dot)


@jit(parallel=True)
def _softmax_backward_rows(dy, y, dx):
    if y.size < _SERIAL:
        for n in range(y.shape[0]):
            _softmax_backward_row(dy[n], y[n], dx[n])
    else:
        for n in prange(y.shape[0]):
            _softmax_backward_row(dy[n], y[n], dx[n])


@kernel(twin=softmax_backward_numpy)
def softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: D103
    y = contiguous(y)
    dy = contiguous(dy, y.dtype)
    dx = np.empty(y.shape, y.dtype)
    _softmax_backward_rows(as_rows(dy), as_rows(y), as_rows(dx))
    return dx


# ---- log softmax -----------------------------------------------------------------------------------------------------


def log_softmax_forward_numpy(x: np.ndarray) -> np.ndarray:
    """y_i = x_i - max x - log sum_j e^(x_j - max x) along the last axis.   x, y: (..., V)."""
    shifted = x - x.max(axis=-1, keepdims=True, initial=-np.inf)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


@jit(inner=True)
def _log_sum_exp(x, top):
    """log sum_j e^(x_j - top)."""
    total = like(x, 0)
    for j in range(x.size):
        total += exp(x[j] - top)
    return like(x, np.log(total))


@jit(inner=True)
def _log_softmax_row(x, y):
    top = row_max(x)
    log_total = _log_sum_exp(x, top)
    for j in range(x.size):
        y[j] = (x[j] - top) - log_total


@jit(parallel=True)
def _log_softmax_rows(x, y):
    if x.size < _SERIAL:
        for n in range(x.shape[0]):
            _log_softmax_row(x[n], y[n])
    else:
        for n in prange(x.shape[0]):
            _log_softmax_row(x[n], y[n])


@kernel(twin=log_softmax_forward_numpy)
def log_softmax_forward(x: np.ndarray) -> np.ndarray:  # noqa: D103
    x = contiguous(x)
    y = np.empty(x.shape, x.dtype)
    _log_softmax_rows(as_rows(x), as_rows(y))
    return y


def log_softmax_backward_numpy(dy: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dx = dy - e^y sum_j dy_j, from the output y.   dy, y, dx: (..., V)."""
    return dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)


@jit(inner=True)
def _log_softmax_backward_row(dy, y, dx):
    total = like(y, 0)
    for j in range(y.size):
        total += dy[j]
    for j in range(y.size):
        dx[j] = dy[j] - exp(y[j]) * total


@jit(parallel=True)
def _log_softmax_backward_rows(dy, y, dx):
    if y.size < _SERIAL:
        for n in range(y.shape[0]):
            _log_softmax_backward_row(dy[n], y[n], dx[n])
    else:
        for n in prange(y.shape[0]):
            _log_softmax_backward_row(dy[n], y[n], dx[n])


@kernel(twin=log_softmax_backward_numpy)
def log_softmax_backward(dy: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: D103
    y = contiguous(y)
    dy = contiguous(dy, y.dtype)
    dx = np.empty(y.shape, y.dtype)
    _log_softmax_backward_rows(as_rows(dy), as_rows(y), as_rows(dx))
    return dx


# ---- cross-entropy ---------------------------------------------------------------------------------------------------


def cross_entropy_forward_numpy(
    logits: np.ndarray, targets: np.ndarray, ignore_index: int = -100, label_smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """How many nats each row's target costs: loss = -log softmax(logits)[target].

    logits: (N, V), targets: (N,) integers in [0, V) or ``ignore_index``, checked by the caller
    -> losses: (N,), 0 where ignored; lse: (N,), log sum_j e^logit_j, which is all that the backward needs.
    With ``label_smoothing`` s the target keeps 1 - s, and s is shared by all V classes:
    loss = (1 - s) (lse - logit_target) + s (lse - mean logit).
    """
    rows = np.arange(len(targets))
    kept = targets != ignore_index
    top = logits.max(axis=-1, initial=-np.inf)
    log_total = np.log(np.exp(logits - top[:, None]).sum(axis=-1))
    losses = log_total + (top - logits[rows, np.where(kept, targets, 0)])
    if label_smoothing > 0:
        uniform = log_total + (top - logits.mean(axis=-1))
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    return np.where(kept, losses, 0).astype(logits.dtype), top + log_total


@jit(inner=True)
def _cross_entropy_row(x, target, smoothing):
    """(loss, log sum exp) of one row."""
    top = row_max(x)
    log_total = _log_sum_exp(x, top)
    loss = log_total + (top - x[target])
    if smoothing > like(x, 0):
        total = like(x, 0)
        for j in range(x.size):
            total += x[j]
        uniform = log_total + (top - total / like(x, x.size))
        loss = (like(x, 1) - smoothing) * loss + smoothing * uniform
    return loss, top + log_total


@jit(parallel=True)
def _cross_entropy_rows(logits, targets, ignore_index, smoothing, losses, lse):
    for n in prange(logits.shape[0]):
        ignored = targets[n] == ignore_index
        losses[n], lse[n] = _cross_entropy_row(logits[n], 0 if ignored else targets[n], smoothing)
        if ignored:
            losses[n] = like(lse, 0)


@kernel(twin=cross_entropy_forward_numpy)
def cross_entropy_forward(  # noqa: D103
    logits: np.ndarray, targets: np.ndarray, ignore_index: int = -100, label_smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    logits = contiguous(logits)
    losses, lse = np.empty(len(logits), logits.dtype), np.empty(len(logits), logits.dtype)
    _cross_entropy_rows(logits, integers(targets), ignore_index, logits.dtype.type(label_smoothing), losses, lse)
    return losses, lse


def cross_entropy_backward_numpy(
    dlosses: np.ndarray,
    logits: np.ndarray,
    targets: np.ndarray,
    lse: np.ndarray,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> np.ndarray:
    """Gradient of the losses: what the model believed minus what it should have.

    dlogits = dloss (e^(logits - lse) - (1 - s) onehot(target) - s / V), 0 in ignored rows.
    dlosses, targets, lse: (N,), logits, dlogits: (N, V)
    """
    rows = np.arange(len(targets))
    kept = targets != ignore_index
    dlogits = np.exp(logits - lse[:, None]) - label_smoothing / logits.shape[1]
    dlogits[rows, np.where(kept, targets, 0)] -= 1 - label_smoothing
    return np.where(kept[:, None], dlosses[:, None] * dlogits, 0).astype(logits.dtype)


@jit(inner=True)
def _cross_entropy_backward_row(dloss, x, target, lse, smoothing, dx):
    share = smoothing / like(x, x.size)
    for j in range(x.size):
        dx[j] = dloss * (exp(x[j] - lse) - share)
    dx[target] -= dloss * (like(x, 1) - smoothing)


@jit(parallel=True)
def _cross_entropy_backward_rows(dlosses, logits, targets, lse, ignore_index, smoothing, dlogits):
    for n in prange(logits.shape[0]):
        if targets[n] == ignore_index:
            dlogits[n] = like(lse, 0)
        else:
            _cross_entropy_backward_row(dlosses[n], logits[n], targets[n], lse[n], smoothing, dlogits[n])


@kernel(twin=cross_entropy_backward_numpy)
def cross_entropy_backward(  # noqa: D103
    dlosses: np.ndarray,
    logits: np.ndarray,
    targets: np.ndarray,
    lse: np.ndarray,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> np.ndarray:
    logits = contiguous(logits)
    dlosses, lse = contiguous(dlosses, logits.dtype), contiguous(lse, logits.dtype)
    dlogits = np.empty(logits.shape, logits.dtype)
    smoothing = logits.dtype.type(label_smoothing)
    _cross_entropy_backward_rows(dlosses, logits, integers(targets), lse, ignore_index, smoothing, dlogits)
    return dlogits
