"""Measuring contestants in turn, each in a process of its own.

Two libraries in one process disturb each other: each has a pool of threads, and threads spin for a while after their
work, on the cores that the other wants. So every contestant lives in a process that sleeps until it is asked for a
round, and a short pause between two rounds lets its threads fall asleep.

    case      contestants   A        B        yardstick
    start     build, warm up, all at once; nothing is measured
    rounds    A  pause  B  pause  yardstick  pause  A  pause  B  pause  yardstick ...

The machine's speed changes while one waits (its clock, its neighbours). What is compared was measured within the same
second, and only the ratio means anything. The *yardstick* is NumPy's matrix product, the most that the cores give.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

Step = Callable[[], float | None]  # one call of the work; seconds if it has measured them itself, else they are taken


@dataclass(frozen=True)
class Contestant:
    """A library at a piece of work.

    build: a top-level function, sent to the contestant's process by name: ``build(*case.arguments)`` returns the step.
    """

    name: str
    build: Callable[..., Step]
    packages: tuple[str, ...] = ()  # what has to be installed; the versions are printed
    threads: int | None = None  # None: one for each core


@dataclass(frozen=True)
class Case:
    """A piece of work and those who do it: one row of a table."""

    title: str
    contestants: tuple[Contestant, ...]  # ours first, then its peers
    arguments: tuple[Any, ...] = ()
    tiny: tuple[Any, ...] | None = None  # arguments of a small version that loads all code before memory is measured
    flops: float = 0.0  # floating-point operations of a step
    tokens: int = 0  # of a step
    bytes: int = 0  # of text that a step works through
    memory: Literal["", "step", "all"] = ""  # the peak: of a step beyond its inputs, or with parameters and inputs
    axis: tuple[str, float] | None = None  # its place in a plot, such as ("parameters", 0.8e6)
    slow: bool = False  # seconds or minutes a step: no warm-up, few rounds


@dataclass
class Run:
    """What one contestant did."""

    name: str
    seconds: list[float] = field(default_factory=list)  # of a step, the mean of each round
    threads: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)  # MB: "step" and "all", as in Case
    problem: str = ""  # why there is nothing to see: "absent", or an error


@dataclass
class Outcome:
    """What came of a case."""

    case: Case
    runs: list[Run]  # as the contestants
    yardstick: Run
    load: float  # the largest load average (of one minute) seen


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int = 21
    round_seconds: float = 0.2  # at least one step, at most as many as fit
    slow_rounds: int = 5
    pause: float = 0.02  # longer than threads spin


QUICK = Effort(rounds=3, round_seconds=0.02, slow_rounds=1)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measure(case: Case, effort: Effort) -> Outcome:
    """Let all contestants of a case take turns."""
    everyone = (*case.contestants, Contestant("sgemm", build_yardstick, ("numpy",)))
    workers = [Worker(contestant, case) for contestant in everyone]
    try:
        for worker in workers:  # they build at the same time
            worker.await_ready()
        for worker in workers:  # and warm up one after the other
            worker.warm_up(case, effort)
        load = os.getloadavg()[0]
        for _ in range(effort.slow_rounds if case.slow else effort.rounds):
            for worker in workers:
                time.sleep(effort.pause)
                worker.round()
            load = max(load, os.getloadavg()[0])
    finally:
        for worker in workers:
            worker.stop()
    runs = [worker.run for worker in workers]
    return Outcome(case, runs[:-1], runs[-1], load)


# ---- the yardstick ---------------------------------------------------------------------------------------------------

YARDSTICK = 1024
YARDSTICK_FLOPS = 2.0 * YARDSTICK**3


def build_yardstick(*_: Any) -> Step:
    """NumPy's matrix product in float32, 1024 x 1024 x 1024."""
    import numpy as np

    a, b = np.random.default_rng(0).standard_normal((2, YARDSTICK, YARDSTICK), np.float32)
    c = np.empty_like(a)

    def step() -> None:
        np.matmul(a, b, out=c)

    return step


# ---- a contestant's process, seen from outside -----------------------------------------------------------------------


class Worker:
    """A process that sleeps until it is asked for a round. Whatever goes wrong in it becomes ``run.problem``."""

    def __init__(self, contestant: Contestant, case: Case) -> None:
        self.run, self.steps, self.process = Run(contestant.name), 1, None
        missing = [name for name in contestant.packages if importlib.util.find_spec(name) is None]
        if missing:
            self.run.problem = f"absent ({', '.join(missing)} not installed)"
            return
        self.run.threads = contestant.threads or cores()
        self.run.versions = {name: _version(name) for name in contestant.packages}
        context = multiprocessing.get_context("spawn")  # a fresh interpreter: nothing of the others is loaded in it
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, contestant.build, case.arguments, case.tiny)
        with _threads(self.run.threads):
            self.process = context.Process(target=_serve, args=arguments, daemon=False)
            self.process.start()
        theirs.close()

    def await_ready(self) -> None:
        """Wait until the step is built."""
        self._receive()

    def warm_up(self, case: Case, effort: Effort) -> None:
        """Make the first, slow steps, and find out how many fit in a round."""
        if case.slow:
            return
        self._ask(1)
        seconds = self._ask(1)
        if seconds:
            self.steps = max(1, min(10_000, round(effort.round_seconds / seconds)))

    def round(self) -> None:
        """Measure once."""
        seconds = self._ask(self.steps)
        if seconds is not None:
            self.run.seconds.append(seconds)

    def stop(self) -> None:
        """End the process; it leaves word of its memory."""
        if self.process is None:
            return
        memory = self._ask(None)
        self.run.memory = memory or {}
        self.pipe.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()

    def _ask(self, steps: int | None) -> Any:
        if self.run.problem:
            return None
        try:
            self.pipe.send(steps)
        except OSError as error:
            self.run.problem = f"failed ({error})"
            return None
        return self._receive()

    def _receive(self) -> Any:
        if self.run.problem:
            return None
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            kind, value = "error", "its process died"
        if kind == "error":
            self.run.problem = f"failed ({value})"
            return None
        return value


@contextmanager
def _threads(n: int):
    """Processes started inside have n threads, whichever library makes them, that sleep when there is no work."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MINILLM_THREADS", "RAYON_NUM_THREADS")
    settings = dict.fromkeys(names, str(n))
    # NumPy's threads spin for 2^28 ticks after a product, 100 ms in which whoever comes next has one core less; 2^20 is
    # less than a pause
    settings["OPENBLAS_THREAD_TIMEOUT"] = "20"
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return str(getattr(importlib.import_module(name), "__version__", "of this folder"))


# ---- and from inside -------------------------------------------------------------------------------------------------


def _serve(pipe: Any, build: Callable[..., Step], arguments: tuple, tiny: tuple | None) -> None:
    """Build the step; then for each number that comes, make so many steps and send the seconds that one took."""
    try:
        if tiny is not None:
            build(*tiny)()
        loaded = _resident()
        step = build(*arguments)
        built = _resident()
        _forget_peak()
        pipe.send(("ready", None))
        while (steps := pipe.recv()) is not None:
            pipe.send(("seconds", _seconds_of_a_step(step, steps)))
        peak = _resident("VmHWM")
        pipe.send(("memory", {"step": peak - built, "all": peak - loaded} if peak else {}))
    except EOFError:  # the one who asks is gone
        pass
    except Exception as error:
        print(traceback.format_exc(), file=sys.stderr)
        pipe.send(("error", f"{type(error).__name__}: {error}".splitlines()[0]))


def _seconds_of_a_step(step: Step, steps: int) -> float:
    if steps > 1:
        step()  # threads wake, caches fill
    begin, reported = time.perf_counter(), [step() for _ in range(steps)]
    seconds = time.perf_counter() - begin
    own = [s for s in reported if isinstance(s, float)]
    return (sum(own) if own else seconds) / steps


def _resident(what: str = "VmRSS") -> float:
    """The memory of this process in MB, now or (``VmHWM``) at its peak; 0 where there is no /proc."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{what}:"))


def _forget_peak() -> None:
    """Let the peak begin anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
