"""Layers made of layers."""

from __future__ import annotations

from ..tensor import Tensor
from .module import Module


class Sequential(Module):
    """Layers one after another, each on the output of the one before."""

    def __init__(self, *layers: Module) -> None:
        self.layers = list(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Pass x through every layer."""
        for layer in self.layers:
            x = layer(x)
        return x

    def children(self):
        """The layers, named 0, 1, 2, ... as torch does."""
        return ((str(i), layer) for i, layer in enumerate(self.layers))

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Module:
        return self.layers[i]
