"""What a model is made of: layers, shapes, parameters, and how much each computes.

>>> from minillm import nn, Tensor, summary
>>> import numpy as np
>>> print(summary(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)), Tensor(np.zeros((5, 2)))))
layer        kind        result  parameters  operations
(the model)  Sequential  (5, 1)          33         240
0            Linear      (5, 8)          24         160
1            Tanh        (5, 8)           0           0
2            Linear      (5, 1)           9          80
33 parameters, 0.1 kB; 240 multiplications and additions of products for this input
"""  # noqa: W505

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..autograd import Node, no_grad, observed_by, operation_name
from ..autograd.html import table
from ..nn import Module
from ..tensor import Tensor


@dataclass
class Line:
    """One layer: its path, its class, the shape of what it gave, its parameters, its
    multiplications and additions.
    """

    path: str
    kind: str
    shape: str = "not called"
    parameters: int = 0
    operations: int = 0


@dataclass
class Summary:
    """What `summary` found: printed, it is a table; in a notebook too."""

    lines: list[Line] = field(default_factory=list)
    bytes: int = 0

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return self.lines[0].parameters

    @property
    def operations(self) -> int:
        """Multiplications and additions of all matrix products for this input."""
        return self.lines[0].operations

    def _rows(self) -> list[tuple[str, str, str, str, str]]:
        head = ("layer", "kind", "result", "parameters", "operations")
        return [head, *((x.path, x.kind, x.shape, f"{x.parameters:,}", f"{x.operations:,}") for x in self.lines)]

    def _total(self) -> str:
        size = f"{self.bytes / 1e6:,.1f} MB" if self.bytes >= 100_000 else f"{self.bytes / 1e3:,.1f} kB"
        return (
            f"{self.parameters:,} parameters, {size}; {self.operations:,} multiplications and additions of products "
            "for this input"
        )

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        sides = ("<", "<", "<", ">", ">")
        lines = [
            "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, self._total()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        return table(rows, head, below=self._total())


def summary(model: Module, *inputs: Any, **options: Any) -> Summary:
    """Call ``model(*inputs, **options)`` once, without gradients, and tell of every layer what it
    did.

    Operations are the multiplications and additions of matrix products, convolutions, recurrences
    and attention; what is done to each number by itself is not counted. A layer that stands in two
    places is listed once, with the sum.
    Raises TypeError when there is no input: ``summary(model, ids)``.
    """
    if not isinstance(model, Module):
        raise TypeError(f"summary: expected a Module; got {type(model).__name__}")
    if not inputs and not options:
        raise TypeError("summary: give the model an input too, such as summary(model, np.zeros((1, 8), int))")
    found = Summary()
    running: list[Line] = []  # the layers that are being called now, the outermost first

    class Counter:
        def on_forward(self, out: Node, inputs: Sequence[Node]) -> None:
            count = _operations(operation_name(out._op or ""), out, inputs)
            for line in running:
                line.operations += count

    changed: list[Module] = []
    try:
        for path, module in list(model.named_modules()):
            line = Line(path or "(the model)", type(module).__name__, parameters=module.num_parameters())
            found.lines.append(line)
            if "forward" not in vars(module):
                vars(module)["forward"] = _watched(module.forward, line, running)
                changed.append(module)
        with no_grad(), observed_by(Counter()):
            model(*inputs, **options)
    finally:
        for module in changed:
            del vars(module)["forward"]
    found.bytes = sum(p.data.nbytes for p in model.parameters())
    return found


def _watched(forward: Callable, line: Line, running: list[Line]) -> Callable:
    def watched(*args: Any, **kwargs: Any) -> Any:
        running.append(line)
        try:
            y = forward(*args, **kwargs)
        finally:
            running.pop()
        parts = [part for part in (y if isinstance(y, tuple) else (y,)) if isinstance(part, Tensor)]
        line.shape = ", ".join(str(part.shape) for part in parts) or type(y).__name__
        return y

    return watched


def _operations(op: str, out: Node, inputs: Sequence[Node]) -> int:
    """2 for each product of two numbers: it is multiplied, and added to a sum."""
    shapes = [t._data.shape for t in inputs]
    size = out._data.size
    if op == "linear":
        return 2 * size * shapes[0][-1]
    if op == "matmul":
        return 2 * size * shapes[0][-1]
    if op == "conv2d":
        return 2 * size * math.prod(shapes[1][1:])
    if op in ("rnn", "lstm", "gru"):
        (B, T, C), (rows, H) = shapes[0], shapes[2]
        return 2 * B * T * rows * (C + H)
    if op == "scaled_dot_product_attention":
        return 4 * size * shapes[1][2]
    if op == "self_attention":
        return 4 * size * out._data.shape[1]
    if op == "past_attention":
        return 4 * size * shapes[1][1]
    return 0
