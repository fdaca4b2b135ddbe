"""The engine of backpropagation: results that remember what they were made of, and the walk back
through them.

Every operation computes its result and leaves behind a small function, ``backward``, that knows its
own derivative and nothing else. ``loss.backward()`` walks from the loss to the parameters and
multiplies these derivatives together: that is the chain rule, and all there is to backpropagation.
A `Tensor` (tensor.py) is a `Node` that can also be used like an array.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np

Gradients = Sequence[np.ndarray | None]  # one per input; None: no gradient for this one
Backward = Callable[[np.ndarray], Gradients]


class Node:
    """An array in the graph: its gradient, and the operation that made it."""

    __slots__ = (
        *("_data", "grad", "requires_grad", "_inputs", "_backward", "_op"),
        *("_born", "_changed", "_hooks", "_keeps_grad", "__weakref__"),
    )

    def __init__(self, data: np.ndarray, requires_grad: bool) -> None:
        self._data = data
        self.grad: np.ndarray | None = None
        self.requires_grad = requires_grad
        self._inputs: tuple[Node, ...] = ()
        self._backward: Backward | None = None
        self._op: str | None = None  # the operation's name, see ``op``
        self._born = 0  # the clock when an operation made it; 0 for what was given
        self._changed = 0  # the clock when its array was last changed in place
        self._hooks: list[Callable[[np.ndarray], np.ndarray | None]] | None = None
        self._keeps_grad = False  # whether retain_grad() was called

    @classmethod
    def from_op(cls, data: np.ndarray, inputs: tuple[Node, ...], backward: Backward, op: str | None = None) -> Self:
        """The result of an operation on ``inputs``.

        ``backward(dy)`` gets the gradient of the loss with respect to this result (an array of its
        shape) and returns one gradient per input, of that input's shape, or None. It must hold
        arrays, never the result Tensor itself: a circle of references would keep the graph alive
        until the garbage collector runs. It must not write into ``dy``, nor return an array that it
        keeps.

        op: the operation's name; that of the function in which ``backward`` was written, unless
        given.
        """
        out = object.__new__(cls)  # not cls(...): there is nothing to check, and nothing to convert
        out._data = data if type(data) is np.ndarray else np.asarray(data)  # of 0-d arrays NumPy makes scalars
        out.grad, out._hooks, out._keeps_grad, out._changed = None, None, False, 0
        out._op = op or backward.__qualname__
        if this_thread.records and True in [t.requires_grad for t in inputs]:
            out.requires_grad, out._inputs, out._backward, out._born = True, inputs, backward, _clock()
        else:
            out.requires_grad, out._inputs, out._backward, out._born = False, (), None, 0
        if this_thread.observer is not None:
            this_thread.observer.on_forward(out, inputs)
        return out

    # ---- backpropagation -------------------------------------------------------------------------

    @np.errstate(under="ignore")  # a gradient too small for a float is 0
    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Fill ``.grad`` of every parameter that this tensor was computed from, by the chain rule.

        grad: the gradient of the loss with respect to this tensor; may be left out when the tensor
        is a single number (the loss itself: d loss / d loss = 1). The recorded graph is dropped on
        the way, unless ``retain_graph``. Raises RuntimeError when there is nothing to go back
        through, or when an array that is needed was changed since.

        In which order? An operation may pass its gradient on only when *all* of it has arrived.
        Take ``b = a + a``, then ``c = b * b`` and ``d = c + b``: b is used by c and by d. Going
        back from d to b and on to a before c has given its share would pass on a wrong gradient,
        and the late share would be lost, or sent twice. So every operation waits for all that use
        its result. That order comes free: an operation can only use tensors that exist already, so
        the newest is always ready.

        Why do gradients add? If x reaches the loss by two paths, a small change of x moves the loss
        by the sum of what it does along each. For the same reason a second ``backward()`` adds to
        ``.grad``: call ``zero_grad()`` between steps, or leave it out on purpose to sum the
        gradients of several batches.
        """
        arriving = Arriving(self, self._first_gradient(grad))
        nodes, changed = self._reachable()  # oldest first
        while nodes:
            node = nodes.pop()  # the newest: everything that uses it has been asked
            dy = arriving.take(node)
            if dy is None or node._backward is None:  # nothing came, or it is a parameter, and has it now
                continue
            node._check_unchanged(changed)
            gradients = node._backward(dy)  # the chain rule of one operation
            node._check_gradients(dy, gradients)
            for t, g in zip(node._inputs, gradients, strict=True):
                arriving.add(t, g)  # gradients add
            del dy, gradients, g  # a parameter keeps what nobody else holds, without a copy
            if not retain_graph:
                node._backward, node._inputs = _used, ()

    def _first_gradient(self, grad: Any) -> np.ndarray:
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor was not computed from any tensor with requires_grad=True")
        if grad is None:
            if self._data.size != 1:
                raise RuntimeError(
                    "backward: the gradient can start from a single number only; this tensor has shape "
                    f"{self._data.shape}. Take .sum() or .mean() first, or pass grad= of that shape"
                )
            return np.ones_like(self._data)
        grad = np.asarray(grad._data if isinstance(grad, Node) else grad, dtype=self._data.dtype)
        if grad.shape != self._data.shape:
            raise ValueError(f"backward: grad must have the tensor's shape {self._data.shape}; got {grad.shape}")
        return grad

    def _reachable(self) -> tuple[list[Node], set[Node]]:
        """The tensors that this one was computed from and that need gradients, oldest first
        (parameters before all).

        And those among all inputs whose arrays were changed in place since they were made (for a
        parameter: since it was used).
        """
        seen, stack = {self}, [self]
        changed = {self} if self._changed > self._born else set()
        while stack:  # a loop, not recursion: graphs are deeper than Python's stack
            node = stack.pop()
            for t in node._inputs:
                if t._changed and t._changed > (t._born or node._born):
                    changed.add(t)
                if t.requires_grad and t not in seen:
                    seen.add(t)
                    stack.append(t)
        return sorted(seen, key=operator.attrgetter("_born")), changed

    # ---- what may go wrong on the way ------------------------------------------------------------

    def _check_unchanged(self, changed: set[Node]) -> None:
        """Raise if an array, or a view of it, is needed here as it was before it was changed in
        place.
        """
        for t in changed:
            if t._changed > self._born and _keeps(self._backward, t._data):
                inputs = [id(source) for source in self._inputs]
                what = "the result" if t is self else "an input" if id(t) in inputs else "what is seen through an input"
                raise RuntimeError(
                    f"backward: the array of {what} of '{self.op}', shape {t._data.shape}, was changed in place after "
                    f"'{self.op}' had used it, and its old values are needed for the gradient. "
                    "Change parameters after backward(), or compute a new tensor instead"
                )

    def _check_gradients(self, dy: np.ndarray, gradients: Gradients) -> None:
        """Raise if ``backward`` did not give one gradient of the right shape for each input."""
        if this_thread.observer is not None:
            this_thread.observer.on_backward(self, dy, gradients)
        if len(gradients) != len(self._inputs):
            raise RuntimeError(
                f"backward of '{self.op}' must return a tuple with a gradient, or None, for each of its "
                f"{len(self._inputs)} inputs; it returned {len(gradients)}"
            )
        for i, (t, g) in enumerate(zip(self._inputs, gradients)):  # noqa: B905 - as long, see above
            if g is not None and (g.shape if type(g) is np.ndarray else np.shape(g)) != t._data.shape:
                raise RuntimeError(
                    f"backward of '{self.op}' gave a gradient of shape {np.shape(g)} for input {i}, "
                    f"whose shape is {t._data.shape}"
                )

    # ---- looking at gradients --------------------------------------------------------------------

    def register_hook(self, hook: Callable[[np.ndarray], np.ndarray | None]) -> Hook:
        """Call ``hook(gradient)`` when this tensor's gradient is complete in ``backward()``.

        What the hook returns, if anything, takes the gradient's place. Returns a function that
        removes the hook.
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: this tensor has no gradient (requires_grad is False)")
        self._hooks = self._hooks or []
        return Hook(self._hooks, hook)

    def retain_grad(self) -> None:
        """Keep ``.grad`` of a tensor in the middle of the graph too (else only parameters keep
        theirs).
        """
        if not self.requires_grad:
            raise RuntimeError("retain_grad: this tensor has no gradient (requires_grad is False)")
        self._keeps_grad = True

    @property
    def op(self) -> str | None:
        """The name of the operation that made this tensor; None for one that was given."""
        return None if self._backward is None or self._op is None else operation_name(self._op)

    def mark_changed(self) -> None:
        """Say that the array was written into (an optimiser's step): older graphs can no longer use
        it.
        """
        self._changed = _clock()


class Hook:
    """A function that was added to those that look on; called, or by ``remove()``, it is taken
    away.
    """

    def __init__(self, hooks: list[Callable], hook: Callable) -> None:
        self._hooks, self._hook = hooks, hook
        hooks.append(hook)

    def remove(self) -> None:
        """Take the function away; a second time does nothing."""
        if self._hook in self._hooks:
            self._hooks.remove(self._hook)

    __call__ = remove


class Arriving:
    """The gradients on their way back: tensor -> the sum of those that have reached it so far.

    The first that comes may be an array that others use too (``a + b`` passes one array on to
    both). The sum with a second one is a new array, which is ours: later ones are added into it.
    """

    def __init__(self, loss: Node, gradient: np.ndarray) -> None:
        self._sums = {loss: gradient}  # tensors are found by their identity, not by their values
        self._ours: set[Node] = set()

    def add(self, t: Node, g: np.ndarray | None) -> None:
        """One more gradient has reached ``t``."""
        if g is None or not t.requires_grad:
            return
        before = self._sums.get(t)
        if before is None:
            fits = type(g) is np.ndarray and g.dtype is t._data.dtype
            self._sums[t] = g if fits else np.asarray(g, dtype=t._data.dtype)
        elif t in self._ours:
            before += g
        else:
            self._sums[t] = np.asarray(before + g, dtype=t._data.dtype)
            self._ours.add(t)

    def take(self, t: Node) -> np.ndarray | None:
        """The gradient of ``t``, now complete, as its hooks leave it; kept in ``.grad`` where it
        was asked for.
        """
        g = self._sums.pop(t, None)
        if g is None:
            return None
        for hook in t._hooks or ():
            instead = hook(g)
            g = g if instead is None else np.asarray(instead, dtype=g.dtype)
        if t._backward is None or t._keeps_grad:
            if t._data.dtype.kind != "f":
                raise TypeError(f"backward: only floats can have gradients; requires_grad was set on {t._data.dtype}")
            if t.grad is not None:
                t.grad += g
            else:
                t.grad = g if _references(g) in _ALONE else g.copy()
        self._ours.discard(t)
        return g


def _references(g: np.ndarray) -> tuple[int, int]:
    """How many hold an array, and how many the memory of which it is a view; 0 where it is its own.
    """
    memory = g.base
    if memory is None:
        return sys.getrefcount(g), 0
    whole = isinstance(memory, np.ndarray) and memory.base is None and memory.size == g.size and g.flags.carray
    return sys.getrefcount(g), sys.getrefcount(memory) if whole else -1


def _taken(sums: dict[int, np.ndarray]) -> tuple[int, int]:
    g = sums.pop(0)
    return _references(g)


# What `_references` says, in `Arriving.take`, of an array that nobody else holds: `.grad` may be
# that array.
_ALONE = {_taken({0: np.empty(1)}), _taken({0: np.empty((2, 3)).reshape(6)})}


# ---- recording -----------------------------------------------------------------------------------


class _ThisThread(threading.local):
    """What one thread has switched on or off: others do not notice."""

    def __init__(self) -> None:
        self.records = True  # False inside no_grad
        self.outer: list[bool] = []  # for each open no_grad: the setting to go back to
        self.observer: Any = None  # sees every operation while it is set: see check/anomaly.py


this_thread = _ThisThread()
_clock = itertools.count(1).__next__  # one tick for each operation and each change in place: what came before what


class no_grad(contextlib.ContextDecorator):
    """Record nothing inside: for evaluation and generation, and for parameter updates. Other
    threads go on recording.

    >>> from minillm import Tensor
    >>> with no_grad():
    ...     y = Tensor([1.0], requires_grad=True) * 2
    >>> y.requires_grad
    False
    """

    def __enter__(self) -> None:
        this_thread.outer.append(this_thread.records)
        this_thread.records = False

    def __exit__(self, *exc: object) -> None:
        this_thread.records = this_thread.outer.pop()


@contextlib.contextmanager
def observed_by(observer: Any) -> Iterator[None]:
    """Show every operation of this thread to ``observer``: its ``on_forward`` and ``on_backward``
    are called.
    """
    before, this_thread.observer = this_thread.observer, observer
    try:
        yield
    finally:
        this_thread.observer = before


def operation_name(qualname: str) -> str:
    """The name of the operation in which a function was written: ``softmax.<locals>.backward`` ->
    softmax.
    """
    return qualname.rsplit(".<locals>.", 1)[0].split(".")[-1].strip("_")


def _used(dy: np.ndarray) -> Gradients:
    """What stands in the place of a backward function that was used."""
    raise RuntimeError(
        "backward: this graph was used before, and its arrays were dropped then. "
        "Compute the loss anew, or call backward(retain_graph=True) the first time"
    )


def _keeps(backward: Backward | None, array: np.ndarray) -> bool:
    """Whether a backward function holds ``array`` in its closure."""
    held: list[Any] = [cell.cell_contents for cell in getattr(backward, "__closure__", None) or ()]
    for value in held:
        if isinstance(value, (tuple, list)):
            held.extend(value)
    return any(isinstance(value, np.ndarray) and np.may_share_memory(value, array) for value in held)
