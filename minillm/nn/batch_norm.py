"""Batch normalisation: each channel is brought to a standard size over the whole batch."""

from __future__ import annotations

import numpy as np

from ..tensor import Tensor, floats
from . import init
from .module import Module


class _BatchNorm(Module):
    """What both have: see `BatchNorm2d`."""

    _shapes: dict[int, str] = {}  # how many axes x may have, and which

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        name = type(self).__name__
        if channels < 1:
            raise ValueError(f"{name}: channels must be at least 1; got {channels}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"{name}: momentum must be from 0 to 1; got {momentum}")
        self.weight, self.bias = init.constant((channels,), 1.0), init.constant((channels,), 0.0)
        self.running_mean = Tensor(np.zeros(channels, np.float32))
        self.running_var = Tensor(np.ones(channels, np.float32))
        self.eps, self.momentum = eps, momentum

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel; the shape stays. Raises ValueError for another shape, or a batch
        of one number.
        """
        channels = self.weight.shape[0]
        if x.ndim not in self._shapes or x.shape[1] != channels:
            expected = " or ".join(self._shapes.values())
            raise ValueError(f"{type(self).__name__}: expected x {expected} with C = {channels}; got {x.shape}")
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        per_channel = [1, channels] + [1] * (x.ndim - 2)
        if self.training:
            n = x.size // channels
            if n < 2:
                raise ValueError(
                    f"{type(self).__name__}: training needs more than one number per channel; got x {x.shape}. "
                    "Call eval() to use the running averages"
                )
            mean = x.mean(axes, keepdims=True)  # (1, C, 1, ...)
            centred = x - mean
            var = (centred * centred).mean(axes, keepdims=True)
            self._follow(mean, var, n)
        else:
            centred = x - self.running_mean.reshape(per_channel)
            var = self.running_var.reshape(per_channel)
        normal = centred / (var + self.eps) ** 0.5
        return normal * self.weight.reshape(per_channel) + self.bias.reshape(per_channel)

    def _follow(self, mean: Tensor, var: Tensor, n: int) -> None:
        share = self.momentum
        for running, now in ((self.running_mean, floats(mean)), (self.running_var, floats(var) * (n / (n - 1)))):
            running.data = ((1 - share) * running.data + share * now.reshape(-1)).astype(running.dtype)

    def extra_repr(self) -> str:
        """Channels and eps."""
        return f"{self.weight.shape[0]}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of x: (B, C) or (B, C, T); mean and var over B (and T).

    y = weight (x - mean) / sqrt(var + eps) + bias, per channel (Ioffe & Szegedy 2015); see
    `BatchNorm2d` for the running averages.
    """

    _shapes = {2: "(B, C)", 3: "(B, C, T)"}


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of pictures x: (B, C, Y, X); mean and var over B, Y and X.

    y = weight (x - mean) / sqrt(var + eps) + bias, per channel (Ioffe & Szegedy 2015).

    While training, mean and var are those of the batch, and running averages of them are kept:
    running <- (1 - momentum) running + momentum of_the_batch. In use (``eval()``) the running
    averages stand in their place, so that an example no longer depends on its neighbours. As in
    torch, the running variance counts n - 1. ``running_mean`` and ``running_var`` have no gradient,
    and are saved with the parameters.
    """

    _shapes = {4: "(B, C, Y, X)"}
