"""How long a training will take on this machine: told before it begins.

    seconds = operations of all steps and evaluations / (rate of a large matrix product * EFFICIENCY)

A step multiplies every token by every weight once forward and twice backward, with two operations
each time: 6 x parameters (Kaplan et al. 2020, arXiv:2001.08361, section 2.1). To these come the
scores and means of attention, 12 T C for a token and layer, half of that where a token sees only
what is before it; and the products of Muon. The rate is measured in a moment, so that other
programs which want the same cores are in it.
"""  # noqa: W505

from __future__ import annotations

import time

import numpy as np

from ..kernels import get_num_threads
from .recipe import RECURRENT
from .setup import Setup

__all__ = ["estimated_seconds", "product_rate"]

EFFICIENCY = 0.6  # measured with one thread: 0.61 for the default llama, 0.64 for a gpt2 of characters
OF_RECURRENT = 0.7  # 0.72
SIZE, MOMENT = 512, 0.2  # of the matrices; seconds


def estimated_seconds(made: Setup, rate: float) -> float:
    """Seconds of learning and evaluating. rate: see `product_rate`."""
    recipe, dataset = made.recipe, made.corpus.dataset
    shapes = [array.shape for step in range(4) for array in dataset.batch(step, recipe.batch_size, recipe.seed)[:-1]]
    tokens, seen = (np.mean(sizes) for sizes in zip(*((B * T, T) for B, T in shapes), strict=True))
    per_token = 6 * made.model.num_parameters() + 6 * seen * recipe.width * recipe.layers
    evaluations = -(-recipe.steps // recipe.evaluate_every)
    # evaluating has no backward
    operations = per_token * (recipe.steps * tokens + evaluations * dataset.validation_tokens / 3)
    if recipe.optimizer == "muon":
        sizes = [sorted(p.shape) for p in made.model.hidden_matrices()]
        operations += recipe.steps * sum(10 * r * r * (2 * c + r) for r, c in sizes)  # see optim.orthogonal
    return float(operations / rate / (OF_RECURRENT if recipe.model in RECURRENT else EFFICIENCY))


def product_rate() -> float:
    """Operations a second of a large float32 product, with as many threads as the kernels have: the
    median of some, for a compiler at work beside us makes one of them ten times as slow.
    """
    from threadpoolctl import threadpool_limits

    a, seconds = np.ones((SIZE, SIZE), np.float32), []
    with threadpool_limits(get_num_threads()):
        a @ a  # which starts the threads
        end = time.perf_counter() + MOMENT
        while (begun := time.perf_counter()) < end:
            a @ a
            seconds.append(time.perf_counter() - begun)
    return 2 * SIZE**3 / float(np.median(seconds))
