"""Each kernel beside its definition: what tests compare."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.ma  # which Numba imports at the first call: not while np.empty is another

import minillm.functional
import minillm.optim  # noqa: F401 - the definitions are known once they were imported
from minillm import kernels


def pair(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(the kernel, its definition), whichever of the two the library uses."""
    file, definition = kernels.DEFINITIONS[name]
    return kernels.load(file, name), definition


def all_pairs() -> dict[str, tuple[Callable[..., Any], Callable[..., Any]]]:
    """name -> (kernel, definition) of all there are."""
    return {name: pair(name) for name in kernels.DEFINITIONS}


class Room:
    """Stands in for ``np.empty``: arrays lie one after the other in one piece of memory, ``gap`` bytes apart."""

    def __init__(self, gap: int) -> None:
        self.pool, self.gap = np.zeros(1 << 21, np.uint8), gap
        self.begin = -self.pool.ctypes.data % 64

    def __call__(self, shape: Any, dtype: Any = float) -> np.ndarray:
        array = np.ndarray(shape, dtype, self.pool, self.begin)
        self.begin += -(-(array.nbytes + self.gap) // 16) * 16
        return array

    def put(self, value: Any) -> Any:
        """A copy that lies here."""
        if isinstance(value, list):
            return [self.put(one) for one in value]
        if not isinstance(value, np.ndarray):
            return value
        array = self(value.shape, value.dtype)
        array[...] = value
        return array


def assert_bits_do_not_depend_on_places(kernel: Callable[..., Any], arguments: tuple) -> None:
    """A resumed run lays its arrays elsewhere, and must come to the same bits."""
    kernel(*copy.deepcopy(arguments))  # compiles
    made, empty = [], np.empty
    for gap in (4096, 0, 16, 48, 80):
        room = Room(gap)
        given = room.put([*arguments])
        try:
            np.empty = room  # type: ignore[assignment]
            result = kernel(*given)
        finally:
            np.empty = empty  # type: ignore[assignment]
        arrays = [*(result if isinstance(result, tuple) else [result]), *given]
        listed = [a for some in arrays for a in (some if isinstance(some, list) else [some])]
        made.append([a.tobytes() for a in listed if isinstance(a, np.ndarray)])
    assert all(one == made[0] for one in made[1:])
