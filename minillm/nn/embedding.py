"""From a token's number to a vector that can be learned."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..tensor import Tensor
from . import init
from .module import Module


class Embedding(Module):
    """A table with one row per token: ids (...) in [0, num_embeddings) -> (..., embedding_dim).

    weight: (num_embeddings, embedding_dim), normal with standard deviation 1 as torch's unless
    ``std`` says otherwise.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, rng: np.random.Generator | int | None = None, std: float = 1.0
    ) -> None:
        if num_embeddings < 1 or embedding_dim < 1:
            raise ValueError(f"Embedding: sizes must be at least 1; got {num_embeddings} x {embedding_dim}")
        self.weight = init.normal(np.random.default_rng(rng), (num_embeddings, embedding_dim), std)

    def forward(self, ids: Any) -> Tensor:
        """Look up the rows."""
        return F.embedding(self.weight, ids)

    def extra_repr(self) -> str:
        """Sizes."""
        return "{} x {}".format(*self.weight.shape)
