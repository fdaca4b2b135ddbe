"""What a Tensor has in common with the array inside it: its shape, its number, its printed form."""

from __future__ import annotations

import operator
import sys
from html import escape
from typing import Any

import numpy as np

from .engine import Node
from .html import array_table
from .shapes import native
from .torch_words import TENSOR, Count, of_numpy, sentence


class Array(Node):
    """A node of the graph that can be asked what one asks an array."""

    __slots__ = ()

    @property
    def data(self) -> np.ndarray:
        """The values. ``t.data -= step`` is noticed: a ``backward()`` that needs the old values
        says so.
        """
        return self._data

    @data.setter
    def data(self, array: np.ndarray) -> None:
        if array is self._data:  # the end of an augmented assignment, t.data += ...
            self.mark_changed()
        elif not isinstance(array, (np.ndarray, np.generic)):
            raise TypeError(f"Tensor.data must be a NumPy array; got {type(array).__name__}")
        self._data = native(np.asarray(array))  # of 0-d arrays NumPy makes scalars

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
        return Count(self._data.size)

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

    def numpy(self) -> np.ndarray:
        """The array, of a tensor outside the graph (else ``t.detach().numpy()``, or ``t.data``)."""
        return self.__array__()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise RuntimeError(
                "this tensor needs a gradient, and a NumPy array would lose it: "
                "use t.detach().numpy() or t.data for the values alone"
            )
        return np.array(self._data, dtype=dtype, copy=copy)

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec else repr(self), spec)

    def __repr__(self) -> str:
        values = np.array2string(self._data, precision=4, threshold=20, edgeitems=3, separator=", ", prefix="Tensor(")
        return f"Tensor({values}, {self._described()})"

    def _repr_html_(self) -> str:
        told = f"Tensor, {self._described()}"
        return array_table(self._data, told) if self.ndim in (1, 2) else f"<pre>{escape(repr(self))}</pre>"

    def _described(self) -> str:
        origin = f", op={self.op}" if self.op else ", requires_grad=True" if self.requires_grad else ""
        return f"shape={self.shape}, {self.dtype}{origin}"

    def __getattr__(self, name: str) -> Any:
        if hasattr(sys.modules.get("minillm.functional"), name):  # on a higher floor: looked at, not imported
            otherwise = f"operations with a name are functions, F.relu(x), not x.relu(): write F.{name}(x)"
        elif name.endswith("_") and not name.startswith("_"):
            otherwise = "values are not changed in place: write into x.data, outside the graph"
        else:
            otherwise = of_numpy(name)
        raise AttributeError(sentence("Tensor", name, TENSOR, otherwise), name=name, obj=self)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "a Tensor's values are not changed in place, the graph would not know: "
            "use F.where or F.concatenate, or write into t.data outside the graph"
        )
