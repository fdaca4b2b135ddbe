"""Why nothing seems to happen: kernels are compiled when they are first used on a machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import ClassVar

__all__ = ["COMPILING", "CompileNotice"]

COMPILING = 10  # seconds that the first training on a machine waits, beside a second process that compiles too


class CompileNotice:
    """Tells a person that kernels compile, how many are done, and that it is for the first time
    only.

    say: shows a line that stays. status: shows a passing line, in the same place each time; without
    it ``say`` is used, every few seconds. about: how many seconds all of it may take. A context
    manager: it listens inside, and of several only the innermost speaks. ``finish()`` closes the
    account when the wait is over.
    """

    _open: ClassVar[list[CompileNotice]] = []

    def __init__(
        self, say: Callable[[str], None], status: Callable[[str], None] | None = None, about: int = COMPILING
    ) -> None:
        self._say, self._status, self._about = say, status, about
        self._unsubscribe: Callable[[], None] = lambda: None
        self._count = self._depth = 0
        self._announced, self._name = False, ""
        self._seconds = self._begun = self._said = 0.0

    def __enter__(self) -> CompileNotice:
        from .. import kernels

        self._unsubscribe = kernels.on_compile(self._on_compile)
        self._announced = any(notice._announced for notice in self._open)
        self._open.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._unsubscribe()
        if self in self._open:
            self._open.remove(self)
        self.finish()

    def finish(self) -> None:
        """Say what was compiled since the last time, if anything."""
        if self._count:
            self._say(f"compiled {self._count} kernels in {self._seconds:.0f} s; they are kept for the next time")
            self._count, self._seconds = 0, 0.0

    def _on_compile(self, name: str, seconds: float | None) -> None:
        if self._open[-1:] != [self]:
            return
        now = time.monotonic()
        if seconds is None:
            self._depth += 1
            if self._depth == 1:  # a kernel that calls another compiles it on the way
                self._begun, self._name = now, name.strip("_")
            with contextlib.suppress(Exception):  # what only shows something must not end a kernel's call
                self._show(self._name, now)
        else:
            self._depth -= 1
            self._count += 1
            if self._depth == 0:
                self._seconds += now - self._begun

    def _show(self, name: str, now: float) -> None:
        if not self._announced:
            self._announced = True
            self._say(f"compiling kernels for this machine, once (the first time only, about {self._about} s)")
            self._said = now
        progress = f"compiling {name} ({self._count} done)"
        if self._status is not None:
            self._status(progress)
        elif now - self._said > 3.0:
            self._say(progress)
            self._said = now
