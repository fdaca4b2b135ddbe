"""What the value of an option may be: checked while the command line is read, before any work.

A complaint names the option, because the parser puts the name before it:

    --top-p must be at most 1; got 7
"""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Choice", "Number", "between", "name_of_something", "not_one_of", "positive", "seed", "whole"]

LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Number:
    """A type for options: a number from ``least`` to ``most``; ``kind`` is int or float."""

    kind: Callable[[str], Any]
    least: float
    most: float

    def __call__(self, text: str) -> Any:
        """The number that a text stands for. Raises ArgumentTypeError."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if value < self.least:
            raise argparse.ArgumentTypeError(f"must be at least {self.least:,}; got {text:.40}")
        if value > self.most:
            raise argparse.ArgumentTypeError(f"must be at most {self.most:,}; got {text:.40}")
        if not math.isfinite(value):
            what = "whole number" if self.kind is int else "number"
            raise argparse.ArgumentTypeError(f"must be a {what}; got {text!r:.40}")
        return value


def whole(least: int, most: int) -> Number:
    """A whole number."""
    return Number(int, least, most)


def positive(most: int = 2**31 - 1) -> Number:
    """A whole number of at least 1."""
    return whole(1, most)


def between(least: float, most: float) -> Number:
    """A number."""
    return Number(float, least, most)


seed = whole(0, LARGEST_SEED)


@dataclass(frozen=True)
class Choice:
    """A type for options with a few values."""

    names: tuple[str, ...]

    def __call__(self, text: str) -> str:
        """The text, if it is one of them. Raises ArgumentTypeError that suggests the nearest."""
        if text not in self.names:
            raise argparse.ArgumentTypeError(not_one_of(self.names, text))
        return text


def name_of_something(text: str) -> str:
    """A path, which cannot be empty."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or a folder; got ''")
    return text


def not_one_of(names: Iterable[str], text: str) -> str:
    """The complaint about a value that is none of ``names``, with the nearest of them."""
    near = difflib.get_close_matches(text.lower(), names, n=1, cutoff=0.5)
    return f"must be one of {', '.join(names)}; got {text!r:.40}" + (f"; did you mean {near[0]}?" if near else "")
