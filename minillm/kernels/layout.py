"""Arrays as kernels want them: contiguous, writable, of one dtype, so that each kernel compiles for
few signatures.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np


def contiguous(x: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """``x`` as a writable C-contiguous float32 or float64 array: one compiled signature per dtype,
    and no other.

    With ``dtype``, as that one: the arrays of one call share a dtype.
    """
    if dtype is not None and x.dtype != dtype:
        x = x.astype(dtype)
    elif x.dtype != np.float32 and x.dtype != np.float64:
        x = x.astype(np.float32)
    flags = x.flags
    return x if flags.c_contiguous and flags.writeable else x.copy()


def address(x: np.ndarray) -> int:
    """Where in memory the numbers of ``x`` begin; good for as long as somebody holds the array."""
    try:
        buffer: Any = x  # which a type checker does not know that arrays are
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # 1 us; x.ctypes.data takes 3, and tables are long
    except (TypeError, ValueError, BufferError):  # read-only, not contiguous, or empty
        return x.ctypes.data


def integers(x: np.ndarray) -> np.ndarray:
    """Ids as a writable C-contiguous int64 array, for the same reason."""
    x = np.ascontiguousarray(x, np.int64)
    return x if x.flags.writeable else x.copy()


def as_rows(x: np.ndarray) -> np.ndarray:
    """(..., V) -> (N, V), a view: kernels see two axes whatever the batch looks like."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) if x.ndim != 2 else x
