"""One step of an optimiser, in place, in one pass over parameter, gradient and state; and the norm of the gradient."""

from __future__ import annotations

import math

import numpy as np

from ._jit import contiguous, jit, kernel, prange

_SERIAL = 1 << 14  # below so many numbers one thread is done before a second one has woken up
_BLOCK = 1 << 14  # numbers that are summed before the partial sums are added


def _check_flat(name: str, **arrays: np.ndarray) -> None:
    """Raise ValueError unless the arrays are flat, contiguous, writable and alike: they are changed in place."""
    first = next(iter(arrays.values()))
    for label, array in arrays.items():
        if array.ndim != 1 or array.dtype != first.dtype or array.size != first.size or not array.flags.carray:
            raise ValueError(
                f"{name}: {label} must be a writable contiguous ({first.size},) array of {first.dtype}; "
                f"got {array.shape} {array.dtype}"
            )


def adamw_update_numpy(
    param: np.ndarray,
    grad: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    grad_scale: float = 1.0,
) -> None:
    """One step of AdamW in place (Loshchilov and Hutter, 2019).   param, grad, m, v: (n,); step counts from 1.

    g = grad_scale grad                    (the factor of gradient clipping)
    m = beta1 m + (1 - beta1) g            (mean of the gradient)
    v = beta2 v + (1 - beta2) g^2          (mean of its square)
    param -= lr weight_decay param + lr mhat / (sqrt(vhat) + eps)
    with mhat = m / (1 - beta1^step), vhat = v / (1 - beta2^step): both began at 0, and this makes up for it.
    """
    g = grad * grad_scale
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * g * g
    mhat, vhat = m / (1 - beta1**step), v / (1 - beta2**step)
    param -= lr * weight_decay * param + lr * mhat / (np.sqrt(vhat) + eps)


@jit(parallel=True)
def _adamw_loop(param, grad, m, v, keep, rate, more_g, keep_v, more_v, scale_v, eps, grad_scale):
    for i in prange(param.size):
        g = grad[i] * grad_scale
        m_i = m[i] + more_g * (g - m[i])
        v_i = keep_v * v[i] + more_v * g * g
        m[i] = m_i
        v[i] = v_i
        param[i] = keep * param[i] - rate * m_i / (np.sqrt(v_i) * scale_v + eps)


@kernel(twin=adamw_update_numpy)
def adamw_update(  # noqa: D103
    param: np.ndarray,
    grad: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
    grad_scale: float = 1.0,
) -> None:
    _check_flat("adamw_update", param=param, grad=grad, m=m, v=v)
    keep, rate = 1 - lr * weight_decay, lr / (1 - beta1**step)
    scale_v = 1 / math.sqrt(1 - beta2**step)
    numbers = keep, rate, 1 - beta1, beta2, 1 - beta2, scale_v, eps, grad_scale
    _adamw_loop(param, grad, m, v, *map(param.dtype.type, numbers))


def sgd_update_numpy(
    param: np.ndarray,
    grad: np.ndarray,
    velocity: np.ndarray,
    lr: float,
    momentum: float,
    weight_decay: float,
    grad_scale: float = 1.0,
) -> None:
    """One step of stochastic gradient descent in place.   param, grad, velocity: (n,); velocity begins at 0.

    velocity = momentum velocity + grad_scale grad + weight_decay param;   param -= lr velocity
    """
    velocity *= momentum
    velocity += grad_scale * grad + weight_decay * param
    param -= lr * velocity


@jit(parallel=True)
def _sgd_loop(param, grad, velocity, lr, momentum, weight_decay, grad_scale):
    for i in prange(param.size):
        step = momentum * velocity[i] + grad_scale * grad[i] + weight_decay * param[i]
        velocity[i] = step
        param[i] -= lr * step


@kernel(twin=sgd_update_numpy)
def sgd_update(  # noqa: D103
    param: np.ndarray,
    grad: np.ndarray,
    velocity: np.ndarray,
    lr: float,
    momentum: float,
    weight_decay: float,
    grad_scale: float = 1.0,
) -> None:
    _check_flat("sgd_update", param=param, grad=grad, velocity=velocity)
    _sgd_loop(param, grad, velocity, *map(param.dtype.type, (lr, momentum, weight_decay, grad_scale)))


def sum_of_squares_numpy(x: np.ndarray) -> float:
    """sum x_i^2 in float64, of an array of any shape: the square of a gradient's norm."""
    return float(np.square(x, dtype=np.float64).sum())


@jit
def _sum_of_squares_block(x):
    total = 0.0
    for i in range(x.size):
        total += np.float64(x[i]) * np.float64(x[i])
    return total


@jit(parallel=True)
def _sum_of_squares_blocks(x, partial):
    # blocks of fixed size, their sums added in order: the same result for any number of threads
    for b in prange(partial.size):
        partial[b] = _sum_of_squares_block(x[b * _BLOCK : (b + 1) * _BLOCK])


@kernel(twin=sum_of_squares_numpy)
def sum_of_squares(x: np.ndarray) -> float:  # noqa: D103
    x = contiguous(x).reshape(-1)
    if x.size <= _BLOCK:
        return float(_sum_of_squares_block(x))
    partial = np.empty(-(-x.size // _BLOCK))
    _sum_of_squares_blocks(x, partial)
    return float(partial.sum())
