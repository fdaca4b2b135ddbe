"""NumPy's functions on a Tensor: ``np.median(t)`` takes it as its array, unless a gradient would be
lost.

Outside the graph a tensor is as good as its array. But NumPy knows no chain rule: ``np.exp(t)`` of
a tensor that needs a gradient would be a plain array, through which nothing flows back. NumPy asks
before it computes (``__array_ufunc__`` and ``__array_function__`` in tensor.py), and the answer is
a sentence, with the function that keeps the gradient:

>>> from minillm import Tensor
>>> np.exp(Tensor([1.0], requires_grad=True))
Traceback (most recent call last):
    ...
TypeError: np.exp would lose the gradient of this tensor: use F.exp(...), or give it t.data, the values alone
"""  # noqa: W505

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .engine import Node

_OPERATORS: dict[np.ufunc, Callable] = {  # ``array + t`` arrives as np.add(array, t)
    np.add: operator.add,
    np.subtract: operator.sub,
    np.multiply: operator.mul,
    np.true_divide: operator.truediv,
    np.power: operator.pow,
    np.remainder: operator.mod,
    np.floor_divide: operator.floordiv,
    np.matmul: operator.matmul,
    np.negative: operator.neg,
    np.equal: operator.eq,
    np.not_equal: operator.ne,
    np.less: operator.lt,
    np.less_equal: operator.le,
    np.greater: operator.gt,
    np.greater_equal: operator.ge,
    np.bitwise_and: operator.and_,
    np.bitwise_or: operator.or_,
    np.invert: operator.invert,
}
_OF_SHAPES = {np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like}  # they look at no value


def python_operator(ufunc: np.ufunc, method: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Callable | None:
    """The operator of Python's that was meant; ``array += t`` too, which makes a new tensor."""
    in_place = options.keys() == {"out"} and options["out"][0] is inputs[0]
    return _OPERATORS.get(ufunc) if method == "__call__" and (in_place or not options) else None


def on_arrays(
    tensor: Node, function: Callable, types: Any, arguments: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """``function`` of the arrays behind all tensors; a TypeError when one of them needs a gradient.

    The arrays cannot be written into (``out=t``, ``np.fill_diagonal(t, 0)``): the graph would not
    know.
    """

    def array(x: Any) -> Any:
        if isinstance(x, (list, tuple)):
            return [array(part) for part in x] if isinstance(x, list) else tuple(array(part) for part in x)
        if not isinstance(x, Node):
            return x
        if x.requires_grad and function not in _OF_SHAPES:
            raise TypeError(_sentence(function, type(tensor)))
        view = x._data.view()
        view.flags.writeable = False
        return view

    return function(*array(tuple(arguments)), **{name: array(x) for name, x in options.items()})


def _sentence(function: Callable, tensor: type) -> str:
    ufunc = getattr(function, "__self__", None)  # function is then one of its methods: np.exp.__call__, np.add.reduce
    numpys = function if ufunc is None else ufunc
    name = numpys.__name__
    functional = sys.modules.get("minillm.functional")  # on a higher floor: looked at, not imported
    ours = [
        here.format(ours)
        for here, owner in (("t.{}(...)", tensor), ("F.{}(...)", functional))
        for ours, value in (vars(owner).items() if owner else ())
        if callable(value) and (ours == name or getattr(np, ours, None) is numpys)  # np.abs is called absolute
    ]
    path = f"np{getattr(numpys, '__module__', 'numpy').removeprefix('numpy')}.{name}"
    if ufunc is not None and function.__name__ != "__call__":
        path, ours = f"{path}.{function.__name__}", []
    instead = f"use {ours[0]}, or " if ours else ""
    return f"{path} would lose the gradient of this tensor: {instead}give it t.data, the values alone"
