"""First values of parameters: random, so that neurons differ, and of a size that keeps signals
alive.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator

import numpy as np

from ..autograd.torch_words import INIT_VALUES, sentence
from ..tensor import Tensor


class _ThisThread(threading.local):
    skipping = False


_this_thread = _ThisThread()


@contextlib.contextmanager
def skipped() -> Iterator[None]:
    """Draw nothing inside: a new parameter has its shape and takes no memory, until a file brings
    its values.

    Its data is one zero that is seen from every position, and cannot be written to. Only the thread
    that entered the block skips.
    """
    before, _this_thread.skipping = _this_thread.skipping, True
    try:
        yield
    finally:
        _this_thread.skipping = before


def _shape_only(shape: tuple[int, ...]) -> Tensor:
    return Tensor(np.broadcast_to(np.float32(0), shape), requires_grad=True)


def normal(rng: np.random.Generator, shape: tuple[int, ...], std: float = 0.02) -> Tensor:
    """Draw from a bell curve around 0."""
    if _this_thread.skipping:
        return _shape_only(shape)
    return Tensor((rng.standard_normal(shape, dtype=np.float32) * np.float32(std)), requires_grad=True)


def uniform(rng: np.random.Generator, shape: tuple[int, ...], bound: float) -> Tensor:
    """Draw evenly from [-bound, bound]."""
    if _this_thread.skipping:
        return _shape_only(shape)
    return Tensor(rng.uniform(-bound, bound, shape).astype(np.float32), requires_grad=True)


def fan_in(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> Tensor:
    """Draw evenly with variance 1 / (3 inputs), torch's choice for linear and recurrent layers."""
    return uniform(rng, shape, 1 / math.sqrt(inputs) if inputs else 0.0)


def constant(shape: tuple[int, ...], value: float) -> Tensor:
    """All entries alike: ones for scales, zeros for shifts."""
    if _this_thread.skipping:
        return _shape_only(shape)
    return Tensor(np.full(shape, value, np.float32), requires_grad=True)


def __getattr__(name: str) -> None:
    raise AttributeError(sentence("minillm.nn.init", name, {}, f"write {INIT_VALUES}"))
