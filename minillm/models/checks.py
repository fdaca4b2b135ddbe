"""What configurations check of themselves; each raises ValueError that names the class, the field
and the value.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def check_positive(config: Any, *names: str) -> None:
    """These sizes must be at least 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{_kind(config)}: {name} must be at least 1; got {getattr(config, name)}")


def check_divisible(config: Any, whole: str, part: str) -> None:
    """One size must be a multiple of another: heads of equal size, groups of equally many heads."""
    a, b = getattr(config, whole), getattr(config, part)
    if b < 1 or a % b:
        raise ValueError(f"{_kind(config)}: {whole} must be divisible by {part}; got {a} and {b}")


def check_one_of(config: Any, name: str, known: Collection[str]) -> None:
    """A word must be one that is known."""
    if getattr(config, name) not in known:
        raise ValueError(
            f"{_kind(config)}: {name} must be one of {', '.join(known)}; got {getattr(config, name)!r:.80}"
        )


def _kind(config: Any) -> str:
    return type(config).__name__
