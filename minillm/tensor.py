"""An array that remembers how it was made, and can therefore say how to change it.

>>> a, b = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)
>>> loss = (a * b + a).sum()        # loss = ab + a
>>> loss.backward()
>>> a.grad, b.grad                  # d loss / da = b + 1,   d loss / db = a
(array([4.], dtype=float32), array([2.], dtype=float32))

The engine, autograd/engine.py, explains how ``backward`` finds its way. Here are the operations
with Python syntax, and those that reduce or reshape, each with its derivative; operations with a
name are functions in ``functional``.

Size letters, here and in every file: B batch, T time, C channels, H heads, D head size, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .autograd import no_grad
from .autograd.array import Array
from .autograd.numpy_functions import on_arrays, python_operator
from .autograd.shapes import (
    added_at,
    array_index,
    broadcasting,
    deviations,
    floats,
    native,
    total,
    unbroadcast,
    with_axes,
)
from .autograd.torch_words import torch_arguments
from .kernels import compiled

__all__ = ["Tensor", "array_index", "broadcasting", "floats", "no_grad", "operand", "product", "total", "unbroadcast",
           "with_axes"]  # fmt: skip


class Tensor(Array):
    """An array, its gradient, and the operation that made it.

    array: anything NumPy makes an array of. Floats become float32 unless the array is float64;
    integers and booleans are kept, and cannot have gradients. ``requires_grad=True`` marks a
    parameter: ``backward()`` fills its ``.grad``, an array of the same shape, adding to what is
    there.
    """

    __slots__ = ()

    def __init__(self, array: Any, requires_grad: bool = False) -> None:
        super().__init__(_as_data(array), requires_grad)
        if requires_grad and self.dtype.kind != "f":
            raise TypeError(f"Tensor: only floats can have gradients; got {self.dtype}. Convert it to float32 first")

    # ---- arithmetic ------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b = self._data, other._data
        a_shape, b_shape = a.shape, b.shape  # all that is needed later: the arrays can go

        def backward(dy):  # y = a + b  ->  da = dy,  db = dy
            return unbroadcast(dy, a_shape), unbroadcast(dy, b_shape)

        return Tensor.from_op(broadcasting(np.add, a, b), (self, other), backward)

    def __sub__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b = self._data, other._data
        a_shape, b_shape = a.shape, b.shape

        def backward(dy):  # y = a - b  ->  da = dy,  db = -dy
            return unbroadcast(dy, a_shape), unbroadcast(-dy, b_shape)

        return Tensor.from_op(broadcasting(np.subtract, a, b), (self, other), backward)

    def __mul__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b = self._data, other._data

        def backward(dy):  # y = a b  ->  da = dy b,  db = dy a
            return unbroadcast(dy * b, a.shape), unbroadcast(dy * a, b.shape)

        return Tensor.from_op(broadcasting(np.multiply, a, b), (self, other), backward)

    def __truediv__(self, other: Any) -> Tensor:
        other = operand(other, _divisible(self))
        a, b = self._data if other._data.dtype.kind == "f" else floats(self), other._data

        def backward(dy):  # y = a / b  ->  da = dy / b,  db = -dy a / b^2
            da = dy / b
            return unbroadcast(da, a.shape), unbroadcast(-da * (a / b), b.shape)

        return Tensor.from_op(broadcasting(np.true_divide, a, b), (self, other), backward)

    def __pow__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b, b_needs = self._data, other._data, other.requires_grad
        with np.errstate(under="ignore"):
            y = broadcasting(np.power, a, b)

        def backward(dy):  # y = a^b  ->  da = dy b a^(b - 1),  db = dy y log a
            with np.errstate(all="ignore"):  # a^0 is 1, even at a = 0; log a is NaN for a < 0
                da = np.where(b == 0, 0, dy * b * np.power(a, b - 1))
                db = dy * np.where((a == 0) & (b >= 0), 0, y * np.log(a)) if b_needs else None
            return unbroadcast(da, a.shape), None if db is None else unbroadcast(db, b.shape)

        return Tensor.from_op(y, (self, other), backward)

    def __mod__(self, other: Any) -> Tensor:
        other = operand(other, self)
        a, b = self._data, other._data

        def backward(dy):  # y = a - b floor(a / b)  ->  da = dy,  db = -dy floor(a / b)
            return unbroadcast(dy, a.shape), unbroadcast(-dy * np.floor_divide(a, b), b.shape)

        return Tensor.from_op(broadcasting(np.remainder, a, b), (self, other), backward)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return self // other, self % other

    def __neg__(self) -> Tensor:
        def backward(dy):  # y = -a
            return (-dy,)

        return Tensor.from_op(-self._data, (self,), backward)

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        a = self._data

        def backward(dy):  # y = |a|  ->  da = dy sign(a), 0 at 0
            return (dy * np.sign(a),)

        return Tensor.from_op(np.abs(a), (self,), backward)

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
            if a.ndim == b.ndim == 2:
                return product(dy, b.T) if a_needs else None, product(a.T, dy) if b_needs else None
            # a vector is a matrix with one row (left) or one column (right)
            rows, cols = a if a.ndim > 1 else a[None], b if b.ndim > 1 else b[:, None]
            dy = dy if b.ndim > 1 else dy[..., None]
            dy = dy if a.ndim > 1 else dy[..., None, :]
            da = unbroadcast(product(dy, cols.swapaxes(-1, -2)), rows.shape) if a_needs else None
            db = None
            if b_needs and cols.ndim == 2:  # one matrix for the whole batch: sum over the batch in the product
                n = math.prod(rows.shape[:-1])
                db = product(rows.reshape(n, -1).T, dy.reshape(n, -1)) if rows.size else np.zeros(cols.shape)
            elif b_needs:
                db = unbroadcast(product(rows.swapaxes(-1, -2), dy), cols.shape)
            return None if da is None else da.reshape(a.shape), None if db is None else db.reshape(b.shape)

        return Tensor.from_op(broadcasting(product, a, b), (self, other), backward)

    # Python asks the right side when the left does not know how: ``2 - t`` is ``t.__rsub__(2)``.

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: Any) -> Tensor:
        return operand(other, self) - self

    def __rtruediv__(self, other: Any) -> Tensor:
        return operand(other, _divisible(self)) / self

    def __rpow__(self, other: Any) -> Tensor:
        return operand(other, self) ** self

    def __rmatmul__(self, other: Any) -> Tensor:
        return operand(other, self) @ self

    def __rmod__(self, other: Any) -> Tensor:
        return operand(other, self) % self

    def __rfloordiv__(self, other: Any) -> Tensor:
        return operand(other, self) // self

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return divmod(operand(other, self), self)

    # Comparisons give boolean tensors, which & | ^ ~ combine. They are steps, and so are round(a)
    # and a // b, which is floor(a / b): there is no gradient worth following.

    def _step(self, function: np.ufunc, other: Any) -> Tensor:
        if isinstance(other, int) and self.dtype.kind != "f":  # 300 is more than any uint8, but none itself
            return Tensor(function(self._data, other))
        return Tensor(broadcasting(function, self._data, operand(other, self)._data))

    def __floordiv__(self, other: Any) -> Tensor:
        return self._step(np.floor_divide, other)

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self._step(np.equal, other)

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return self._step(np.not_equal, other)

    def __lt__(self, other: Any) -> Tensor:
        return self._step(np.less, other)

    def __le__(self, other: Any) -> Tensor:
        return self._step(np.less_equal, other)

    def __gt__(self, other: Any) -> Tensor:
        return self._step(np.greater, other)

    def __ge__(self, other: Any) -> Tensor:
        return self._step(np.greater_equal, other)

    def __and__(self, other: Any) -> Tensor:
        return self._step(np.bitwise_and, other)

    def __or__(self, other: Any) -> Tensor:
        return self._step(np.bitwise_or, other)

    def __xor__(self, other: Any) -> Tensor:
        return self._step(np.bitwise_xor, other)

    __rand__, __ror__, __rxor__ = __and__, __or__, __xor__
    __hash__ = object.__hash__

    def __invert__(self) -> Tensor:
        return Tensor(~self._data)

    def __round__(self, digits: int = 0) -> Tensor:
        return Tensor(np.round(self._data, digits))

    # ---- choosing, reducing, reshaping -----------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        """y = x[index]: any NumPy index;
        dx[index] += dy. An entry that is taken several times gets the sum.

        (M, N) -> (N,) for an integer, (K, N) for a slice or array of K, (M, 1, N) for [:, None].
        """
        index = array_index(index)
        shape, dtype = self.shape, self.dtype
        parts = index if isinstance(index, tuple) else (index,)
        once = all(i is None or i is Ellipsis or isinstance(i, (int, np.integer, slice)) for i in parts)

        def backward(dy):
            if not once:
                return (added_at(shape, index, dy),)  # repeated indices add
            dx = np.zeros(shape, dtype)  # integers and slices take no entry twice
            dx[index] = dy
            return (dx,)

        return Tensor.from_op(self._data[index], (self,), backward)

    @torch_arguments
    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """y = sum of x over ``axis`` (all axes by default);   dx = dy for every summand.
        (..., N, ...) -> (...)
        """
        shape = self.shape

        def backward(dy):
            return (np.broadcast_to(with_axes(dy, axis, keepdims, len(shape)), shape),)

        return Tensor.from_op(total(self._data, axis, keepdims), (self,), backward)

    @torch_arguments
    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """y = (1 / N) sum of x over ``axis``;   dx = dy / N for every summand.
        (..., N, ...) -> (...)
        """
        shape = self.shape
        y = total(floats(self), axis, keepdims)
        n = self._data.size / max(1, np.size(y))

        def backward(dy):
            return (np.broadcast_to(with_axes(dy / n, axis, keepdims, len(shape)), shape),)

        return Tensor.from_op(y / n, (self,), backward)

    @torch_arguments
    def var(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        """y = sum (x - mean)^2 / (N - ddof) over ``axis``;   dx = dy 2 (x - mean) / (N - ddof).

        x: (..., N, ...) -> (...). ddof is 0, as NumPy's; torch's default is 1.
        """
        centred, n = deviations(floats(self), axis)
        n = max(0, n - ddof)

        def backward(dy):  # the mean's own share is zero: sum (x - mean) = 0
            return (with_axes(dy, axis, keepdims, centred.ndim) * centred * (2 / n if n else np.nan),)

        return Tensor.from_op(total(centred * centred, axis, keepdims) / n, (self,), backward)

    @torch_arguments
    def max(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """y = the greatest entry over ``axis``; it gets dy, those that tie share it evenly.
        (..., N, ...) -> (...)
        """
        return _extremum(self, np.max, axis, keepdims)

    @torch_arguments
    def min(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
        """y = the least entry over ``axis``; it gets dy, those that tie share it evenly.
        (..., N, ...) -> (...)
        """
        return _extremum(self, np.min, axis, keepdims)

    @torch_arguments
    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """Where the greatest entry is, as integers (no gradient).   (..., N, ...) -> (...)"""
        return Tensor(np.asarray(np.argmax(self._data, axis=axis, keepdims=keepdims)))

    def reshape(self, *shape: Any) -> Tensor:
        """The same entries in the same order, with other axes: ``x.reshape(B, T, C)`` or
        ``x.reshape((B, -1))``.

        (...) -> any shape with as many entries;   dx = dy in x's shape.
        """
        before = self._data.shape
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
        """The axes in another order, as NumPy's: reversed by default, else
        ``x.transpose(0, 2, 1)``.

        (L, M, N) -> (N, M, L), or (L, N, M);   dx = dy with its axes back in their places.
        """
        order = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes or range(self.ndim)[::-1]
        places = [axis % max(1, self.ndim) for axis in order]
        inverse = sorted(range(len(places)), key=places.__getitem__)
        if len(inverse) != self.ndim:
            raise ValueError(
                f"transpose: expected the {self.ndim} axes of shape {self.shape} in a new order; got {tuple(order)}. "
                "x.swapaxes(i, j) exchanges two"
            )

        def backward(dy):
            return (dy.transpose(inverse),)

        return Tensor.from_op(self._data.transpose(order), (self,), backward)

    def swapaxes(self, axis1: int, axis2: int) -> Tensor:
        """Two axes change places: (..., M, N) -> (..., N, M) for -1 and -2;
        dx = dy, changed back.
        """

        def backward(dy):
            return (dy.swapaxes(axis1, axis2),)

        return Tensor.from_op(self._data.swapaxes(axis1, axis2), (self,), backward)

    @property
    def T(self) -> Tensor:
        """The transpose, all axes reversed: (M, N) -> (N, M);   dx = dy transposed."""
        return self.transpose()

    # ---- like an array ---------------------------------------------------------------------------

    def detach(self) -> Tensor:
        """The same array outside the graph: gradients stop here."""
        return Tensor(self._data)

    def astype(self, dtype: Any) -> Tensor:
        """The values as another dtype, (...) -> (...);   dx = dy, as this dtype again."""
        dtype = np.dtype(dtype).newbyteorder("=")
        if dtype.kind != "f":
            return Tensor(self._data.astype(dtype))
        if dtype not in (np.float32, np.float64):
            raise TypeError(f"astype: floats are float32 or float64 here; got {dtype}")

        def backward(dy):
            return (dy,)

        return Tensor.from_op(self._data.astype(dtype), (self,), backward)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """``array + t``, which Python lets NumPy begin, is our own sum; on ``np.exp(t)`` see
        numpy_functions.py.
        """
        if operation := python_operator(ufunc, method, inputs, options):
            return operation(*[operand(x, self) for x in inputs])
        return on_arrays(self, getattr(ufunc, method), (), inputs, options)

    __array_function__ = on_arrays

    def __copy__(self) -> Tensor:
        return Tensor(self._data, self.requires_grad)

    def __deepcopy__(self, memo: dict) -> Tensor:
        copy = memo[id(self)] = Tensor(self._data.copy(), self.requires_grad)
        copy.grad = None if self.grad is None else self.grad.copy()
        return copy

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))


# ---- what operations share -----------------------------------------------------------------------


def _as_data(array: Any) -> np.ndarray:
    """What ``Tensor(array)`` holds: numbers or booleans, floats as float32 unless they came as a
    float64 array.
    """
    if isinstance(array, Tensor):
        array = array.data
    if isinstance(array, (list, tuple)) and any(isinstance(t, Tensor) and t.requires_grad for t in array):
        raise TypeError("Tensor: a list of tensors would lose their gradients; F.stack joins them and keeps those")
    data = native(np.asarray(array))
    is_float64 = isinstance(array, np.ndarray) and data.dtype == np.float64
    if data.dtype.kind not in "fiub":
        what = f"an array of {data.dtype}" if data.ndim else type(array).__name__
        raise TypeError(f"Tensor: expected numbers or booleans; got {what}")
    return data.astype(np.float64 if is_float64 else np.float32, copy=False) if data.dtype.kind == "f" else data


def operand(x: Any, like: Tensor) -> Tensor:
    """``x`` as a Tensor that can stand beside ``like`` in an operator: Python numbers take its
    dtype, as in NumPy.

    But for a wider kind: True and 1 give 2, 1 and 0.5 a float32. Raises OverflowError for 300
    beside uint8.
    """
    if isinstance(x, Tensor):
        return x
    if isinstance(x, (bool, int, float)):  # np.float64 is a float too, and must not make float32 wider
        kinds = "fiub" if isinstance(x, bool) else "fiu" if isinstance(x, int) else "f"
        return Tensor(np.asarray(x, dtype=like.dtype) if like.dtype.kind in kinds else x)
    return Tensor(x)


def _divisible(x: Tensor) -> Tensor:
    """A tensor of the dtype that ``x`` has in a division, where integers become float32."""
    return x if x.dtype.kind == "f" else Tensor(0.0)


@compiled("matmul")
def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The matrix product.   a: (..., M, K), b: (..., K, N) -> (..., M, N): y_ij = sum_k a_ik b_kj.
    """
    return np.matmul(a, b)


def _extremum(x: Tensor, choose: Callable, axis: int | tuple[int, ...] | None, keepdims: bool) -> Tensor:
    """y = ``choose`` (np.max or np.min) of x over ``axis``;
    dx = dy / k where x = y, k how many do, else 0.
    """
    data = x.data
    try:
        y = choose(data, axis=axis, keepdims=True)
    except ValueError:
        if data.size:
            raise
        raise ValueError(f"{choose.__name__}: an empty tensor has none; got shape {x.shape}, axis {axis}") from None

    def backward(dy):
        chosen = data == y
        share = with_axes(dy, axis, keepdims, data.ndim) / chosen.sum(axis=axis, keepdims=True)
        return (chosen * share.astype(dy.dtype),)

    return Tensor.from_op(y if keepdims else y.squeeze(axis), (x,), backward, op=choose.__name__)
