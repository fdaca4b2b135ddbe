"""First values of parameters: random, so that neurons differ, and of a size that keeps signals alive."""

from __future__ import annotations

import math

import numpy as np

from ..tensor import Tensor


def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float = 0.02) -> Tensor:
    """Draw from a bell curve around 0."""
    return Tensor((rng.standard_normal(shape, dtype=np.float32) * np.float32(std)), requires_grad=True)


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> Tensor:
    """Draw evenly from [-bound, bound]."""
    return Tensor(rng.uniform(-bound, bound, shape).astype(np.float32), requires_grad=True)


def fan_in(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> Tensor:
    """Draw evenly with variance 1 / (3 inputs), torch's choice for linear and recurrent layers."""
    return uniform(rng, shape, 1 / math.sqrt(inputs) if inputs else 0.0)


def constant(shape: tuple[int, ...], value: float) -> Tensor:
    """All entries alike: ones for scales, zeros for shifts."""
    return Tensor(np.full(shape, value, np.float32), requires_grad=True)
