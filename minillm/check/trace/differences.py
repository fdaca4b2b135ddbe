"""The same gradients without any backward: by how much the loss moves with a small change.

A function can be called again; a loss that has been computed cannot. So this needs
``trace(function, ...)``. A parameter is changed before the call; a tensor in the middle while the
call goes by: the observer of the engine sees each result before anybody uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...autograd import Node, observed_by, operation_name
from ...tensor import Tensor
from .folding import MOST_CARDS
from .record import Recording

EPS, ATOL, RTOL = 1e-6, 1e-5, 1e-3  # those of gradcheck
MOST_ENTRIES = 1000


class Calls:
    """The operations of one call in their order; the result of number ``which`` is changed as it
    goes by.
    """

    def __init__(self, which: int | None = None, entry: int = 0, change: float = 0.0) -> None:
        self.which, self.entry, self.change = which, entry, change
        self.names: list[str] = []
        self.outs: list[Node] = []
        self.used: set[Node] = set()

    def on_forward(self, out: Node, inputs: Sequence[Node]) -> None:
        """Count the operation, and change its result where it is the one."""
        if len(self.names) == self.which:
            changed = np.array(out._data)  # a copy: it may be a view of an input
            changed.flat[self.entry] += self.change
            out._data = changed
        self.names.append(operation_name(out._op or ""))
        self.outs.append(out)
        self.used.update(inputs)

    def on_backward(self, node: Node, dy: np.ndarray, gradients: Sequence[np.ndarray | None]) -> None:
        """Of no interest here."""


def fill_differences(function: Callable[[], Tensor], recording: Recording, calls: Calls) -> str:
    """Put (L(x + eps) - L(x - eps)) / (2 eps) beside the gradients; returns why not, or nothing.

    Everything is computed in float64, as in gradcheck. Where there are more than a thousand
    entries, one of each tensor is changed, that with the greatest gradient; of a graph that is
    folded, of each parameter.
    """
    number = {out: i for i, out in enumerate(calls.outs)}
    given = [node for node, entry in recording.nodes.items() if entry.op is None and node._data.dtype == np.float32]
    before = [(node, node._data) for node in given]

    def called(which: int | None = None, entry: int = 0, change: float = 0.0) -> tuple[np.ndarray, Calls]:
        seen = Calls(which, entry, change)
        with observed_by(seen):
            return function()._data, seen

    def changed(node: Node, entry: int, change: float) -> float:
        if node in number:
            return float(called(number[node], entry, change)[0].reshape(()))
        kept = node._data
        try:
            node._data = kept.copy()
            node._data.flat[entry] += change
            return float(called()[0].reshape(()))
        finally:
            node._data = kept

    try:
        for node in given:
            node._data = node._data.astype(np.float64)
        y, seen = called()
        if y.dtype != np.float64:
            return "it cannot be computed in float64, and small changes drown in float32"
        if seen.names != calls.names:
            return "a second call does other operations"
        if not np.array_equal(called()[0], y, equal_nan=True):
            return "two calls give two results; a random function must make its generator itself"
        if not np.isfinite(y).all():
            return "the result is not finite"
        checked = [(node, entry) for node, entry in recording.nodes.items() if entry.gradient is not None]
        if len(recording.entries) > MOST_CARDS:
            checked = [(node, entry) for node, entry in checked if entry.is_leaf]
        every = sum(entry.value.size for _, entry in checked) <= MOST_ENTRIES
        for node, entry in checked:
            if entry.gradient is None or (entry.is_leaf and node not in seen.used) or not entry.value.size:
                continue  # a leaf that the function makes itself is another one in the next call
            places = range(entry.value.size) if every and entry.gradient.whole else [entry.gradient.peak]
            for place in places:
                above, below = (changed(node, place, change) for change in (EPS, -EPS))
                entry.differences[place] = (above - below) / (2 * EPS)
    finally:
        for node, data in before:
            node._data = data
    return ""


def agree(gradient: float, difference: float) -> bool:
    """Whether both say the same, as closely as gradcheck asks."""
    return abs(gradient - difference) <= ATOL + RTOL * abs(difference)
