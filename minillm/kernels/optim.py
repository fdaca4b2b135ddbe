"""One step of an optimiser, in place, in one pass over parameter, gradient and state; the norm of the gradient.

The parameters and what an optimiser remembers of them are one long array each. Their gradients are many arrays, made
by the backward of one operation after another: to copy them side by side first would cost a quarter of the step, and a
call for each would cost more than its work. So the loops get the addresses of all, and see them as one long array,
which they cut into blocks of a fixed size: the result does not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from ._jit import JIT, address, contiguous, jit, kernel, prange

Arrays = np.ndarray | Sequence[np.ndarray]  # of one dtype

_BLOCK = 1 << 14  # numbers of a task


# ---- many arrays as a long one ---------------------------------------------------------------------------------------


class _Pieces:
    """Contiguous arrays of one dtype, one after another: their addresses, and where each ends in the long array."""

    def __init__(self, arrays: Arrays, dtype: np.dtype | None = None) -> None:
        arrays = [arrays] if isinstance(arrays, np.ndarray) else arrays
        self.arrays = [contiguous(x, dtype or arrays[0].dtype) for x in arrays]  # copies live as long as the addresses
        self.addresses = np.array([address(x) for x in self.arrays], np.int64)
        self.ends = np.cumsum([x.size for x in self.arrays], dtype=np.int64)
        self.size = int(self.ends[-1]) if self.arrays else 0


def _joined(arrays: Arrays) -> np.ndarray:
    return arrays if isinstance(arrays, np.ndarray) else np.concatenate([x.reshape(-1) for x in arrays])


@intrinsic
def _pointer(typing, address, like):
    def generate(context, build, signature, arguments):
        return build.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(address, like), generate


@jit(inner=True)
def _piece(addresses, ends, lo, hi, like):
    """The numbers from ``lo`` on of the long array, up to ``hi`` or the end of the array that they lie in."""
    i = 0
    while ends[i] <= lo:
        i += 1
    begin = ends[i - 1] if i else 0
    pointer: Any = _pointer(addresses[i] + (lo - begin) * like.itemsize, like)  # type: ignore[call-arg]
    return carray(pointer, (min(hi, ends[i]) - lo,))


# ---- updates ---------------------------------------------------------------------------------------------------------


def _checked(name: str, grad: Arrays, **arrays: np.ndarray) -> _Pieces:
    """The gradient's pieces. Raises ValueError unless the arrays, which are changed in place, are flat, contiguous,
    writable and alike, and the gradient has as many numbers.
    """
    first = next(iter(arrays.values()))
    for label, array in arrays.items():
        if array.ndim != 1 or array.dtype != first.dtype or array.size != first.size or not array.flags.carray:
            raise ValueError(
                f"{name}: {label} must be a writable contiguous ({first.size},) array of {first.dtype}; "
                f"got {array.shape} {array.dtype}"
            )
    pieces = _Pieces(grad, first.dtype)
    if pieces.size != first.size:
        raise ValueError(f"{name}: param has {first.size} numbers; the gradients have {pieces.size}")
    return pieces


def adamw_update_numpy(
    param: np.ndarray,
    grad: Arrays,
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """One step of AdamW in place (Loshchilov and Hutter, 2019).   param, m, v: (n,); step counts from 1.

    grad: g, an array of n numbers, or several that hold n together.

    m = beta1 m + (1 - beta1) g            (mean of the gradient)
    v = beta2 v + (1 - beta2) g^2          (mean of its square)
    param -= lr weight_decay param + lr mhat / (sqrt(vhat) + eps)
    with mhat = m / (1 - beta1^step), vhat = v / (1 - beta2^step): both began at 0, and this makes up for it.
    """
    g = _joined(grad)
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    mhat, vhat = m / (1 - beta1**step), v / (1 - beta2**step)
    param -= lr * weight_decay * param + lr * mhat / (np.sqrt(vhat) + eps)


@jit(inner=True)
def _adamw_block(param, grad, m, v, keep, rate, more_g, keep_v, more_v, scale_v, eps):
    for i in range(grad.size):
        g = grad[i]
        m_i = m[i] + more_g * (g - m[i])
        v_i = keep_v * v[i] + more_v * g * g
        m[i] = m_i
        v[i] = v_i
        param[i] = keep * param[i] - rate * m_i / (np.sqrt(v_i) * scale_v + eps)


@jit(parallel=True)
def _adamw_blocks(param, addresses, ends, m, v, keep, rate, more_g, keep_v, more_v, scale_v, eps):
    for b in prange((param.size + _BLOCK - 1) // _BLOCK):
        lo, hi = np.int64(b) * _BLOCK, min((np.int64(b) + 1) * _BLOCK, param.size)
        while lo < hi:
            grad = _piece(addresses, ends, lo, hi, param)
            _adamw_block(param[lo:], grad, m[lo:], v[lo:], keep, rate, more_g, keep_v, more_v, scale_v, eps)
            lo += grad.size


@kernel(twin=adamw_update_numpy)
def adamw_update(  # noqa: D103
    param: np.ndarray,
    grad: Arrays,
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    grads = _checked("adamw_update", grad, param=param, m=m, v=v)
    if not JIT:
        return adamw_update_numpy(param, grads.arrays, m, v, lr, beta1, beta2, eps, weight_decay, step)
    keep, rate = 1 - lr * weight_decay, lr / (1 - beta1**step)
    scale_v = 1 / math.sqrt(1 - beta2**step)
    numbers = keep, rate, 1 - beta1, beta2, 1 - beta2, scale_v, eps
    _adamw_blocks(param, grads.addresses, grads.ends, m, v, *map(param.dtype.type, numbers))


def sgd_update_numpy(
    param: np.ndarray,
    grad: Arrays,
    velocity: np.ndarray,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """One step of stochastic gradient descent in place.   param, velocity: (n,); grad as in ``adamw_update``.

    velocity = momentum velocity + grad + weight_decay param, beginning at 0;   param -= lr velocity
    """
    velocity *= momentum
    velocity += _joined(grad) + weight_decay * param
    param -= lr * velocity


@jit(inner=True)
def _sgd_block(param, grad, velocity, lr, momentum, weight_decay):
    for i in range(grad.size):
        step = momentum * velocity[i] + grad[i] + weight_decay * param[i]
        velocity[i] = step
        param[i] -= lr * step


@jit(parallel=True)
def _sgd_blocks(param, addresses, ends, velocity, lr, momentum, weight_decay):
    for b in prange((param.size + _BLOCK - 1) // _BLOCK):
        lo, hi = np.int64(b) * _BLOCK, min((np.int64(b) + 1) * _BLOCK, param.size)
        while lo < hi:
            grad = _piece(addresses, ends, lo, hi, param)
            _sgd_block(param[lo:], grad, velocity[lo:], lr, momentum, weight_decay)
            lo += grad.size


@kernel(twin=sgd_update_numpy)
def sgd_update(  # noqa: D103
    param: np.ndarray,
    grad: Arrays,
    velocity: np.ndarray,
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    grads = _checked("sgd_update", grad, param=param, velocity=velocity)
    if not JIT:
        return sgd_update_numpy(param, grads.arrays, velocity, lr, momentum, weight_decay)
    numbers = map(param.dtype.type, (lr, momentum, weight_decay))
    _sgd_blocks(param, grads.addresses, grads.ends, velocity, *numbers)


def sum_of_squares_numpy(arrays: Arrays) -> float:
    """sum x_i^2 in float64, over an array of any shape or over several: the square of a gradient's norm."""
    return float(np.square(_joined(arrays), dtype=np.float64).sum())


@jit(inner=True)
def _sum_of_squares(x):
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@jit(parallel=True)
def _sum_of_squares_blocks(addresses, ends, like, partial):
    for b in prange(partial.size):
        lo, hi, total = np.int64(b) * _BLOCK, min((np.int64(b) + 1) * _BLOCK, ends[-1]), 0.0
        while lo < hi:
            x = _piece(addresses, ends, lo, hi, like)
            total += _sum_of_squares(x)
            lo += x.size
        partial[b] = total


@kernel(twin=sum_of_squares_numpy)
def sum_of_squares(arrays: Arrays) -> float:  # noqa: D103
    if not JIT:
        return sum_of_squares_numpy(arrays)
    pieces = _Pieces(arrays)
    if not pieces.size:
        return 0.0
    partial = np.empty(-(-pieces.size // _BLOCK))
    _sum_of_squares_blocks(pieces.addresses, pieces.ends, pieces.arrays[0].reshape(-1), partial)
    return float(partial.sum())


def scale_all_numpy(arrays: Sequence[np.ndarray], factor: float) -> None:
    """x *= factor for each of the arrays, whatever their shapes: a gradient that is clipped."""
    for x in arrays:
        x *= factor


@jit(inner=True)
def _scale(x, factor):
    for i in range(x.size):
        x[i] *= factor


@jit(parallel=True)
def _scale_blocks(addresses, ends, like, factor):
    for b in prange((ends[-1] + _BLOCK - 1) // _BLOCK):
        lo, hi = np.int64(b) * _BLOCK, min((np.int64(b) + 1) * _BLOCK, ends[-1])
        while lo < hi:
            x = _piece(addresses, ends, lo, hi, like)
            _scale(x, factor)
            lo += x.size


@kernel(twin=scale_all_numpy)
def scale_all(arrays: Sequence[np.ndarray], factor: float) -> None:  # noqa: D103
    if not all(x.flags.writeable for x in arrays):
        raise ValueError("scale_all: a read-only array cannot be scaled in place")
    alike = all(x.flags.c_contiguous and x.dtype == arrays[0].dtype and x.dtype.char in "fd" for x in arrays)
    if not JIT or not alike:
        return scale_all_numpy(arrays, factor)
    pieces = _Pieces(arrays)
    if pieces.size:
        like = arrays[0].reshape(-1)
        _scale_blocks(pieces.addresses, pieces.ends, like, like.dtype.type(factor))
