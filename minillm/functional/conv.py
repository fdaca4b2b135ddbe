"""Looking at pictures: the same small filter at every place (LeCun et al. 1989).

A convolution is a linear layer on patches. ``_patches`` shows every window of the padded picture without copying;
the rest is a matrix product, and its gradient adds each patch back to where it was cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import kernels
from ..tensor import Tensor
from .shaping import pad as pad_with

Pair = int | Sequence[int]


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Slide ``weight`` over a picture and take the weighted sum at every place.

    x: (B, C, Y, X), weight: (N, C, KY, KX), bias: (N,) -> (B, N, (Y + 2 padding - KY) // stride + 1, likewise X).
    Raises ValueError when channels differ, or the filter is larger than the padded picture.
    """
    sy, sx = _pair("conv2d: stride", stride, 1)
    py, px = _pair("conv2d: padding", padding, 0)
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"conv2d: expected x (B, C, Y, X) and weight (N, C, KY, KX); got {x.shape} and {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"conv2d: bias must be (N,) = {weight.shape[:1]}; got {bias.shape}")
    if py or px:
        x = pad_with(x, ((0, 0), (0, 0), (py, py), (px, px)))
    N, C, ky, kx = weight.shape
    a, w = x.data, weight.data.reshape(N, -1)
    patches = _patches("conv2d", a, ky, kx, sy, sx)  # (B, C, OY, OX, KY, KX), a view
    B, _, oy, ox = patches.shape[:4]
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(B * oy * ox, C * ky * kx)
    y = kernels.linear_forward(rows, w, None if bias is None else bias.data)  # (B OY OX, N)

    def backward(dy):  # (B, N, OY, OX)
        dy_rows = dy.transpose(0, 2, 3, 1).reshape(-1, N)
        dw = kernels.product(dy_rows.T, rows).reshape(N, C, ky, kx)
        d_patches = kernels.product(dy_rows, w).reshape(B, oy, ox, C, ky, kx)
        dx = np.zeros(a.shape, a.dtype)
        for i in range(ky):  # one filter tap at a time: all places at once, and no two of them share a pixel
            for j in range(kx):
                dx[:, :, i : i + sy * oy : sy, j : j + sx * ox : sx] += d_patches[..., i, j].transpose(0, 3, 1, 2)
        return (dx, dw) if bias is None else (dx, dw, dy_rows.sum(axis=0))

    out = np.ascontiguousarray(y.reshape(B, oy, ox, N).transpose(0, 3, 1, 2))
    return Tensor.from_op(out, (x, weight) if bias is None else (x, weight, bias), backward)


def conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """``conv2d`` along one axis: x (B, C, T), weight (N, C, K) -> (B, N, (T + 2 padding - K) // stride + 1)."""
    if x.ndim != 3 or weight.ndim != 3:
        raise ValueError(f"conv1d: expected x (B, C, T) and weight (N, C, K); got {x.shape} and {weight.shape}")
    (B, C, T), (N, D, K) = x.shape, weight.shape
    y = conv2d(x.reshape(B, C, 1, T), weight.reshape(N, D, 1, K), bias, (1, stride), (0, padding))
    return y.reshape(B, N, y.shape[-1])


def max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None) -> Tensor:
    """The greatest entry of each window; ties share the gradient. x: (B, C, Y, X), stride: the window's size."""
    windows = _windows("max_pool2d", x, kernel_size, stride)
    return windows.max(axis=(-2, -1))


def avg_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None) -> Tensor:
    """The mean of each window. x: (B, C, Y, X), stride: the window's size unless given."""
    windows = _windows("avg_pool2d", x, kernel_size, stride)
    return windows.mean(axis=(-2, -1))


def _windows(name: str, x: Tensor, kernel_size: Pair, stride: Pair | None) -> Tensor:
    """(B, C, Y, X) -> (B, C, OY, OX, KY, KX); where windows overlap, the gradients add."""
    ky, kx = _pair(f"{name}: kernel_size", kernel_size, 1)
    sy, sx = (ky, kx) if stride is None else _pair(f"{name}: stride", stride, 1)
    if x.ndim != 4:
        raise ValueError(f"{name}: expected x (B, C, Y, X); got shape {x.shape}")
    a = x.data
    patches = _patches(name, a, ky, kx, sy, sx)
    oy, ox = patches.shape[2:4]

    def backward(dy):
        dx = np.zeros(a.shape, a.dtype)
        for i in range(ky):
            for j in range(kx):
                dx[:, :, i : i + sy * oy : sy, j : j + sx * ox : sx] += dy[..., i, j]
        return (dx,)

    backward.__qualname__ = name
    return Tensor.from_op(patches.copy(), (x,), backward)


def _patches(name: str, a: np.ndarray, ky: int, kx: int, sy: int, sx: int) -> np.ndarray:
    if ky > a.shape[2] or kx > a.shape[3]:
        raise ValueError(f"{name}: a window of {ky} x {kx} does not fit into {a.shape[2]} x {a.shape[3]}")
    return np.lib.stride_tricks.sliding_window_view(a, (ky, kx), axis=(2, 3))[:, :, ::sy, ::sx]


def _pair(what: str, value: Pair, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
    if len(pair) != 2 or any(not isinstance(n, (int, np.integer)) or n < least for n in pair):
        raise ValueError(f"{what} must be an integer of at least {least}, or two of them; got {value!r}")
    return pair
