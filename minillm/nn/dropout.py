"""Noise while training, so that no neuron relies on a single other."""

from __future__ import annotations

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from .module import Module


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
