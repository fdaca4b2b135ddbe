"""What makes drawing from a large vocabulary quick, and changes no probability: see processors.py
for what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["BLOCK", "draw_by_blocks", "likely_enough"]

BLOCK = 1024


def draw_by_blocks(
    weights: np.ndarray, rng: np.random.Generator, draw_index: Callable[[np.ndarray, float], int]
) -> int:
    """Draw a block of neighbours first, then one of them: p(token) = p(block) p(token | block).

    The sums along which a random point is looked up are then short, and short sums are what takes
    the time.
    """
    starts = np.arange(0, len(weights), BLOCK)
    start = int(starts[draw_index(np.add.reduceat(weights, starts), rng.random())])
    return start + draw_index(weights[start : start + BLOCK], rng.random())


def likely_enough(probs: np.ndarray, p: float) -> np.ndarray:
    """The tokens that can be among the most likely ones which reach p together: (V,) -> (fewer,).

    Tokens below (1 - p) / V have less than 1 - p together, so the others reach p. In a trained
    model those are few, and quickly sorted. (Half of it, to be safe from rounding.)
    """
    return probs[probs >= 0.5 * (1 - p) / len(probs)]
