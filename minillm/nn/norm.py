"""Layers that bring every row to a standard size, so that depth neither inflates nor starves the
signal.
"""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from . import init
from .module import Module


class LayerNorm(Module):
    """y = weight (x - mean) / sqrt(var + eps) + bias over the last axis, of length ``size`` (Ba et
    al. 2016).
    """

    def __init__(self, size: int, eps: float = 1e-5, bias: bool = True) -> None:
        self.weight = init.constant((size,), 1.0)
        self.bias = init.constant((size,), 0.0) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x: (..., size)."""
        return F.layer_norm(x, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Size and eps."""
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RMSNorm(Module):
    """y = weight x / sqrt(mean x^2 + eps) over the last axis, of length ``size`` (Zhang & Sennrich
    2019).
    """

    def __init__(self, size: int, eps: float = 1e-5) -> None:
        self.weight = init.constant((size,), 1.0)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x: (..., size)."""
        return F.rms_norm(x, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Size and eps."""
        return f"{self.weight.shape[0]}, eps={self.eps}"
