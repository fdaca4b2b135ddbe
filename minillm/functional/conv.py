"""Looking at pictures: the same small filter at every place (LeCun et al. 1989).

A convolution is a linear layer on patches. ``_patches`` shows every window of the padded picture
without copying; the rest is a matrix product, and its gradient adds each patch back to where it was
cut.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..tensor import Tensor, floats, product, total
from .linear import linear_forward
from .shaping import pad

Pair = int | Sequence[int]
Taps = list[tuple[int, int, tuple]]


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Pair = 1, padding: Pair = 0) -> Tensor:
    """Slide ``weight`` over a picture and take the weighted sum at every place.

    x: (B, C, Y, X), weight: (N, C, KY, KX), bias: (N,) -> (B, N, (Y + 2 padding - KY) // stride +
    1, likewise X).
    y_npq = sum_cij w_ncij x_c,(sp + i),(sq + j) + b_n, s the stride, x padded with zeros
    dw_ncij = sum_pq dy_npq x_c,(sp + i),(sq + j),   db_n = sum_pq dy_npq
    dx_c,(sp + i),(sq + j) += sum_n dy_npq w_ncij, at every place p, q that saw the pixel
    Raises ValueError when channels differ, or the filter is larger than the padded picture.
    """
    sy, sx = _pair("conv2d: stride", stride, 1)
    py, px = _pair("conv2d: padding", padding, 0)
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"conv2d: expected x (B, C, Y, X) and weight (N, C, KY, KX); got {x.shape} and {weight.shape}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"conv2d: bias must be (N,) = {weight.shape[:1]}; got {bias.shape}")
    x = _padded(x, py, px, 0.0)
    N, C, ky, kx = weight.shape
    a, w = x.data, weight.data.reshape(N, C * ky * kx)
    patches, taps = _patches("conv2d", a, ky, kx, sy, sx)  # (B, C, OY, OX, KY, KX)
    B, _, oy, ox = patches.shape[:4]
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(B * oy * ox, C * ky * kx)  # a copy: pixels are in many patches
    y = linear_forward(rows, w, None if bias is None else bias.data)  # (B OY OX, N)
    x_needs = x.requires_grad

    def backward(dy):  # (B, N, OY, OX)
        dy_rows = dy.transpose(0, 2, 3, 1).reshape(B * oy * ox, N)
        dw = product(dy_rows.T, rows).reshape(N, C, ky, kx)
        dx = None
        if x_needs:
            d_patches = product(dy_rows, w).reshape(B, oy, ox, C, ky, kx)
            dx = np.zeros(a.shape, a.dtype)
            for i, j, pixels in taps:
                dx[pixels] += d_patches[..., i, j].transpose(0, 3, 1, 2)
        return (dx, dw) if bias is None else (dx, dw, total(dy_rows, axis=0))

    out = np.ascontiguousarray(y.reshape(B, oy, ox, N).transpose(0, 3, 1, 2))
    return Tensor.from_op(out, (x, weight) if bias is None else (x, weight, bias), backward)


def conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1, padding: int = 0) -> Tensor:
    """``conv2d`` along one axis.

    x: (B, C, T), weight: (N, C, K), bias: (N,) -> (B, N, (T + 2 padding - K) // stride + 1).
    y_nt = sum_ck w_nck x_c,(st + k) + b_n;   dw_nck = sum_t dy_nt x_c,(st + k),
    dx_c,(st + k) += sum_n dy_nt w_nck
    """
    if x.ndim != 3 or weight.ndim != 3 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"conv1d: expected x (B, C, T) and weight (N, C, K); got {x.shape} and {weight.shape}")
    (B, C, T), (N, _, K) = x.shape, weight.shape
    for what, n, least in (("stride", stride, 1), ("padding", padding, 0)):
        if not isinstance(n, (int, np.integer)) or n < least:
            raise ValueError(f"conv1d: {what} must be an integer of at least {least}; got {n!r}")
    y = conv2d(x.reshape(B, C, 1, T), weight.reshape(N, C, 1, K), bias, (1, stride), (0, padding))
    return y.reshape(B, N, y.shape[-1])


def max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """y = the greatest entry of each window, which gets dy; of equal ones the first does, row by
    row, as torch's.

    x: (B, C, Y, X) -> (B, C, (Y + 2 padding - KY) // stride + 1, likewise X); stride: the window's
    size unless given. The padding is -inf: it never wins. Where windows overlap, gradients add.
    """
    x, patches, taps = _windows("max_pool2d", x, kernel_size, stride, padding, -np.inf)
    a = x.data
    ky, kx = patches.shape[4:]
    flat = patches.reshape(*patches.shape[:4], ky * kx)
    winner = flat.argmax(axis=-1)  # (B, C, OY, OX)

    def backward(dy):
        dx = np.zeros(a.shape, a.dtype)
        for i, j, pixels in taps:
            dx[pixels] += np.where(winner == i * kx + j, dy, dy.dtype.type(0))
        return (dx,)

    return Tensor.from_op(np.take_along_axis(flat, winner[..., None], axis=-1)[..., 0], (x,), backward)


def avg_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """y = the mean of each window, padding (zeros) counted in; each of its KY KX entries gets dy /
    (KY KX).

    x: (B, C, Y, X) -> (B, C, (Y + 2 padding - KY) // stride + 1, likewise X); stride: the window's
    size unless given.
    """
    x, patches, taps = _windows("avg_pool2d", x, kernel_size, stride, padding, 0.0)
    a = x.data

    def backward(dy):
        dx = np.zeros(a.shape, a.dtype)
        share = dy / len(taps)
        for _, _, pixels in taps:
            dx[pixels] += share
        return (dx,)

    return Tensor.from_op(total(patches, (-2, -1)) / len(taps), (x,), backward)


def _windows(
    name: str, x: Tensor, kernel_size: Pair, stride: Pair | None, padding: Pair, value: float
) -> tuple[Tensor, np.ndarray, Taps]:
    """What both pools begin with: x padded, its windows and their taps."""
    ky, kx = _pair(f"{name}: kernel_size", kernel_size, 1)
    sy, sx = (ky, kx) if stride is None else _pair(f"{name}: stride", stride, 1)
    py, px = _pair(f"{name}: padding", padding, 0)
    if 2 * py > ky or 2 * px > kx:
        raise ValueError(f"{name}: padding must be at most half of the window, {ky} x {kx}; got {padding}")
    if x.ndim != 4:
        raise ValueError(f"{name}: expected x (B, C, Y, X); got shape {x.shape}")
    x = _padded(x, py, px, value)
    return x, *_patches(name, x.data, ky, kx, sy, sx)


def _padded(x: Tensor, py: int, px: int, value: float) -> Tensor:
    """Floats with ``value`` around each picture."""
    x = x if floats(x) is x.data else x.astype(np.float32)
    return pad(x, ((0, 0), (0, 0), (py, py), (px, px)), value) if py or px else x


def _patches(name: str, a: np.ndarray, ky: int, kx: int, sy: int, sx: int) -> tuple[np.ndarray, Taps]:
    """Every window of a: (B, C, Y, X) as a view (B, C, OY, OX, KY, KX), and the taps (i, j, pixels)
    of the filter.

    ``patches[..., i, j] == a[pixels]``: one tap at all places at once. No two places share a pixel
    there, so that gradients can be added in with ``dx[pixels] += ...``, which counts each pixel
    once.
    """
    if ky > a.shape[2] or kx > a.shape[3]:
        raise ValueError(f"{name}: a window of {ky} x {kx} does not fit into {a.shape[2]} x {a.shape[3]}")
    patches = np.lib.stride_tricks.sliding_window_view(a, (ky, kx), axis=(2, 3))[:, :, ::sy, ::sx]
    height, width = sy * patches.shape[2], sx * patches.shape[3]
    every = slice(None)
    taps = [
        (i, j, (every, every, slice(i, i + height, sy), slice(j, j + width, sx))) for i in range(ky) for j in range(kx)
    ]
    return patches, taps


def _pair(what: str, value: Pair, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
    if len(pair) != 2 or any(not isinstance(n, (int, np.integer)) or n < least for n in pair):
        raise ValueError(f"{what} must be an integer of at least {least}, or two of them; got {value!r}")
    return pair
