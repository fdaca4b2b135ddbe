"""Is a gradient right? Compare it with what a tiny change really does.

*Write your own operation.* Forward with NumPy, then the derivative that you found on paper, then
let ``gradcheck`` judge. Here the cube, y = x^3 with dy/dx = 3 x^2:

>>> def cube(x):
...     a = x.data
...     def backward(dy):
...         return (dy * 3 * a**2,)
...     return Tensor.from_op(a**3, (x,), backward)
>>> gradcheck(cube, Tensor([1.0, -2.0, 0.5]))
True

And with a slip, 2 x^2 instead of 3 x^2:

>>> def wrong(x):
...     a = x.data
...     return Tensor.from_op(a**3, (x,), lambda dy: (dy * 2 * a**2,))
>>> gradcheck(wrong, Tensor([1.0, -2.0, 0.5]))
Traceback (most recent call last):
    ...
AssertionError: gradcheck: input 0, entry (1,): backward says 6.15829, a small change says 9.23744 (3 of 3 differ)
"""  # noqa: W505

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..nn.module import Module
from ..tensor import Tensor, no_grad


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Any,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
) -> bool:
    """Compare ``backward`` of ``fn(*inputs)`` with central differences, entry by entry; True, or an
    AssertionError.

    fn: any function of Tensors to a Tensor, or a Module (its parameters are checked too). inputs: a
    Tensor or several, of which those with floats are checked; other arguments are passed as they
    are. Everything is computed in float64, whatever the dtype of the inputs, which are left as they
    were: in float32 a difference of 1e-6 would drown in rounding. The outcome y is summed up as L =
    sum r y with fixed random weights r, because the plain sum would not notice some mistakes (the
    gradient of sum(softmax) is zero). Then dL/dx ~ (L(x + eps) - L(x - eps)) / (2 eps). The message
    names the worst entry: |found - expected| - rtol |expected| is greatest there.
    """
    arguments = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    checked: list[tuple[str, Tensor]] = []
    for i, x in enumerate(arguments):
        if isinstance(x, Tensor) and x.dtype.kind == "f":
            arguments[i] = Tensor(x.data.astype(np.float64), requires_grad=True)
            checked.append((f"input {i}", arguments[i]))
    parameters = list(fn.named_parameters()) if isinstance(fn, Module) else []
    before = [(parameter, parameter.data, parameter.grad) for _, parameter in parameters]
    try:
        for name, parameter in parameters:
            if parameter.requires_grad:
                parameter.data, parameter.grad = parameter.data.astype(np.float64), None
                checked.append((f"parameter {name}", parameter))
        return _check(fn, arguments, checked, eps, atol, rtol)
    finally:
        for parameter, data, grad in before:
            parameter.data, parameter.grad = data, grad


def _check(
    fn: Callable[..., Tensor], arguments: Sequence[Any], checked: list, eps: float, atol: float, rtol: float
) -> bool:
    if not checked:
        raise ValueError("gradcheck: expected at least one Tensor of floats among the inputs; got none")
    y = fn(*arguments)
    if not isinstance(y, Tensor):
        raise TypeError(f"gradcheck: expected a function that returns one Tensor; got {type(y).__name__}")
    if y.dtype != np.float64:
        raise ValueError(f"gradcheck: the result is {y.dtype}, in which small changes drown; keep the inputs' float64")
    with no_grad():
        if not np.array_equal(fn(*arguments).data, y.data, equal_nan=True):
            raise ValueError("gradcheck: two calls gave two results; a random function must make its generator itself")
    weights = np.random.default_rng(0).uniform(0.5, 1.5, y.shape)  # fixed: the same check twice gives the same answer
    y.backward(weights)

    def loss() -> float:
        with no_grad():
            return float((fn(*arguments).data * weights).sum())

    worst: tuple[float, str] = (0.0, "")
    wrong = total = 0
    for name, x in checked:
        got = np.zeros(x.shape) if x.grad is None else x.grad
        for entry in np.ndindex(x.shape):
            value = x.data[entry]
            x.data[entry] = value + eps
            above = loss()
            x.data[entry] = value - eps
            below = loss()
            x.data[entry] = value
            expected = (above - below) / (2 * eps)
            excess = abs(got[entry] - expected) - atol - rtol * abs(expected)
            total += 1
            if not excess <= 0:  # also when it is NaN
                wrong += 1
                excess = np.inf if np.isnan(excess) else excess
                text = f"{name}, entry {entry}: backward says {got[entry]:.6g}, a small change says {expected:.6g}"
                worst = max(worst, (excess, text), key=lambda found: found[0])
    if wrong:
        raise AssertionError(f"gradcheck: {worst[1]} ({wrong} of {total} differ)")
    return True
