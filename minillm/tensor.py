"""The engine: an array that remembers how it was made, and can therefore say how to change it.

Every operation computes its result forward and leaves behind a small function, ``backward``, that knows the operation's
own derivative and nothing else. ``loss.backward()`` walks from the loss to the parameters and multiplies these
derivatives together: that is the chain rule, and all there is to backpropagation.

>>> a, b = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
>>> loss = (a * b + a).sum()        # loss = ab + a
>>> loss.backward()
>>> a.grad, b.grad                  # d loss / da = b + 1,   d loss / db = a
(array([4.], dtype=float32), array([2.], dtype=float32))

Size letters, here and in every file: B batch, T time, C channels, H heads, D head size, V vocabulary.

Where an operation lives: one with Python syntax (``+ @ []``) or that reduces or reshapes is a method here; one with a
name is a function in ``functional``.
"""

from __future__ import annotations

import contextlib
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from . import kernels

Gradients = Sequence[np.ndarray | None]
Backward = Callable[[np.ndarray], Gradients]

_clock = itertools.count(1).__next__  # one tick for each operation and each change in place: what came before what
_grad_enabled = True
observer: Any = None  # sees every operation while it is set: see anomaly.py


class no_grad(contextlib.ContextDecorator):
    """Record nothing inside: for evaluation and generation, and for parameter updates.

    >>> with no_grad():
    ...     y = Tensor([1.0], requires_grad=True) * 2
    >>> y.requires_grad
    False
    """

    def __enter__(self) -> None:
        global _grad_enabled
        self._before, _grad_enabled = _grad_enabled, False

    def __exit__(self, *exc: object) -> None:
        global _grad_enabled
        _grad_enabled = self._before


class Tensor:
    """An array, its gradient, and the operation that made it.

    array: anything NumPy makes an array of. Floats become float32 unless the array is float64; integers and booleans
    are kept, and cannot have gradients. ``requires_grad=True`` marks a parameter: ``backward()`` fills its ``.grad``,
    an array of the same shape, adding to what is there.
    """

    __slots__ = ("_data", "grad", "requires_grad", "_inputs", "_backward", "_born", "_changed", "_hooks", "__weakref__")
    __array_ufunc__ = None  # ndarray + Tensor asks Tensor

    def __init__(self, array: Any, requires_grad: bool = False) -> None:
        if isinstance(array, Tensor):
            array = array.data
        is_float64 = isinstance(array, np.ndarray) and array.dtype == np.float64
        data = np.asarray(array)
        if data.dtype.kind == "f" and data.dtype != np.float32 and not is_float64:
            data = data.astype(np.float32)
        elif data.dtype.kind not in "fiub":
            raise TypeError(f"Tensor: expected numbers or booleans; got an array of {data.dtype}")
        if requires_grad and data.dtype.kind != "f":
            raise TypeError(f"Tensor: only floats can have gradients; got {data.dtype}. Convert it to float32 first")
        self._data = data
        self.grad: np.ndarray | None = None
        self.requires_grad = requires_grad
        self._inputs: tuple[Tensor, ...] = ()
        self._backward: Backward | None = None
        self._born = 0
        self._changed = 0
        self._hooks: list[Callable[[np.ndarray], np.ndarray | None]] | None = None

    @staticmethod
    def from_op(data: np.ndarray, inputs: tuple[Tensor, ...], backward: Backward) -> Tensor:
        """The result of an operation on ``inputs``.

        ``backward(dy)`` gets the gradient of the loss with respect to this result (an array of its shape) and returns
        one gradient per input, of that input's shape, or None. It must hold arrays, never the result Tensor itself: a
        circle of references would keep the graph alive until the garbage collector runs. It must not write into
        ``dy``, nor return an array that it keeps.
        """
        out = _new(Tensor)
        out._data = data if type(data) is np.ndarray else np.asarray(data)
        out.grad = None
        out._hooks = None
        out._changed = 0
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
        else:
            out.requires_grad = False
            out._inputs = ()
            out._backward = None
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
        pending = {id(self): self._first_gradient(grad)}  # gradients on their way, by the tensor they belong to
        summed: set[int] = set()  # those that are our own sums, to which more may be added in place
        nodes = self._reachable()
        while nodes:
            node = nodes.pop()
            dy = pending.pop(id(node), None)
            if dy is None:  # every operation that uses it said that it has no gradient
                continue
            for hook in node._hooks or ():
                changed = hook(dy)
                dy = dy if changed is None else np.asarray(changed, dtype=dy.dtype)
            if node._backward is None:
                node._accumulate(dy, own=id(node) in summed)
                continue
            inputs, gradients = node._inputs, node._apply_backward(dy)
            for i, (t, g) in enumerate(zip(inputs, gradients, strict=True)):
                if g is None or not t.requires_grad:
                    continue
                g = _checked(g, t, node, i)
                key = id(t)
                before = pending.get(key)
                if before is None:
                    # the closure returned a fresh array, or dy itself, or a view: only the first is ours to keep
                    pending[key] = g
                    if t._backward is None and g is not dy and g.base is None and not _twice(g, gradients):
                        summed.add(key)
                elif key in summed:
                    np.add(before, g, out=before)
                else:
                    pending[key] = np.asarray(before + g)  # of two 0-d arrays NumPy makes a scalar
                    summed.add(key)
            if not retain_graph:
                node._backward, node._inputs = _dropped, ()

    def _first_gradient(self, grad: Any) -> np.ndarray:
        if grad is None:
            if self._data.size != 1:
                raise RuntimeError(
                    f"backward: the gradient can start from a single number only; this tensor has shape {self.shape}. "
                    "Take .sum() or .mean() first, or pass grad= of that shape"
                )
            return np.ones_like(self._data)
        grad = np.asarray(grad.data if isinstance(grad, Tensor) else grad, dtype=self.dtype)
        if grad.shape != self.shape:
            raise ValueError(f"backward: grad must have the tensor's shape {self.shape}; got {grad.shape}")
        return grad

    def _reachable(self) -> list[Tensor]:
        """The tensors that this one was computed from and that need gradients, oldest first (leaves before all)."""
        seen, found, stack = {id(self)}, [self], [self]
        while stack:  # a loop, not recursion: graphs are deeper than Python's stack
            for t in stack.pop()._inputs:
                if t.requires_grad and id(t) not in seen:
                    seen.add(id(t))
                    found.append(t)
                    stack.append(t)
        found.sort(key=_birth)
        return found

    def _apply_backward(self, dy: np.ndarray) -> Gradients:
        for t in self._inputs:
            if t._changed > self._born and _keeps(self._backward, t._data):
                raise RuntimeError(
                    f"backward: the array of an input of '{self.op}', shape {t.shape}, was changed in place after "
                    f"'{self.op}' had used it, and its old values are needed for the gradient. "
                    "Change parameters after backward(), or compute a new tensor instead"
                )
        assert self._backward is not None
        gradients = self._backward(dy)
        if observer is not None:
            observer.on_backward(self, dy, gradients)
        return gradients

    def _accumulate(self, g: np.ndarray, own: bool) -> None:
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
        return lambda: hooks.remove(hook)

    def retain_grad(self) -> None:
        """Keep ``.grad`` of a tensor in the middle of the graph too (else only parameters keep theirs)."""
        if self._backward is not None:
            self.register_hook(lambda g: self._accumulate(g, own=False))

    def detach(self) -> Tensor:
        """The same array outside the graph: gradients stop here."""
        return Tensor(self._data)

    # ---- the array ---------------------------------------------------------------------------------------------------

    @property
    def data(self) -> np.ndarray:
        """The values. ``t.data -= step`` is noticed: a ``backward()`` that needs the old values says so."""
        return self._data

    @data.setter
    def data(self, array: np.ndarray) -> None:
        if array is self._data:  # the end of an augmented assignment, t.data += ...
            self._changed = _clock()
        elif not isinstance(array, np.ndarray):
            raise TypeError(f"Tensor.data must be a NumPy array; got {type(array).__name__}")
        self._data = array

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

    @property
    def op(self) -> str | None:
        """The name of the operation that made this tensor; None for one that was given."""
        return None if self._backward is None else name_of(self._backward)

    def numpy(self) -> np.ndarray:
        """The array, of a tensor outside the graph (else ``t.detach().numpy()``, or ``t.data``)."""
        return self.__array__()

    def item(self) -> float | int | bool:
        """The one number in it, as Python's."""
        if self._data.size != 1:
            raise ValueError(f"item: expected a tensor with a single number; got shape {self.shape}")
        return self._data.item()

    def astype(self, dtype: Any) -> Tensor:
        """The values as another dtype; the gradient comes back as this one."""
        if np.dtype(dtype).kind != "f":
            return Tensor(self._data.astype(dtype))

        def backward(dy):
            return (dy,)

        return Tensor.from_op(self._data.astype(dtype), (self,), backward)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise RuntimeError(
                "this tensor needs a gradient, and a NumPy array would lose it: "
                "use t.detach().numpy() or t.data for the values alone"
            )
        return np.array(self._data, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        values = np.array2string(self._data, precision=4, threshold=20, edgeitems=3, separator=", ", prefix="Tensor(")
        origin = f", op={self.op}" if self.op else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({values}, shape={self.shape}, {self.dtype}{origin})"

    def __copy__(self) -> Tensor:
        return Tensor(self._data, self.requires_grad)

    def __deepcopy__(self, memo: dict) -> Tensor:
        twin = memo[id(self)] = Tensor(self._data.copy(), self.requires_grad)
        twin.grad = None if self.grad is None else self.grad.copy()
        return twin

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor with no axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "a Tensor's values are not changed in place, the graph would not know: "
            "use F.where or F.concatenate, or write into t.data outside the graph"
        )

    # ---- arithmetic --------------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a_shape, b_shape = self._data.shape, other._data.shape

        def backward(dy):  # y = a + b
            return unbroadcast(dy, a_shape), unbroadcast(dy, b_shape)

        return Tensor.from_op(broadcasting(np.add, self._data, other._data), (self, other), backward)

    def __sub__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a_shape, b_shape, b_needs = self._data.shape, other._data.shape, other.requires_grad

        def backward(dy):  # y = a - b
            return unbroadcast(dy, a_shape), unbroadcast(-dy, b_shape) if b_needs else None

        return Tensor.from_op(broadcasting(np.subtract, self._data, other._data), (self, other), backward)

    def __mul__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b = self._data, other._data
        a_needs, b_needs = self.requires_grad, other.requires_grad

        def backward(dy):  # y = a b
            return unbroadcast(dy * b, a.shape) if a_needs else None, unbroadcast(dy * a, b.shape) if b_needs else None

        return Tensor.from_op(broadcasting(np.multiply, a, b), (self, other), backward)

    def __truediv__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b = self._data, other._data
        b_needs = other.requires_grad

        def backward(dy):  # y = a / b  ->  dy/db = -a / b^2
            da = dy / b
            return unbroadcast(da, a.shape), unbroadcast(-da * (a / b), b.shape) if b_needs else None

        return Tensor.from_op(broadcasting(np.true_divide, a, b), (self, other), backward)

    def __pow__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b = self._data, other._data
        y = broadcasting(np.power, a, b)
        b_needs = other.requires_grad

        def backward(dy):  # y = a^b  ->  dy/da = b a^(b - 1),   dy/db = y log a
            with np.errstate(divide="ignore", invalid="ignore"):
                da = dy * np.where(b == 0, 0, b * np.power(a, b - 1))  # a^0 is 1, even at a = 0
                db = dy * np.where(a == 0, np.where(b < 0, np.nan, 0), y * np.log(a)) if b_needs else None
            return unbroadcast(da, a.shape), None if db is None else unbroadcast(db, b.shape)

        return Tensor.from_op(y, (self, other), backward)

    def __matmul__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b = self._data, other._data
        a_needs, b_needs = self.requires_grad, other.requires_grad
        if not (a.ndim and b.ndim) or a.shape[-1] != b.shape[max(0, b.ndim - 2)]:
            raise ValueError(
                f"matmul: the last axis of the left side must be as long as the second to last of the right side; "
                f"got shapes {a.shape} and {b.shape}"
            )

        def backward(dy):  # y = a @ b  ->  da = dy @ b^T,   db = a^T @ dy
            # a vector is a matrix with one row (left) or one column (right)
            rows, cols = a if a.ndim > 1 else a[None], b if b.ndim > 1 else b[:, None]
            dy = dy if b.ndim > 1 else dy[..., None]
            dy = dy if a.ndim > 1 else dy[..., None, :]
            da = unbroadcast(kernels.product(dy, cols.swapaxes(-1, -2)), rows.shape) if a_needs else None
            db = None
            if b_needs and cols.ndim == 2:  # one matrix for the whole batch: sum over the batch in the product
                db = kernels.product(rows.reshape(-1, rows.shape[-1]).T, dy.reshape(-1, dy.shape[-1]))
            elif b_needs:
                db = unbroadcast(kernels.product(rows.swapaxes(-1, -2), dy), cols.shape)
            return None if da is None else da.reshape(a.shape), None if db is None else db.reshape(b.shape)

        return Tensor.from_op(broadcasting(kernels.product, a, b), (self, other), backward)

    def __neg__(self) -> Tensor:
        def backward(dy):  # y = -a
            return (-dy,)

        return Tensor.from_op(-self._data, (self,), backward)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Tensor:
        return operand(other, self) - self

    def __rtruediv__(self, other: Any) -> Tensor:
        return operand(other, self) / self

    def __rpow__(self, other: Any) -> Tensor:
        return operand(other, self) ** self

    def __rmatmul__(self, other: Any) -> Tensor:
        return operand(other, self) @ self

    # Comparisons give boolean tensors; a step function has no gradient worth following.

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return Tensor(broadcasting(np.equal, self._data, operand(other, self)._data))

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return Tensor(broadcasting(np.not_equal, self._data, operand(other, self)._data))

    def __lt__(self, other: Any) -> Tensor:
        return Tensor(broadcasting(np.less, self._data, operand(other, self)._data))

    def __le__(self, other: Any) -> Tensor:
        return Tensor(broadcasting(np.less_equal, self._data, operand(other, self)._data))

    def __gt__(self, other: Any) -> Tensor:
        return Tensor(broadcasting(np.greater, self._data, operand(other, self)._data))

    def __ge__(self, other: Any) -> Tensor:
        return Tensor(broadcasting(np.greater_equal, self._data, operand(other, self)._data))

    __hash__ = object.__hash__

    # ---- choosing, reducing, reshaping -------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        """y = x[index]: any NumPy index. An entry that is taken several times gets the sum of its gradients."""
        index = array_index(index)
        shape, dtype = self.shape, self.dtype
        parts = index if isinstance(index, tuple) else (index,)
        once = all(i is None or i is Ellipsis or isinstance(i, (int, np.integer, slice)) for i in parts)

        def backward(dy):
            dx = np.zeros(shape, dtype)
            if once:
                dx[index] = dy
            else:
                np.add.at(dx, index, dy)  # repeated indices add
            return (dx,)

        return Tensor.from_op(self._data[index], (self,), backward)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """y = sum of x over ``axis`` (all axes by default); every summand gets dy."""
        shape = self.shape

        def backward(dy):
            return (np.broadcast_to(with_axes(dy, axis, keepdims), shape),)

        return Tensor.from_op(self._data.sum(axis=axis, keepdims=keepdims), (self,), backward)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """y = (1 / n) sum of x over ``axis``; every summand gets dy / n."""
        shape = self.shape
        y = self._data.mean(axis=axis, keepdims=keepdims)
        n = self._data.size / max(1, np.size(y))

        def backward(dy):
            return (np.broadcast_to(with_axes(dy / n, axis, keepdims), shape),)

        return Tensor.from_op(y, (self,), backward)

    def var(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        """y = sum of (x - mean)^2 / (n - ddof) over ``axis``; ddof 0 as in NumPy (torch's default is 1)."""
        x = self._data
        centred = x - x.mean(axis=axis, keepdims=True)
        y = x.var(axis=axis, keepdims=keepdims, ddof=ddof)
        n = x.size / max(1, np.size(y)) - ddof

        def backward(dy):  # the mean's own share is zero: sum (x - mean) = 0
            return (with_axes(dy, axis, keepdims) * centred * (2 / n),)

        return Tensor.from_op(y, (self,), backward)

    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """The greatest entry over ``axis``; entries that tie share the gradient evenly."""
        return _extremum(self, np.max, axis, keepdims)

    def min(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """The least entry over ``axis``; entries that tie share the gradient evenly."""
        return _extremum(self, np.min, axis, keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Where the greatest entry is, as integers (no gradient)."""
        return Tensor(np.asarray(np.argmax(self._data, axis=axis, keepdims=keepdims)))

    def reshape(self, *shape: Any) -> Tensor:
        """The same entries in the same order, with other axes: ``x.reshape(B, T, C)`` or ``x.reshape((B, -1))``."""
        before = self.shape
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape

        def backward(dy):
            return (dy.reshape(before),)

        try:
            y = self._data.reshape(wanted)
        except ValueError:
            raise ValueError(
                f"reshape: {self.size} entries of shape {before} do not fill shape {tuple(wanted)}"
            ) from None
        return Tensor.from_op(y, (self,), backward)

    def transpose(self, *axes: Any) -> Tensor:
        """The axes in another order, as NumPy's: reversed by default, else ``x.transpose(0, 2, 1)``."""
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes or range(self.ndim)[::-1]
        inverse = np.argsort([axis % max(1, self.ndim) for axis in order])

        def backward(dy):
            return (dy.transpose(inverse),)

        return Tensor.from_op(self._data.transpose(order), (self,), backward)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Two axes change places."""

        def backward(dy):
            return (dy.swapaxes(axis1, axis2),)

        return Tensor.from_op(self._data.swapaxes(axis1, axis2), (self,), backward)

    @property
    def T(self) -> Tensor:
        """The transpose: all axes reversed."""
        return self.transpose()


# ---- what operations share -------------------------------------------------------------------------------------------


def operand(x: Any, like: Tensor) -> Tensor:
    """``x`` as a Tensor that can stand beside ``like`` in an operator: Python numbers take its dtype."""
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (bool, int, float)):  # np.float64 is a float too, and must not make float32 wider
        keep = like.dtype if like.dtype.kind == "f" else None
        return Tensor(np.asarray(x, dtype=keep))
    return Tensor(x)


def unbroadcast(dy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo broadcasting: (what NumPy stretched) is summed back to ``shape``.

    An entry that was copied along an axis reaches the loss on as many ways as it has copies, and gradients add.

    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    if dy.shape == shape:
        return dy
    extra = dy.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(i + extra for i, n in enumerate(shape) if n == 1 and dy.shape[i + extra] != 1)
    return dy.sum(axis=axes, keepdims=True).reshape(shape)


def broadcasting(function: Callable, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``function(a, b)``, with a sentence instead of NumPy's message when the shapes do not fit."""
    try:
        return function(a, b)
    except ValueError:
        inner = 2 if function is kernels.product else 0  # the axes that a matrix product has for itself
        for axis in range(1 + inner, min(a.ndim, b.ndim) + 1):
            m, n = a.shape[-axis], b.shape[-axis]
            if m != n and 1 not in (m, n):
                raise ValueError(
                    f"{'matmul' if inner else function.__name__}: shapes {a.shape} and {b.shape} do not fit: "
                    f"axis -{axis} has {m} and {n} (equal lengths, or one of them 1, would)"
                ) from None
        raise


def with_axes(y: np.ndarray, axis: int | tuple[int, ...] | None, keepdims: bool) -> np.ndarray:
    """Give a reduced array its reduced axes back, with length 1."""
    return y if keepdims or axis is None else np.expand_dims(y, axis)


def array_index(index: Any) -> Any:
    """An index in which Tensors have become arrays; floats are refused."""
    if isinstance(index, tuple):
        return tuple(array_index(i) for i in index)
    if isinstance(index, Tensor):
        index = index.data
    if isinstance(index, float) or (isinstance(index, np.ndarray) and index.dtype.kind == "f"):
        raise IndexError(f"an index must be made of integers, booleans or slices; got {index!r}")
    return index


def _extremum(x: Tensor, choose: Callable, axis: int | tuple[int, ...] | None, keepdims: bool) -> Tensor:
    if x.size == 0:
        raise ValueError(f"{choose.__name__}: an empty tensor has none; got shape {x.shape}")
    data = x.data
    y = choose(data, axis=axis, keepdims=True)

    def backward(dy):
        chosen = data == y
        return (chosen * (with_axes(dy, axis, keepdims) / chosen.sum(axis=axis, keepdims=True)).astype(dy.dtype),)

    backward.__qualname__ = choose.__name__
    return Tensor.from_op(y if keepdims else y.squeeze(axis), (x,), backward)


def name_of(backward: Backward) -> str:
    """The name of the operation that a backward function was written in: ``softmax.<locals>.backward`` -> softmax."""
    return backward.__qualname__.removesuffix(".<locals>.backward").split(".")[-1].strip("_")


def _dropped(dy: np.ndarray) -> Gradients:
    raise RuntimeError(
        "backward: this graph was used before, and its arrays were dropped then. "
        "Compute the loss anew, or call backward(retain_graph=True) the first time"
    )


def _checked(g: np.ndarray, t: Tensor, node: Tensor, i: int) -> np.ndarray:
    """A gradient that fits its tensor, or a sentence that names the operation whose backward is wrong."""
    data = t._data
    if type(g) is not np.ndarray:
        g = np.asarray(g)
    if g.shape != data.shape:
        raise RuntimeError(
            f"backward of '{node.op}' gave a gradient of shape {g.shape} for input {i}, whose shape is {data.shape}"
        )
    return g if g.dtype == data.dtype else g.astype(data.dtype)


def _keeps(backward: Backward | None, array: np.ndarray) -> bool:
    """Whether a backward function holds ``array`` in its closure."""
    held: list[Any] = [cell.cell_contents for cell in getattr(backward, "__closure__", None) or ()]
    for value in held:
        if isinstance(value, (tuple, list)):
            held.extend(value)
    return any(isinstance(value, np.ndarray) and np.may_share_memory(value, array) for value in held)


def _twice(g: np.ndarray, gradients: Gradients) -> bool:
    return sum(other is g for other in gradients) > 1


_new = object.__new__
_birth = operator.attrgetter("_born")
