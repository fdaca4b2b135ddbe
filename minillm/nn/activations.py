"""The non-linearities as layers, to stand between others in a ``Sequential``."""

from __future__ import annotations

from .. import functional as F
from ..tensor import Tensor
from .module import Module


class ReLU(Module):
    """y = max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        """See ``F.relu``."""
        return F.relu(x)


class Tanh(Module):
    """y = tanh x."""

    def forward(self, x: Tensor) -> Tensor:
        """See ``F.tanh``."""
        return F.tanh(x)


class GELU(Module):
    """The gaussian error linear unit, tanh form unless ``approximate="none"``."""

    def __init__(self, approximate: str = "tanh") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """See ``F.gelu``."""
        return F.gelu(x, self.approximate)


class SiLU(Module):
    """y = x s(x), s the sigmoid."""

    def forward(self, x: Tensor) -> Tensor:
        """See ``F.silu``."""
        return F.silu(x)


class Sigmoid(Module):
    """y = 1 / (1 + e^-x)."""

    def forward(self, x: Tensor) -> Tensor:
        """See ``F.sigmoid``."""
        return F.sigmoid(x)
