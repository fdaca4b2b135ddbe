"""What is kept of a ``backward()`` while it runs: every gradient that arrives, in its order."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ...autograd import Backward, Node, observed_by
from ...tensor import Tensor

MOST_VALUES = 64  # entries of an array that are kept, the first ones
MOST_INPUTS = 4096  # entries of an input whose local derivatives are asked for


class Kept:
    """What is kept of an array: its shape, its first entries, and of the rest how large it is."""

    def __init__(self, array: np.ndarray) -> None:
        array = np.asarray(array)
        flat = array.reshape(-1)
        self.shape, self.dtype, self.size = array.shape, array.dtype, array.size
        self.values = flat[:MOST_VALUES].copy()
        bad = ~np.isfinite(flat) if array.dtype.kind == "f" else np.zeros(flat.shape, bool)
        self.bad = int(bad.argmax()) if bad.any() else None  # the first NaN or infinity
        with np.errstate(all="ignore"):
            self.low, self.high = (float(flat.min()), float(flat.max())) if self.size else (0.0, 0.0)
            self.norm = float(np.linalg.norm(flat.astype(np.float64)))
            self.peak = int(np.nan_to_num(np.abs(flat), nan=np.inf).argmax()) if self.size else 0
        self.at_peak = flat[self.peak].item() if self.size else 0.0

    @property
    def whole(self) -> bool:
        """Whether every entry was kept."""
        return self.size == len(self.values)

    def entry(self, i: int) -> float | None:
        """Entry i in C order, where it was kept."""
        return float(self.values[i]) if i < len(self.values) else self.at_peak if i == self.peak else None

    def place(self, i: int) -> tuple[int, ...]:
        """The index of entry i."""
        return tuple(int(n) for n in np.unravel_index(i, self.shape))


@dataclass
class Arrival:
    """A gradient that reached a tensor: from which operation, as the gradient of which of its
    inputs.
    """

    source: Entry
    slot: int
    gradient: Kept


@dataclass
class Slope:
    """How an operation's result moves with one of its inputs, as its own backward says.

    diagonal: dy_i / dx_i where nothing else depends on x_i; else None. matrix: (entries of y,
    entries of x), where it is small.
    column: (dy_i / dx_j for all i) of one entry j, that with the greatest gradient.
    """

    diagonal: np.ndarray | None
    matrix: np.ndarray | None
    j: int
    column: np.ndarray


@dataclass(eq=False, repr=False)
class Entry:
    """A tensor of the graph. op is None for one that was given: a leaf, or where it needs no
    gradient a constant.
    """

    index: int
    op: str | None
    ours: bool  # whether the operation is one of this library
    inputs: list[Entry]
    value: Kept
    needs_gradient: bool
    name: str = ""
    path: str = ""  # the whole name, of a parameter: the path to it
    expression: str = ""
    gradient: Kept | None = None  # complete; None: nothing came
    grad: Kept | None = None  # what .grad holds now
    before: Kept | None = None  # and held before, where it was added to
    arrivals: list[Arrival] = field(default_factory=list)
    passed: list[Kept | None] = field(default_factory=list)  # to each input
    slopes: list[Slope | None] = field(default_factory=list)  # by input
    hasty: Kept | None = None  # the sum that a wrong order gives, see hasty.py
    differences: dict[int, float] = field(default_factory=dict)  # entry -> gradient by a small change

    @property
    def is_leaf(self) -> bool:
        """Whether it was given, and gets a ``.grad``."""
        return self.op is None and self.needs_gradient

    @property
    def born_bad(self) -> bool:
        """Whether a NaN or an infinity appeared here, of finite inputs."""
        return self.value.bad is not None and all(t.value.bad is None for t in self.inputs)

    @property
    def passes_bad(self) -> bool:
        """Whether a NaN or an infinity appeared here on the way back."""
        came = self.gradient is not None and self.gradient.bad is None
        return came and any(g is not None and g.bad is not None for g in self.passed)


@dataclass
class Recording:
    """All entries, oldest first, and those of them that the walk went through, in its order.

    The engine reaches parameters last, in any order; here they stand in that of their first use.
    """

    entries: list[Entry]
    walk: list[Entry]
    nodes: dict[Node, Entry]
    backwards: dict[Node, tuple[tuple[Node, ...], Backward | None]]  # as they were before the walk
    seed: np.ndarray

    @property
    def loss(self) -> Entry:
        """Where the walk begins."""
        return self.entries[-1]


def graph_of(loss: Tensor) -> list[Node]:
    """All tensors that ``loss`` was computed from, constants too, in an order in which each stands
    after its inputs; the loss is the last.
    """
    made = [node for node in loss._reachable()[0] if node._backward is not None]
    given = dict.fromkeys(t for node in made for t in node._inputs if not t.requires_grad or t._backward is None)
    return [*given, *made] if made else [loss]


class Recorder:
    """Looks on while the gradients go back."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.entries: dict[Node, Entry] = {}
        self.walk: list[Entry] = []
        for i, t in enumerate(nodes):
            inputs = [self.entries[source] for source in t._inputs]
            ours = (getattr(t._backward, "__module__", None) or "").startswith("minillm.")
            self.entries[t] = Entry(i, t.op, ours, inputs, Kept(t._data), t.requires_grad)

    def on_forward(self, out: Node, inputs: Sequence[Node]) -> None:
        """A backward that computes with Tensors: of no interest here."""

    def on_backward(self, node: Node, dy: np.ndarray, gradients: Sequence[np.ndarray | None]) -> None:
        """An operation has got its gradient, and passes it on."""
        entry = self.entries[node]
        self.walk.append(entry)
        entry.gradient = Kept(dy)
        for slot, (t, g) in enumerate(zip(node._inputs, gradients)):  # noqa: B905 - the engine checks that next
            g_kept = Kept(g) if g is not None and t.requires_grad else None
            entry.passed.append(g_kept)
            if g_kept is not None:
                self.entries[t].arrivals.append(Arrival(entry, slot, g_kept))

    def at_leaf(self, entry: Entry, g: np.ndarray) -> None:
        """The gradient of a parameter is complete."""
        self.walk.append(entry)
        entry.gradient = Kept(g)


def record(loss: Tensor, nodes: Sequence[Node]) -> Recording:
    """Call ``loss.backward()``, and keep what goes by."""
    seed = loss._first_gradient(None)
    recorder = Recorder(nodes)
    leaves = [t for t, entry in recorder.entries.items() if entry.is_leaf]
    backwards = {t: (t._inputs, t._backward) for t in nodes}
    with contextlib.ExitStack() as undo:
        for t in leaves:
            entry = recorder.entries[t]
            entry.before = None if t.grad is None else Kept(t.grad)
            undo.callback(t.register_hook(partial(recorder.at_leaf, entry)))
        undo.enter_context(observed_by(recorder))
        loss.backward()
    for t in leaves:
        recorder.entries[t].grad = None if t.grad is None else Kept(t.grad)
    walk = sorted(recorder.walk, key=lambda entry: entry.index if entry.is_leaf else -1)  # operations as they came
    return Recording(list(recorder.entries.values()), walk, recorder.entries, backwards, seed)


# ---- local derivatives ---------------------------------------------------------------------------


def find_slopes(recording: Recording) -> None:
    """Ask every small operation's backward for each entry of its result alone: the rows of its
    matrix of derivatives.
    """
    for node, entry in recording.nodes.items():
        inputs, backward = recording.backwards[node]
        if backward is None or entry.value.size > MOST_VALUES or entry.gradient is None:
            continue
        if any(t.requires_grad and t._data.size > MOST_INPUTS for t in inputs):  # a table of embeddings
            continue
        with np.errstate(all="ignore"):
            rows = _rows(backward, node._data, len(inputs))
        for t, columns, g in zip(inputs, rows, entry.passed, strict=True):
            entry.slopes.append(_slope(columns, node._data, t._data, g) if g is not None else None)


def _rows(backward: Callable[[np.ndarray], Any], y: np.ndarray, count: int) -> list[list[np.ndarray | None]]:
    """For each of ``count`` inputs what reaches it when one entry of y alone has a gradient of
    1.
    """
    rows: list[list[np.ndarray | None]] = [[] for _ in range(count)]
    for i in range(y.size):
        one = np.zeros(y.size, y.dtype)
        one[i] = 1
        for column, g in zip(rows, backward(one.reshape(y.shape)), strict=True):
            column.append(None if g is None else np.array(g).reshape(-1))
    return rows


def _slope(rows: Sequence[np.ndarray | None], y: np.ndarray, x: np.ndarray, g: Kept) -> Slope | None:
    if not rows or not g.size or any(row is None for row in rows):
        return None
    matrix = np.stack([row for row in rows if row is not None])  # (entries of y, entries of x)
    square = y.shape == x.shape
    diagonal = None
    if square and not np.any(matrix[~np.eye(len(matrix), dtype=bool)]):
        diagonal = np.diagonal(matrix).copy()
    small = matrix.size <= MOST_VALUES
    return Slope(diagonal, matrix if small else None, g.peak, matrix[:, g.peak].copy())
