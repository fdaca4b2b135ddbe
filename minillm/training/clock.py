"""Where the time of a run goes, and how much of it is left."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator

from .. import kernels

__all__ = ["Clock", "minutes"]

RECENT = 200  # pieces of work: a machine has moods of half a minute


class Clock:
    """Adds up the seconds of each kind of work; compiling kernels counts as a kind of its own.

    >>> clock = Clock()
    >>> with clock.timing("learning"):
    ...     pass
    >>> clock.times["learning"], clock.seconds["learning"] < 1
    (1, True)
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)  # by the kind of work
        self.times: Counter[str] = Counter()  # how often it was done
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    @contextlib.contextmanager
    def timing(self, work: str) -> Iterator[None]:
        """What is done inside counts as ``work``, but for the compiling of kernels."""
        depth, since = 0, 0.0
        begun, compiled = time.perf_counter(), 0.0

        def on_compile(name: str, seconds: float | None) -> None:
            nonlocal depth, since, compiled
            depth += 1 if seconds is None else -1
            if depth == 1 and seconds is None:  # a kernel that calls another compiles it on the way
                since = time.perf_counter()
            elif depth == 0:
                compiled += time.perf_counter() - since

        forget = kernels.on_compile(on_compile)
        try:
            yield
        finally:
            forget()
            seconds = time.perf_counter() - begun - compiled
            self.times[work] += 1
            self.seconds[work] += seconds
            self.seconds["compiling"] += compiled
            self._recent[work].append(seconds)

    def pace(self, work: str) -> float | None:
        """Seconds of one piece of work: the median of the last ones, for the first of a process
        take longer, and any during which another program woke up. None before the first.
        """
        recent = self._recent[work]
        return statistics.median(recent) if recent else None

    def __str__(self) -> str:
        parts = [f"{work} {minutes(seconds)}" for work, seconds in self.seconds.items() if seconds >= 0.5]
        return f"{minutes(sum(self.seconds.values()))} in all: {', '.join(parts)}"


def minutes(seconds: float) -> str:
    """130 -> 2:10, 3725 -> 1:02:05."""
    whole, seconds = divmod(int(seconds + 0.5), 60)
    hours, whole = divmod(whole, 60)
    return f"{hours}:{whole:02}:{seconds:02}" if hours else f"{whole}:{seconds:02}"
