"""The neuron, many at a time: weighted sums of the inputs."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from . import init
from .module import Module


class Linear(Module):
    """y = x W^T + b: ``out_features`` neurons that look at the same ``in_features`` inputs.

    x: (..., in_features) -> (..., out_features); weight: (out_features, in_features), one row per
    neuron; bias: (out_features,). Both begin uniform in +-1 / sqrt(in_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        if in_features < 1 or out_features < 1:
            raise ValueError(f"Linear: sizes must be at least 1; got {in_features} -> {out_features}")
        rng = np.random.default_rng(rng)
        self.weight = init.fan_in(rng, (out_features, in_features), in_features)
        self.bias = init.fan_in(rng, (out_features,), in_features) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Project x: (..., in_features) -> (..., out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes."""
        out_features, in_features = self.weight.shape
        return f"{in_features} -> {out_features}" + ("" if self.bias is not None else ", no bias")
