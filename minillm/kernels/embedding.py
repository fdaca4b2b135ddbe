"""Looking up the vector of each token, adding its gradient back, and rotary positions."""

from __future__ import annotations

import numpy as np

from ._jit import contiguous, integers, jit, kernel, prange

_SERIAL = 1 << 14  # below so many numbers one thread is done before a second one has woken up
_COLUMNS = 64  # of the embedding matrix, that one task of the backward owns


# ---- lookup ----------------------------------------------------------------------------------------------------------


def embedding_forward_numpy(weight: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """y = weight[ids].   weight: (V, C), ids: (...) integers in [0, V), checked by the caller -> y: (..., C)."""
    return weight[ids]


@kernel(twin=embedding_forward_numpy)
def embedding_forward(weight: np.ndarray, ids: np.ndarray) -> np.ndarray:  # noqa: D103
    return contiguous(weight).take(ids, axis=0)  # NumPy copies rows as quickly as two threads do


def embedding_backward_numpy(dy: np.ndarray, ids: np.ndarray, vocab_size: int) -> np.ndarray:
    """Gradient of a lookup: a token that occurs twice gets both gradients, one that does not occur gets 0.

    y = weight[ids]  ->  dweight[v] = sum of dy over the places where ids = v
    dy: (..., C), ids: (...) integers in [0, vocab_size) -> dweight: (vocab_size, C)
    """
    dweight = np.zeros((vocab_size, dy.shape[-1]), dy.dtype)
    np.add.at(dweight, ids, dy)
    return dweight


@jit(inner=True)
def _add_into(row, dy):
    for j in range(row.size):
        row[j] += dy[j]


@jit(parallel=True)
def _embedding_backward_columns(dy, ids, dweight):
    # each task owns some columns and adds all tokens in order: no race, and the same sum for any number of threads
    columns = dy.shape[1]
    for task in prange((columns + _COLUMNS - 1) // _COLUMNS):
        low, high = task * _COLUMNS, min((task + 1) * _COLUMNS, columns)
        for n in range(ids.size):
            _add_into(dweight[ids[n], low:high], dy[n, low:high])


@kernel(twin=embedding_backward_numpy)
def embedding_backward(dy: np.ndarray, ids: np.ndarray, vocab_size: int) -> np.ndarray:  # noqa: D103
    dy = contiguous(dy)
    dweight = np.zeros((vocab_size, dy.shape[-1]), dy.dtype)
    _embedding_backward_columns(dy.reshape(ids.size, dy.shape[-1]), integers(ids).reshape(-1), dweight)
    return dweight


# ---- rotary positions ------------------------------------------------------------------------------------------------
# Each pair of numbers of a query or key is turned by an angle that grows with its position, so that their product
# depends on the distance alone (Su et al., "RoFormer", 2021). Llama pairs x_j with x_(j + D/2).


def rotary_forward_numpy(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """Turn each head's pairs (x_j, x_(j + D/2)) by the angle of their position.

    x, y: (B, T, H, D), cos, sin: (T, D/2), or (B, T, D/2) where rows have their own positions.
    y_j = x_j cos_j - x_(j + D/2) sin_j,  y_(j + D/2) = x_(j + D/2) cos_j + x_j sin_j.
    The backward is the turn back: ``rotary_forward(dy, cos, -sin)``.
    """
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[..., None, :], sin[..., None, :]  # (..., T, 1, D/2)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


@kernel(twin=rotary_forward_numpy)
def rotary_forward(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:  # noqa: D103
    heads, head_dim = x.shape[-2:]
    x = contiguous(x)
    y, width = np.empty(x.shape, x.dtype), heads * head_dim
    if y.size:
        _rotate(x.reshape(-1, width), y.reshape(-1, width), cos, sin, heads, head_dim)
    return y


def rotary_packed_numpy(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, heads: int, head_dim: int) -> None:
    """Rotate the first ``heads * head_dim`` columns of x in place: the queries and keys of a joint projection.

    x: (N, W) C-contiguous, its N = B T rows time-major as in ``rotary_forward``; cos, sin: (T, D/2) or (B, T, D/2).
    """
    packed = x[:, : heads * head_dim].reshape(-1, cos.shape[-2], heads, head_dim)  # (B, T, H, D)
    x[:, : heads * head_dim] = rotary_forward_numpy(packed, cos, sin).reshape(len(x), heads * head_dim)


@jit(inner=True)
def _copy(row, y):
    for j in range(row.size):
        y[j] = row[j]


@jit(inner=True)
def _rotate_pairs(first, second, cos, sin):
    for j in range(cos.size):
        a, b = first[j], second[j]
        first[j] = a * cos[j] - b * sin[j]
        second[j] = b * cos[j] + a * sin[j]


@jit(inner=True)
def _rotate_row(x, cos, sin, heads):
    half = cos.size
    for h in range(heads):
        at = h * 2 * half
        _rotate_pairs(x[at : at + half], x[at + half : at + 2 * half], cos, sin)


@jit(parallel=True)
def _rotate_rows(x, y, cos, sin, heads):
    # y: x turned; without rows in x, y itself is turned
    period = cos.shape[0]
    if y.size < _SERIAL:
        for n in range(y.shape[0]):
            if x.shape[0]:
                _copy(x[n], y[n])
            _rotate_row(y[n], cos[n % period], sin[n % period], heads)
    else:
        for n in prange(y.shape[0]):
            if x.shape[0]:
                _copy(x[n], y[n])
            _rotate_row(y[n], cos[n % period], sin[n % period], heads)


def _rotate(x: np.ndarray, y: np.ndarray, cos: np.ndarray, sin: np.ndarray, heads: int, head_dim: int) -> None:
    if y.size:
        cos, sin = contiguous(cos, y.dtype), contiguous(sin, y.dtype)
        _rotate_rows(x, y, cos.reshape(-1, head_dim // 2), sin.reshape(-1, head_dim // 2), heads)


@kernel(twin=rotary_packed_numpy)
def rotary_packed_(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, heads: int, head_dim: int) -> None:  # noqa: D103
    if x.ndim != 2 or not (x.flags.c_contiguous and x.flags.writeable):
        raise ValueError(f"rotary_packed_: x must be a writable C-contiguous (N, W) array; got shape {x.shape}")
    _rotate(x[:0], x, cos, sin, heads, head_dim)


def rotary_packed_forward_numpy(
    x: np.ndarray, cos: np.ndarray, sin: np.ndarray, heads: int, head_dim: int
) -> np.ndarray:
    """What ``rotary_packed_`` makes of a copy of x.   x, y: (N, W)."""
    y = x.copy()
    rotary_packed_numpy(y, cos, sin, heads, head_dim)
    return y


@kernel(twin=rotary_packed_forward_numpy)
def rotary_packed_forward(  # noqa: D103
    x: np.ndarray, cos: np.ndarray, sin: np.ndarray, heads: int, head_dim: int
) -> np.ndarray:
    x = contiguous(x)
    y = np.empty(x.shape, x.dtype)
    _rotate(x, y, cos, sin, heads, head_dim)
    return y
