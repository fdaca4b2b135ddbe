"""The engine of backpropagation: results that remember what they were made of, and the walk back through them.

Every operation computes its result and leaves behind a small function, ``backward``, that knows its own derivative and
nothing else. ``loss.backward()`` walks from the loss to the parameters and multiplies these derivatives together: that
is the chain rule, and all there is to backpropagation. `Tensor` in tensor.py is a `Node` with the manners of an array.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

Gradients = Sequence[np.ndarray | None]
Backward = Callable[..., Gradients]  # of dy; see ``from_op`` for a second argument

_clock = itertools.count(1).__next__  # one tick for each operation and each change in place: what came before what
_grad_enabled = True
observer: Any = None  # sees every operation while it is set: see anomaly.py


class no_grad(contextlib.ContextDecorator):
    """Record nothing inside: for evaluation and generation, and for parameter updates.

    >>> from minillm import Tensor
    >>> with no_grad():
    ...     y = Tensor([1.0], requires_grad=True) * 2
    >>> y.requires_grad
    False
    """

    def __init__(self) -> None:
        self._before: list[bool] = []  # a list: a decorated function may call itself

    def __enter__(self) -> None:
        global _grad_enabled
        self._before.append(_grad_enabled)
        _grad_enabled = False

    def __exit__(self, *exc: object) -> None:
        global _grad_enabled
        _grad_enabled = self._before.pop()


class Node:
    """An array in the graph: its gradient, and the operation that made it."""

    __slots__ = (
        *("_data", "grad", "requires_grad", "_inputs", "_backward", "_adds"),
        *("_born", "_changed", "_hooks", "_keeps_grad", "__weakref__"),
    )

    def __init__(self, data: np.ndarray, requires_grad: bool) -> None:
        self._data = data
        self.grad: np.ndarray | None = None
        self.requires_grad = requires_grad
        self._inputs: tuple[Node, ...] = ()
        self._backward: Backward | None = None
        self._adds = False  # whether the rule adds what its first input has got from elsewhere
        self._born = 0  # the clock when an operation made it; 0 for what was given
        self._changed = 0  # the clock when its array was last changed in place
        self._hooks: list[Callable[[np.ndarray], np.ndarray | None]] | None = None
        self._keeps_grad = False  # whether retain_grad() was called

    @classmethod
    def from_op(cls, data: np.ndarray, inputs: tuple[Node, ...], backward: Backward, adds: bool = False) -> Self:
        """The result of an operation on ``inputs``.

        ``backward(dy)`` gets the gradient of the loss with respect to this result (an array of its shape) and returns
        one gradient per input, of that input's shape, or None. It must hold arrays, never the result Tensor itself: a
        circle of references would keep the graph alive until the garbage collector runs. It must not write into
        ``dy``, nor return an array that it keeps.

        adds: for an operation beside which its first input has another way to the loss, as a norm has the residual
        stream. Its ``backward(dy, before)`` also gets what has come to the first input until then, or None, and adds
        it to its own while that is at hand.
        """
        out = _new(cls)
        out._data = data if type(data) is np.ndarray else np.asarray(data)
        out.grad = None
        out._hooks = None
        out._keeps_grad = False
        out._changed = 0
        out._adds = adds
        if _grad_enabled:
            for t in inputs:
                if t.requires_grad:
                    out.requires_grad = True
                    out._inputs = inputs
                    out._backward = backward
                    out._born = _clock()
                    break
            else:
                out.requires_grad = False
                out._inputs = ()
                out._backward = None
                out._born = 0
        else:
            out.requires_grad = False
            out._inputs = ()
            out._backward = None
            out._born = 0
        if observer is not None:
            observer.on_forward(out, inputs, backward)
        return out

    # ---- backpropagation ---------------------------------------------------------------------------------------------

    def backward(self, grad: Any = None, retain_graph: bool = False) -> None:
        """Fill ``.grad`` of every parameter that this tensor was computed from, by the chain rule.

        grad: the gradient of the loss with respect to this tensor; may be left out when the tensor is a single number
        (the loss itself: d loss / d loss = 1). The recorded graph is dropped on the way, unless ``retain_graph``.
        Raises RuntimeError when there is nothing to go back through, or an array was changed that is needed.

        In which order? An operation may pass its gradient on only when *all* of it has arrived. Take ``b = a + a;
        c = b * b``, then ``d = c + b``: b is used by c and by d. Going back from d to b and on to a before c has
        given its share would send a wrong gradient on, and the late share would be lost, or sent twice. So operations
        are taken in reverse topological order: none before those that use its result. Here that order comes free: an
        operation can only use tensors that exist already, so the reverse of the order of creation is such an order.

        Why do gradients add? If x reaches the loss on two ways, a small change of x moves the loss by the sum of what
        each way moves it. For the same reason a second ``backward()`` adds to ``.grad``: call ``zero_grad()`` between
        steps, or leave it out on purpose to gather the gradient of several batches.
        """
        if not self.requires_grad:
            raise RuntimeError("backward: this tensor was not computed from any tensor with requires_grad=True")
        # gradients on their way, by the tensor they belong to (found by its identity: no entries are compared)
        pending = {self: self._first_gradient(grad)}
        summed: set[Node] = set()  # the tensors whose gradient is our own sum, to which more may be added in place
        nodes, changed = self._reachable()
        while nodes:
            node = nodes.pop()
            dy = pending.pop(node, None)
            if dy is None:  # every operation that uses it said that it has no gradient
                continue
            inputs, rule = node._inputs, node._backward
            if node._hooks:
                for hook in node._hooks:
                    instead = hook(dy)
                    dy = dy if instead is None else np.asarray(instead, dtype=dy.dtype)
            if rule is None or node._keeps_grad:
                node._accumulate(dy, own=node in summed and not node._hooks)  # a hook may have kept the array
                if rule is None:
                    continue
            if changed:
                node._check_unchanged(changed)
            if node._adds:
                summed.discard(inputs[0])
                gradients = rule(dy, pending.pop(inputs[0], None))
            else:
                gradients = rule(dy)
            if observer is not None:
                observer.on_backward(node, dy, gradients)
            if len(gradients) != len(inputs):
                raise RuntimeError(
                    f"backward of '{node.op}' gave {len(gradients)} gradients for {len(inputs)} inputs; None is one too"
                )
            single = len(set(map(id, gradients))) == len(gradients)  # no array is there twice
            for t, g in zip(inputs, gradients):  # noqa: B905 - as long as each other, see above
                if g is None or not t.requires_grad:
                    continue
                data = t._data
                if type(g) is not np.ndarray or g.dtype is not data.dtype or g.shape != data.shape:
                    g = _fitting(g, t, node)
                before = pending.get(t)
                if before is None:
                    pending[t] = g
                    if t._backward is None and single and _fresh(g, dy):
                        summed.add(t)
                elif t in summed:
                    before += g
                elif single and _fresh(g, dy):
                    g += before
                    pending[t] = g
                    summed.add(t)
                else:
                    pending[t] = np.asarray(before + g)  # of two 0-d arrays NumPy makes a scalar
                    summed.add(t)
            if not retain_graph:  # the walk is the last to hold this node: its array is freed before the next one's
                node._backward, node._inputs, node._adds = _dropped(rule.__qualname__), (), False
                summed.discard(node)

    def _first_gradient(self, grad: Any) -> np.ndarray:
        if grad is None:
            if self._data.size != 1:
                raise RuntimeError(
                    f"backward: the gradient can start from a single number only; this tensor has shape {self.shape}. "
                    "Take .sum() or .mean() first, or pass grad= of that shape"
                )
            return np.ones_like(self._data)
        grad = np.asarray(grad.data if isinstance(grad, Node) else grad, dtype=self._data.dtype)
        if grad.shape != self.shape:
            raise ValueError(f"backward: grad must have the tensor's shape {self.shape}; got {grad.shape}")
        return grad

    def _reachable(self) -> tuple[list[Node], set[Node]]:
        """The tensors that this one was computed from and that need gradients, oldest first (leaves before all).

        Beside them those, of all inputs, whose arrays were changed in place since they were made (a parameter: used).
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
        return sorted(seen, key=_birth), changed

    def _check_unchanged(self, changed: set[Node]) -> None:
        """Raise if an array, or a view of it, is needed here as it was before it was changed in place."""
        for t in changed:
            if t._changed > self._born and _keeps(self._backward, t._data):
                inputs = [id(source) for source in self._inputs]
                what = "the result" if t is self else "an input" if id(t) in inputs else "what is seen through an input"
                raise RuntimeError(
                    f"backward: the array of {what} of '{self.op}', shape {t.shape}, was changed in place after "
                    f"'{self.op}' had used it, and its old values are needed for the gradient. "
                    "Change parameters after backward(), or compute a new tensor instead"
                )

    def _accumulate(self, g: np.ndarray, own: bool) -> None:
        if self._data.dtype.kind != "f":
            raise TypeError(f"backward: only floats can have gradients; requires_grad was set on {self._data.dtype}")
        if self.grad is None:
            self.grad = g if own else g.copy()
        else:
            self.grad += g

    def register_hook(self, hook: Callable[[np.ndarray], np.ndarray | None]) -> Callable[[], None]:
        """Call ``hook(gradient)`` when this tensor's gradient is complete in ``backward()``; what it returns, if
        anything, takes the gradient's place. Returns a function that removes the hook.
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: this tensor has no gradient (requires_grad is False)")
        hooks = self._hooks = self._hooks or []
        hooks.append(hook)
        return lambda: hooks.remove(hook) if hook in hooks else None

    def retain_grad(self) -> None:
        """Keep ``.grad`` of a tensor in the middle of the graph too (else only parameters keep theirs)."""
        if not self.requires_grad:
            raise RuntimeError("retain_grad: this tensor has no gradient (requires_grad is False)")
        self._keeps_grad = True

    # ---- the array ---------------------------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The values. ``t.data -= step`` is noticed: a ``backward()`` that needs the old values says so."""
        return self._data

    @data.setter
    def data(self, array: np.ndarray) -> None:
        if array is self._data:  # the end of an augmented assignment, t.data += ...
            self._changed = _clock()
        elif not isinstance(array, (np.ndarray, np.generic)):
            raise TypeError(f"Tensor.data must be a NumPy array; got {type(array).__name__}")
        self._data = np.asarray(array)  # of 0-d arrays NumPy makes scalars

    def mark_changed(self) -> None:
        """Say that the array was written into (an optimiser's step): older graphs can no longer use it."""
        self._changed = _clock()

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        """float32 or float64; integers or booleans for tensors without gradients."""
        return self._data.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._data.ndim

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._data.size

    def item(self) -> float | int | bool:
        """The one number in it, as Python's."""
        if self._data.size != 1:
            raise ValueError(f"item: expected a tensor with a single number; got shape {self.shape}")
        return self._data.item()

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor with no axes")
        return self.shape[0]

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return operator.index(self._data.item())

    @property
    def op(self) -> str | None:
        """The name of the operation that made this tensor; None for one that was given."""
        return None if self._backward is None else name_of(self._backward)


def name_of(backward: Backward) -> str:
    """The name of the operation that a backward function was written in: ``softmax.<locals>.backward`` -> softmax."""
    return backward.__qualname__.rsplit(".<locals>.", 1)[0].split(".")[-1].strip("_")


@functools.cache
def _dropped(qualname: str) -> Backward:
    """What stands in the place of a backward function that was used: it keeps the operation's name alone."""

    def backward(dy: np.ndarray) -> Gradients:
        raise RuntimeError(
            "backward: this graph was used before, and its arrays were dropped then. "
            "Compute the loss anew, or call backward(retain_graph=True) the first time"
        )

    backward.__qualname__ = qualname
    return backward


def _fitting(g: Any, t: Node, node: Node) -> np.ndarray:
    """A gradient as an array of its tensor's dtype, or a sentence that names the operation whose backward is wrong."""
    g = np.asarray(g)
    if g.shape != t.shape:
        i = next(i for i, source in enumerate(node._inputs) if source is t)
        raise RuntimeError(
            f"backward of '{node.op}' gave a gradient of shape {g.shape} for input {i}, whose shape is {t.shape}"
        )
    return g.astype(t._data.dtype, copy=False)


def _keeps(backward: Backward | None, array: np.ndarray) -> bool:
    """Whether a backward function holds ``array`` in its closure."""
    held: list[Any] = [cell.cell_contents for cell in getattr(backward, "__closure__", None) or ()]
    for value in held:
        if isinstance(value, (tuple, list)):
            held.extend(value)
    return any(isinstance(value, np.ndarray) and np.may_share_memory(value, array) for value in held)


def _fresh(g: np.ndarray, dy: np.ndarray) -> bool:
    """Whether nobody else uses an array that a rule has returned once: it is neither dy nor a view."""
    return g is not dy and g.base is None and g.flags.writeable


_new = object.__new__
_birth = operator.attrgetter("_born")
