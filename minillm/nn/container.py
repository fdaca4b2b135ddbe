"""Layers made of layers."""

from __future__ import annotations

from collections.abc import Iterator

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

    def _parts(self) -> Iterator[tuple[str, Tensor | Module]]:
        """The layers are named 0, 1, 2, ... as in torch."""
        yield from ((name.removeprefix("layers."), part) for name, part in super()._parts())

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, i: int) -> Module:
        return self.layers[i]
