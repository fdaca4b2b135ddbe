"""The engine's overhead: operations so small that only the bookkeeping costs anything."""

from __future__ import annotations

from collections.abc import Callable

from .harness import Case, Contestant, Step

TITLE = "1,000 operations on tiny arrays, forward + backward"


def cases(quick: bool) -> list[Case]:
    """One case for each kind of chain."""
    contestants = (
        Contestant("minillm", build_minillm, ("minillm",)),
        Contestant("torch", build_torch, ("torch",)),
    )
    return [
        Case("y = y * w + b on (4,), 500 times", contestants, ("arithmetic",)),
        Case("y = tanh(y @ w) on (4, 4), 500 times", contestants, ("layers",)),
        Case("y = (y + w).reshape(16), 500 times", contestants, ("views",)),
    ]


def chain(kind: str, tanh: Callable, w, b):
    """The same text for both libraries: one number, computed from w and b in 1,000 steps."""
    y = w
    if kind == "arithmetic":
        for _ in range(500):
            y = y * w + b
    elif kind == "layers":
        for _ in range(500):
            y = tanh(y @ w)
    else:
        for _ in range(500):
            y = (y + w).reshape(16)
    return y.sum()


def _values(kind: str):
    import numpy as np

    shape = {"arithmetic": (4,), "layers": (4, 4), "views": (16,)}[kind]
    w, b = np.random.default_rng(0).uniform(-0.5, 0.5, (2, *shape)).astype(np.float32)
    return w, b


def build_minillm(kind: str) -> Step:
    from minillm import Tensor
    from minillm.functional import tanh

    w, b = (Tensor(values, requires_grad=True) for values in _values(kind))

    def step() -> None:
        w.grad = b.grad = None
        chain(kind, tanh, w, b).backward()

    return step


def build_torch(kind: str) -> Step:
    import torch

    w, b = (torch.tensor(values, requires_grad=True) for values in _values(kind))

    def step() -> None:
        w.grad = b.grad = None
        chain(kind, torch.tanh, w, b).backward()

    return step
