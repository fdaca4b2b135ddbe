"""The gradient of a lookup, and rotary positions: see functional/embedding.py."""

from __future__ import annotations

import numpy as np

from ._jit import jit, prange
from .layout import contiguous, integers
from .rows import loop

_FEW = 1 << 14
_COLUMNS = 64  # of the embedding matrix, that one task of the backward owns
_MOST_TOKENS = 1 << 20  # whose gradients are added up in float32


# ---- lookup --------------------------------------------------------------------------------------


@jit(inner=True)
def _add_into(row, dy):
    for j in range(row.size):
        row[j] += dy[j]


@jit(parallel=True)
def _embedding_backward(dy, ids, dweight):
    # each task owns some columns and adds all tokens in order: no race, and the same sum for any
    # number of threads
    columns = dy.shape[1]
    for task in prange((columns + _COLUMNS - 1) // _COLUMNS):
        low, high = task * _COLUMNS, min((task + 1) * _COLUMNS, columns)
        for n in range(ids.size):
            _add_into(dweight[ids[n], low:high], dy[n, low:high])


def embedding_backward(dy: np.ndarray, ids: np.ndarray, vocabulary: int) -> np.ndarray:
    """See functional/embedding.py."""
    C = dy.shape[-1]
    dy, ids = contiguous(dy).reshape(ids.size, C), integers(ids).reshape(-1)
    dweight = np.zeros((vocabulary, C), dy.dtype)
    if ids.size <= _MOST_TOKENS:
        _embedding_backward(dy, ids, dweight)
        return dweight
    total = np.zeros(dweight.shape)
    for start in range(0, ids.size, _MOST_TOKENS):
        some = slice(start, start + _MOST_TOKENS)
        dweight[...] = 0
        _embedding_backward(dy[some], ids[some], dweight)
        total += dweight
    return total.astype(dy.dtype)


# ---- rotary positions ----------------------------------------------------------------------------


@loop(_FEW)
def _rotate(x, cos, sin, heads, times, head_step, time_step, y):
    # x, y: flat, (B, H, T, D) or (B, T, H, D); cos, sin: (T, D/2) or (B T, D/2)
    half, batch_step = cos.shape[1], heads * times * 2 * cos.shape[1]
    for n in prange(x.size // (heads * 2 * half)):
        row = np.int64(n)  # Numba counts in unsigned integers here
        angle, at = row % cos.shape[0], row // times * batch_step + row % times * time_step
        c, s = cos[angle], sin[angle]
        for h in range(heads):
            start = at + h * head_step
            head, turned = x[start : start + 2 * half], y[start : start + 2 * half]
            for j in range(half):
                first, second = head[j], head[half + j]
                turned[j] = first * c[j] - second * s[j]
                turned[half + j] = second * c[j] + first * s[j]


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """See functional/embedding.py."""
    if x.ndim != 4:
        return rotate(x.reshape(1, -1, *x.shape[-2:]), cos, sin).reshape(x.shape)
    _, H, T, D = x.shape
    if x.flags.c_contiguous:
        lies, steps = contiguous(x), (T * D, D)
    else:  # as a projection leaves it: (B, T, H, D), and the result likewise
        lies, steps = contiguous(x.swapaxes(1, 2)), (D, H * D)
    y = np.empty(lies.shape, lies.dtype)
    if y.size:
        cos, sin = (contiguous(table, y.dtype).reshape(-1, D // 2) for table in (cos, sin))
        _rotate(y.size, lies.reshape(-1), cos, sin, H, T, *steps, y.reshape(-1))
    return y if x.flags.c_contiguous else y.swapaxes(1, 2)


# ---- the heads of one token, turned where they stand: for decoding -------------------------------


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
