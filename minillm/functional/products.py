"""Products that have a name."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor


def matmul(a: Any, b: Any) -> Tensor:
    """The product ``a @ b``: (..., M, K) times (..., K, N) gives (..., M, N)."""
    return (a if isinstance(a, Tensor) else Tensor(a)) @ b
