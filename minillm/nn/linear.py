"""The neuron, many at a time: weighted sums of the inputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from . import init
from .module import Module


class Linear(Module):
    """y = x W^T + b: ``out_features`` neurons that look at the same ``in_features`` inputs.

    x: (..., in_features) -> (..., out_features); weight: (out_features, in_features), one row per neuron; bias:
    (out_features,). Both begin uniform in +-1 / sqrt(in_features).
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


class Sequential(Module):
    """Layers one after another, each on the output of the one before."""

    def __init__(self, *layers: Module) -> None:
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Pass x through every layer."""
        for layer in self.layers:
            x = layer(x)
        return x

    def _parts(self) -> Iterator[tuple[str, Tensor | Module]]:
        """The layers are named 0, 1, 2, ... as in torch."""
        yield from ((name.removeprefix("layers."), part) for name, part in super()._parts())

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Module:
        return self.layers[i]


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


class Dropout(Module):
    """Zero a random share ``p`` of the entries while training."""

    def __init__(self, p: float = 0.5, rng: np.random.Generator | int | None = None) -> None:
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p must be in [0, 1); got {p}")
        self.p, self.rng = p, np.random.default_rng(rng)

    def forward(self, x: Tensor) -> Tensor:
        """See ``F.dropout``."""
        return F.dropout(x, self.p, self.rng, self.training)

    def draw_from(self, rng: np.random.Generator) -> None:
        """Drop what ``rng`` says from now on."""
        self.rng = rng

    def extra_repr(self) -> str:
        """The share."""
        return f"p={self.p}"
