"""Arrays in, arrays out: the hot loops of the library, each a NumPy twin and a Numba kernel.

The rooms, one family of functions each: ``matmul``, ``activations``, ``softmax``, ``norm``, ``attention``,
``recurrent``, ``embedding``, ``optim``, ``bpe``. A room is loaded, and Numba imported, when one of its names is first
used: ``import minillm`` stays quick and compiles nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

_ROOMS = {
    "attention": (
        "attention_backward",
        "attention_forward",
        "attention_packed_backward",
        "attention_packed_forward",
    ),
    "_jit": ("KERNELS", "PAIRS", "get_num_threads", "on_compile", "set_num_threads"),
    "matmul": (
        "joint_linear_backward", "joint_linear_forward", "linear_forward", "matmul_path", "product", "sum_rows",
    ),  # fmt: skip
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minillm.kernels' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"minillm.kernels.{_HOME[name]}"), name)
    globals()[name] = value  # the next look-up finds it here
    return value
