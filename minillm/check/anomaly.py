"""The NaN detective: where did the first NaN or infinity come from?

A loss of NaN says nothing about its cause, hundreds of operations earlier. Inside
``detect_anomaly`` every operation is looked at as it happens:

>>> import minillm.functional as F
>>> x = Tensor([1.0, 0.0], requires_grad=True)
>>> with detect_anomaly():
...     y = F.log(x)
Traceback (most recent call last):
    ...
FloatingPointError: forward of 'log' gave -inf at (1,), from input 0 = 0.0 there; called at <doctest ...>, line 2: ...
"""  # noqa: W505

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..autograd import observed_by, operation_name
from ..tensor import Tensor

HOME = str(Path(__file__).parents[1]) + os.sep


@contextlib.contextmanager
def detect_anomaly() -> Iterator[None]:
    """Stop at the first operation that makes a NaN or an infinity out of finite numbers, forward or
    backward.

    Raises FloatingPointError that names the operation, the input and its value, and the line of
    your code that called it. An array that was written into between forward and backward
    (``x.data[0] = 5``) is noticed too: RuntimeError. Costs time, about twice that of training; use
    it to find a mistake, then take it away.
    """
    with observed_by(_Detective()):
        yield


class _Detective:
    """Looks at every result and every gradient; remembers which line made which operation."""

    def __init__(self) -> None:
        self.origins: dict[int, tuple[str, list[int]]] = {}  # birth of a result -> (line, fingerprints of the inputs)

    def on_forward(self, out: Tensor, inputs: Sequence[Tensor]) -> None:
        line = _users_line()
        if out.requires_grad:
            self.origins[out._born] = (line, [_fingerprint(t.data) for t in inputs])
        if (at := _first_bad(out.data)) is not None and all(_first_bad(t.data) is None for t in inputs):
            op = operation_name(out._op or "")
            raise FloatingPointError(
                f"forward of '{op}' gave {out.data[at]} at {at}, from {_causes(out, at, inputs)}; "
                f"called at {line}"
            )

    def on_backward(self, node: Tensor, dy: np.ndarray, gradients: Sequence[np.ndarray | None]) -> None:
        line, fingerprints = self.origins.get(node._born, ("a line outside detect_anomaly", []))
        for i, (t, fingerprint) in enumerate(zip(node._inputs, fingerprints)):  # noqa: B905 - may be none
            if _fingerprint(t._data) != fingerprint:
                raise RuntimeError(
                    f"backward of '{node.op}': the array of input {i}, shape {t._data.shape}, was changed in place "
                    f"after '{node.op}' had used it; called at {line}"
                )
        if _first_bad(dy) is not None:
            return  # it came in from a later operation, or from the caller
        for i, (t, g) in enumerate(zip(node._inputs, gradients, strict=True)):
            if g is not None and t.requires_grad and (at := _first_bad(np.asarray(g))) is not None:
                raise FloatingPointError(
                    f"backward of '{node.op}' gave a gradient of {np.asarray(g)[at]} at {at} for input {i} = "
                    f"{t._data[at]} there; called at {line}"
                )


def _first_bad(array: np.ndarray) -> tuple[int, ...] | None:
    """Where the first NaN or infinity is."""
    if array.dtype.kind != "f":
        return None
    bad = ~np.isfinite(array)
    return tuple(int(i) for i in np.argwhere(bad)[0]) if bad.any() else None


def _causes(out: Tensor, at: tuple[int, ...], inputs: Sequence[Tensor]) -> str:
    """The inputs at that place, where they broadcast to the result's shape; else their range."""
    told = []
    for i, t in enumerate(inputs):
        try:
            told.append(f"input {i} = {np.broadcast_to(t.data, out.shape)[at]} there")
        except ValueError:
            values = f", from {float(t.data.min()):.4g} to {float(t.data.max()):.4g}" if t.size else ", which is empty"
            told.append(f"input {i} of shape {t.shape}{values}")
    return ", ".join(told)


def _fingerprint(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data) if array.size else 0


def _users_line() -> str:
    """The nearest line on the stack that is not of this library."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HOME):
        frame = frame.f_back
    file, number = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, number).strip()
    return f"{file}, line {number}" + (f": {source}" if source else "")
