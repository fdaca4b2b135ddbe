"""The step of an optimiser in one pass over parameters, gradients and state; the norm of the
gradient: see optim.py.

The parameters and what an optimiser remembers of them are one long array each. Their gradients are
many arrays, made by the backward of one operation after another: to copy them side by side first
would cost a quarter of the step, and a call for each would cost more than its work. So the loops
get the addresses of all, and see them as one long array, which they cut into blocks of a fixed
size: the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from ._jit import jit, prange
from .layout import address, contiguous
from .process import get_num_threads
from .tile_products import multiply_part
from .vector_math import like

_BLOCK = 1 << 14  # numbers of a task


# ---- many arrays as a long one -------------------------------------------------------------------


class _Row:
    """Contiguous arrays of one dtype, one after another: their addresses, and where each ends in
    the long array.
    """

    def __init__(self, arrays: Sequence[np.ndarray], dtype: np.dtype) -> None:
        self.arrays = [contiguous(x, dtype) for x in arrays]  # copies live as long as the addresses
        self.addresses = np.array([address(x) for x in self.arrays], np.int64)
        self.ends = np.cumsum([x.size for x in self.arrays], dtype=np.int64)
        self.size = int(self.ends[-1]) if self.arrays else 0


@intrinsic
def _pointer(typing, address, like):
    def generate(context, build, signature, arguments):
        return build.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(address, like), generate


@jit(inner=True)
def _pieces(addresses, ends, block, like):
    """The numbers of a block of the long array, piece by piece as they lie in the arrays: (where
    one begins, it).
    """
    lo, hi, i = block * _BLOCK, min((block + 1) * _BLOCK, ends[-1]), 0
    while lo < hi:
        while ends[i] <= lo:
            i += 1
        begin = ends[i - 1] if i else 0
        pointer: Any = _pointer(addresses[i] + (lo - begin) * like.itemsize, like)  # type: ignore[call-arg]
        piece = carray(pointer, (min(hi, ends[i]) - lo,))
        yield lo, piece
        lo += piece.size


# ---- updates -------------------------------------------------------------------------------------


def _checked(name: str, grads: Sequence[np.ndarray], **arrays: np.ndarray) -> _Row:
    """The gradients in a row. Raises ValueError unless the arrays, which are changed in place, are
    flat, contiguous, writable and alike, and the gradients have as many numbers.
    """
    first = arrays["w"]
    for label, array in arrays.items():
        if array.ndim != 1 or array.dtype != first.dtype or array.size != first.size or not array.flags.carray:
            raise ValueError(
                f"{name}: {label} must be a writable contiguous ({first.size},) array of {first.dtype}; "
                f"got {array.shape} {array.dtype}"
            )
    row = _Row(grads, first.dtype)
    if row.size != first.size:
        raise ValueError(f"{name}: w has {first.size} numbers; the gradients have {row.size}")
    return row


@jit(inner=True)
def _adamw_piece(w, grad, m, v, keep, rate, more_g, keep_v, more_v, scale_v, eps):
    for i in range(grad.size):
        g = grad[i]
        m_i = m[i] + more_g * (g - m[i])
        v_i = keep_v * v[i] + more_v * g * g
        m[i] = m_i
        v[i] = v_i
        w[i] = keep * w[i] - rate * m_i / (np.sqrt(v_i) * scale_v + eps)


@jit(parallel=True)
def _adamw_blocks(w, addresses, ends, m, v, keep, rate, more_g, keep_v, more_v, scale_v, eps):
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        for lo, grad in _pieces(addresses, ends, np.int64(block), w):
            _adamw_piece(w[lo:], grad, m[lo:], v[lo:], keep, rate, more_g, keep_v, more_v, scale_v, eps)


def adamw_update(
    w: np.ndarray,
    grads: Sequence[np.ndarray],
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """See optim.py."""
    row = _checked("adamw_update", grads, w=w, m=m, v=v)
    keep, rate = 1 - lr * weight_decay, lr / (1 - beta1**step)
    scale_v = 1 / math.sqrt(1 - beta2**step)
    numbers = keep, rate, 1 - beta1, beta2, 1 - beta2, scale_v, eps
    _adamw_blocks(w, row.addresses, row.ends, m, v, *map(w.dtype.type, numbers))


@jit(inner=True)
def _sgd_piece(w, grad, velocity, lr, momentum, weight_decay):
    for i in range(grad.size):
        step = momentum * velocity[i] + grad[i] + weight_decay * w[i]
        velocity[i] = step
        w[i] -= lr * step


@jit(parallel=True)
def _sgd_blocks(w, addresses, ends, velocity, lr, momentum, weight_decay):
    for block in prange((w.size + _BLOCK - 1) // _BLOCK):
        for lo, grad in _pieces(addresses, ends, np.int64(block), w):
            _sgd_piece(w[lo:], grad, velocity[lo:], lr, momentum, weight_decay)


def sgd_update(
    w: np.ndarray, grads: Sequence[np.ndarray], velocity: np.ndarray, lr: float, momentum: float, weight_decay: float
) -> None:
    """See optim.py."""
    row = _checked("sgd_update", grads, w=w, velocity=velocity)
    _sgd_blocks(w, row.addresses, row.ends, velocity, *map(w.dtype.type, (lr, momentum, weight_decay)))


# ---- Muon ----------------------------------------------------------------------------------------
# The matrices inside a small model are small, and fifteen products of each follow one another. To
# share out every product, threads would have to meet after each. So a thread takes whole matrices,
# from the gradient to the new weights, and they meet once.


@jit(inner=True)
def _look_ahead(m, grad, momentum, x):
    # m <- momentum m + (1 - momentum) g;   x = g + momentum (m - g), and then of length 1
    for i in range(m.size):
        m[i] += (1 - momentum) * (grad[i] - m[i])
        x[i] = grad[i] + momentum * (m[i] - grad[i])
    squares = 0.0
    for i in range(x.size):
        squares += np.float64(x[i]) * np.float64(x[i])
    factor = 1 / like(x, max(math.sqrt(squares), 1e-7))
    for i in range(x.size):
        x[i] *= factor


@jit(inner=True)
def _polynomial(A, square, n, a, b, c):
    # square <- a I + b A + c A^2, of which the last is there; (n, n), flat
    for i in range(n * n):
        square[i] = b * A[i] + c * square[i]
    for i in range(n):
        square[i * n + i] += a


@jit(inner=True)
def _orthogonal(x, y, A, P, rows, cols, a, b, c):
    # see optim.py. x, y: flat (rows, cols), A, P: room for the square of the shorter side; returns
    # x or y
    n, none = min(rows, cols), x[:0]
    for _ in range(5):
        if rows > cols:
            multiply_part(x, 1, cols, x, cols, False, A, n, n, n, rows, none)  # x^T x
        else:
            multiply_part(x, cols, 1, x, cols, True, A, n, n, n, cols, none)  # x x^T
        multiply_part(A, n, 1, A, n, False, P, n, n, n, n, none)
        _polynomial(A, P, n, a, b, c)
        left, right = (x, P) if rows > cols else (P, x)
        multiply_part(left, n, 1, right, cols, False, y, cols, rows, cols, n, none)
        x, y = y, x
    return x


@jit(inner=True)
def _subtract_step(w, u, keep, rate):
    for i in range(w.size):
        w[i] = keep * w[i] - rate * u[i]


@jit(parallel=True)
def _muon_matrices(w, addresses, ends, shapes, order, hands, m, keep, rates, momentum, a, b, c):
    # dealt like cards, the largest first, one to each thread in turn: all get about the same
    for hand in prange(hands):
        for turn in range(hand, order.size, hands):
            i = order[turn]
            rows, cols, lo = shapes[i, 0], shapes[i, 1], ends[i - 1] if i else 0
            w_i, m_i, n = w[lo : ends[i]], m[lo : ends[i]], min(rows, cols)
            x, y, A, P = np.empty_like(w_i), np.empty_like(w_i), np.empty(n * n, w.dtype), np.empty(n * n, w.dtype)
            pointer: Any = _pointer(addresses[i], w)  # type: ignore[call-arg]
            _look_ahead(m_i, carray(pointer, (w_i.size,)), momentum, x)
            _subtract_step(w_i, _orthogonal(x, y, A, P, rows, cols, a, b, c), keep, rates[i])


def muon_update(
    w: np.ndarray, grads: Sequence[np.ndarray], m: np.ndarray, lr: float, momentum: float, weight_decay: float
) -> None:
    """See optim.py."""
    row = _checked("muon_update", grads, w=w, m=m)
    if not w.size:
        return
    shapes, number = np.array([g.shape for g in grads], np.int64), w.dtype.type
    work = shapes.prod(axis=1) * shapes.min(axis=1)
    order = np.argsort(-work, kind="stable")[: np.count_nonzero(work)]
    rates = (0.2 * lr * np.sqrt(shapes.max(axis=1))).astype(w.dtype)
    numbers = map(number, (momentum, 3.4445, -4.7750, 2.0315))
    keep, hands = number(1 - lr * weight_decay), get_num_threads()
    _muon_matrices(w, row.addresses, row.ends, shapes, order, hands, m, keep, rates, *numbers)


# ---- the gradient's norm -------------------------------------------------------------------------


@jit(inner=True)
def _sum_of_squares(x):
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@jit(parallel=True)
def _sum_of_squares_blocks(addresses, ends, like, partial):
    for block in prange(partial.size):
        total = 0.0
        for _, x in _pieces(addresses, ends, np.int64(block), like):
            total += _sum_of_squares(x)
        partial[block] = total


def sum_of_squares(arrays: Sequence[np.ndarray]) -> float:
    """See optim.py."""
    row = _Row(arrays, np.result_type(np.float32, *arrays))
    if not row.size:
        return 0.0
    partial = np.empty(-(-row.size // _BLOCK))
    _sum_of_squares_blocks(row.addresses, row.ends, row.arrays[0].reshape(-1), partial)
    return float(partial.sum())


@jit(inner=True)
def _scale(x, factor):
    for i in range(x.size):
        x[i] *= factor


@jit(parallel=True)
def _scale_blocks(addresses, ends, like, factor):
    for block in prange((ends[-1] + _BLOCK - 1) // _BLOCK):
        for _, x in _pieces(addresses, ends, np.int64(block), like):
            _scale(x, factor)


def scale_all(arrays: Sequence[np.ndarray], factor: float) -> None:
    """See optim.py."""
    if not all(x.flags.writeable for x in arrays):
        raise ValueError("scale_all: a read-only array cannot be scaled in place")
    if not all(x.flags.c_contiguous and x.dtype == arrays[0].dtype and x.dtype.char in "fd" for x in arrays):
        for x in arrays:
            x *= factor
    elif arrays and (row := _Row(arrays, arrays[0].dtype)).size:
        like = arrays[0].reshape(-1)
        _scale_blocks(row.addresses, row.ends, like, like.dtype.type(factor))
