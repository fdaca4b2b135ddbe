"""Backpropagation, recorded while it runs, and shown step by step.

>>> from minillm import Tensor
>>> a, b = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
>>> c = a * b + a
>>> walk = trace(c)
>>> print(walk)
c = 8
Add: c = t1 + a
  The walk begins at the end: c moves exactly as c moves, so its gradient is 1.
  ∂c/∂t1 = 1, so t1 gets 1 × 1 = 1.
  ∂c/∂a = 1, so a gets 1 × 1 = 1.
Multiply: t1 = a × b
  The gradient of t1 is complete: 1.
  ∂t1/∂a = b = 3, so a gets 3 × 1 = 3.
  ∂t1/∂b = a = 2, so b gets 2 × 1 = 2.
Arrived at a leaf: a
  2 gradients have reached a, and they add: 1 + 3 = 4.
  This is a.grad: a little more of a moves the loss 4 times as much; to lower the loss, move a down.
Arrived at a leaf: b
  The gradient of b is complete: 2.
  This is b.grad: a little more of b moves the loss 2 times as much; to lower the loss, move b down.
>>> walk.save_html("backpropagation.html")  # doctest: +SKIP
"""  # noqa: W505

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...autograd import observed_by
from ...files import write_text
from ...nn import Module
from ...tensor import Tensor
from .differences import Calls, fill_differences
from .folding import Card, cards_of
from .hasty import hasty
from .naming import give_names, variables
from .page import page
from .record import Entry, find_slopes, graph_of, record
from .steps import Step, number, steps_of

MOST_NODES = 2000
UNCHECKED = "a loss that was computed cannot be computed again; trace a function instead, minillm.trace(f, x, ...)"


@dataclass(frozen=True)
class Trace:
    """A backward that was recorded: printed, it is the walk in words; `save_html` makes the page.
    """

    entries: list[Entry]  # every tensor, each after its inputs; the loss is the last
    cards: list[Card]
    steps: list[Step]
    unchecked: str  # why no small changes were tried; empty where they were

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML file that needs no network: the graph, and the walk through it, to play or
        to step through. Without JavaScript, and on paper, it shows all final values.
        """
        write_text(path, page(self.entries, self.cards, self.steps, self.unchecked))

    def __str__(self) -> str:
        loss = self.entries[-1]
        lines = [f"{loss.name} = {number(loss.value.values[0])}"]
        for step in self.steps:
            lines += [step.headline, *(f"  {sentence}" for sentence in step.sentences)]
        return "\n".join(lines)

    def __repr__(self) -> str:
        name, steps = self.entries[-1].name, len(self.steps)
        return f"<Trace of {name}: {steps} steps. Print it, or save_html(path) and open it in a browser>"


def trace(
    loss: Tensor | Callable[..., Tensor], *inputs: Any, names: Mapping[str, Tensor | Module] | None = None
) -> Trace:
    """Call ``loss.backward()`` and record it: all values, every gradient that arrives, where two
    arrive and are added, in which order.

    loss: a single number that was computed from parameters; ``backward()`` is really called, adds
    to their ``.grad``, and drops the graph. Or a function, which is called with ``inputs`` and
    returns the loss: it can be called again, and so every gradient, also those in the middle, is
    compared with what a small change really does (in float64, as `gradcheck` does).
    names: what the tensors and modules are called; the caller's variables unless given.

    Raises TypeError for what is no Tensor, ValueError above 2,000 tensors, RuntimeError as
    ``backward`` does.
    """
    names = variables(sys._getframe(1)) if names is None else names
    calls, function = Calls(), None
    if callable(loss) and not isinstance(loss, Tensor):
        given = loss

        def function() -> Tensor:
            return given(*inputs)

        with observed_by(calls):
            loss = function()
    elif inputs:
        raise TypeError("trace: inputs go with a function, trace(f, x, ...); a loss has been computed already")
    if not isinstance(loss, Tensor):
        came = type(loss).__name__
        raise TypeError(f"trace: expected a Tensor, the loss, or a function that returns one; got {came}")
    nodes = graph_of(loss)
    if len(nodes) > MOST_NODES:
        raise ValueError(
            f"trace: the graph has {len(nodes):,} tensors, more than the {MOST_NODES:,} that a page can show; trace "
            "fewer layers, or a shorter sequence"
        )
    recording = record(loss, nodes)
    give_names(recording.nodes, names)
    cards = cards_of(recording.entries)
    hasty(recording)
    if not any(card.is_folded for card in cards):
        find_slopes(recording)
    unchecked = UNCHECKED if function is None else fill_differences(function, recording, calls)
    return Trace(recording.entries, cards, steps_of(recording, cards), unchecked)
