"""Small tasks in T5's form: a text says what is wanted, a text is the answer (Raffel et al. 2020,
section 2.4).

    reverse: stone                                      ->  enots
    sort: 41 7 23                                       ->  7 23 41
    date: 3 March 1998                                  ->  1998-03-03
    translate French to English: le petit chat noir     ->  the small black cat

One model learns all of them: the words before the colon are how it knows which one it is asked.
Each task draws as many questions as one likes. A tenth of all the questions there are is kept apart
by a checksum of the question: whatever is drawn for training, a question held out is never among
it.
"""

from __future__ import annotations

import calendar
import datetime
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from . import french


class Pair(NamedTuple):
    """A question, with the task's prefix, and its answer."""

    question: str
    answer: str


class Task(NamedTuple):
    """A kind of question. ``draw(rng)`` gives one, without the prefix, and its answer."""

    name: str
    prefix: str
    draw: Callable[[np.random.Generator], tuple[str, str]]

    def pairs(self, n: int, held_out: bool, seed: int = 0) -> list[Pair]:
        """Draw ``n`` different questions, all to train on, or all held out.

        The i-th draw is a pure function of (seed, i); a question that was drawn before, or is of
        the other side, is skipped.

        Raises ValueError when the task seems to have no more questions.
        """
        found: dict[str, Pair] = {}
        draws = 0
        while len(found) < n:
            if draws > 100 * (n + 10):
                raise ValueError(f"Task.pairs: {self.name} has not {n} different questions; got {len(found)}")
            question, answer = self.draw(np.random.default_rng((seed, draws)))
            draws += 1
            if is_held_out(question) == held_out:
                found.setdefault(question, Pair(f"{self.prefix}: {question}", answer))
        return list(found.values())


def is_held_out(question: str) -> bool:
    """Whether a question is of the tenth that no training sees: a function of its text alone.

    >>> sum(is_held_out(str(number)) for number in range(10_000))
    996
    """
    return zlib.crc32(question.encode("utf-8")) % 10 == 0


def reverse(rng: np.random.Generator) -> tuple[str, str]:
    """A word of 3 to 8 letters, backwards."""
    word = "".join(chr(ord("a") + letter) for letter in rng.integers(26, size=rng.integers(3, 9)))
    return word, word[::-1]


def sort(rng: np.random.Generator) -> tuple[str, str]:
    """Three to five different numbers below 100, the smallest first."""
    numbers = rng.choice(100, size=rng.integers(3, 6), replace=False).tolist()
    return _joined(numbers), _joined(sorted(numbers))


def date(rng: np.random.Generator) -> tuple[str, str]:
    """A day from 1900 to 2099, as one writes it in Britain or in America, in the form of ISO 8601.
    """
    first, last = datetime.date(1900, 1, 1).toordinal(), datetime.date(2099, 12, 31).toordinal()
    day = datetime.date.fromordinal(int(rng.integers(first, last + 1)))
    month = calendar.month_name[day.month]
    british = rng.integers(2) == 0
    return f"{day.day} {month} {day.year}" if british else f"{month} {day.day}, {day.year}", day.isoformat()


def _joined(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


TASKS = (
    Task("reverse", "reverse", reverse),
    Task("sort", "sort", sort),
    Task("date", "date", date),
    Task("translate", "translate French to English", french.sentence),
)
