"""Layers that look at pictures: the same small filters at every place, and pools that make the
picture smaller.
"""

from __future__ import annotations

import math

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from . import init
from .module import Module

Pair = int | tuple[int, int]


class Conv2d(Module):
    """``out_channels`` filters of the size ``kernel_size``, each slid over the whole picture (LeCun
    et al. 1989).

    x: (B, in_channels, Y, X) -> (B, out_channels, (Y + 2 padding - KY) // stride + 1, likewise X);
    see `F.conv2d`.
    weight: (out_channels, in_channels, KY, KX), bias: (out_channels,); both begin uniform in +-1 /
    sqrt(n), n the in_channels KY KX inputs of a filter. Raises ValueError for sizes below 1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        bias: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        ky, kx = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if min(in_channels, out_channels, ky, kx) < 1:
            raise ValueError(
                f"Conv2d: sizes must be at least 1; got {in_channels} -> {out_channels} channels, "
                f"kernel_size {ky} x {kx}"
            )
        rng, inputs = np.random.default_rng(rng), in_channels * ky * kx
        self.weight = init.fan_in(rng, (out_channels, in_channels, ky, kx), inputs)
        self.bias = init.fan_in(rng, (out_channels,), inputs) if bias else None
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, Y, X) -> (B, out_channels, Y', X')."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Channels and sizes."""
        N, C, ky, kx = self.weight.shape
        return f"{C} -> {N}, {ky} x {kx}, stride={self.stride}, padding={self.padding}"


class Conv1d(Module):
    """`Conv2d` along one axis.   x: (B, in_channels, T) -> (B, out_channels, (T + 2 padding - K) //
    stride + 1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if min(in_channels, out_channels, kernel_size) < 1:
            raise ValueError(
                f"Conv1d: sizes must be at least 1; got {in_channels} -> {out_channels} channels, "
                f"kernel_size {kernel_size}"
            )
        rng, inputs = np.random.default_rng(rng), in_channels * kernel_size
        self.weight = init.fan_in(rng, (out_channels, in_channels, kernel_size), inputs)
        self.bias = init.fan_in(rng, (out_channels,), inputs) if bias else None
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, T) -> (B, out_channels, T')."""
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding)

    def extra_repr(self) -> str:
        """Channels and sizes."""
        N, C, K = self.weight.shape
        return f"{C} -> {N}, {K}, stride={self.stride}, padding={self.padding}"


class MaxPool2d(Module):
    """The greatest entry of each window.   x: (B, C, Y, X) -> (B, C, Y', X'); see `F.max_pool2d`.
    """

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, C, Y', X')."""
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """The window."""
        return f"{self.kernel_size}"


class AvgPool2d(Module):
    """The mean of each window.   x: (B, C, Y, X) -> (B, C, Y', X'); see `F.avg_pool2d`."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, C, Y', X')."""
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding)

    def extra_repr(self) -> str:
        """The window."""
        return f"{self.kernel_size}"


class Flatten(Module):
    """All axes but the first become one: (B, ...) -> (B, N), as before a linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, N)."""
        return x.reshape(len(x), math.prod(x.shape[1:]))
