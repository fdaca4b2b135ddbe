"""On a machine that is busy with something else, threads that wait go to sleep at once, and share
cores with each other instead of with strangers.

OpenMP's threads spin while they wait for each other and for the next loop (GOMP_SPINCOUNT, see
process.py). On cores that nobody else wants that is quick: a thread that sleeps takes 30 us to
wake. On cores that others use, it burns turns that should go to the thread that is waited for.

GNU's OpenMP has a rule for this: in a process with more of its threads than there are cores, a
waiting thread spins a hundred times only ("GOMP_SPINCOUNT" in the manual of libgomp). So, while the
machine is busy, a Python thread is kept that owns as many OpenMP threads as there are cores, all
asleep. The kernels use as many threads as before, and compute the same bits.

Beside two other programs, two threads have a fair share of two cores: one. Spread over both, each
has half of a core, and waits for the other one while that is put aside. On the same core they have
the whole of it, and whoever works does so at full speed. So, while the machine is busy, the threads
of OpenMP stay on as many cores as they got the time of, and with the thread that calls them.

Whether the machine is busy, Linux knows: it counts for each thread how long it has run, and how
long it was ready to run and had no core.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

LOOK = 0.2  # seconds for which the threads are watched
ROUNDS, ROUND = 5, 1.0  # until the next look, where the machine was busy: so many times so many seconds
SHARE = 0.25  # of the time that they wanted a core; one program beside two threads on two cores takes a third
LEAST = 20_000_000  # nanoseconds of such time, below which nothing can be said

Times = dict[str, tuple[int, int]]  # thread -> nanoseconds for which it has run, and has waited for a core


def read_times(tasks: Path = Path("/proc/self/task")) -> Times:
    """What Linux has counted for each thread of this process."""
    times = {}
    with contextlib.suppress(OSError):  # no file can be opened just now
        for thread in os.listdir(tasks):
            with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile, or a container counts otherwise
                ran, waited, *_ = (tasks / thread / "schedstat").read_text().split()
                times[thread] = int(ran), int(waited)
    return times


def is_busy(before: Times, after: Times) -> bool:
    """Whether others had the cores for a good part of the time that our threads wanted one."""
    ran, waited = _grown(before, after)
    return ran + waited >= LEAST and waited > SHARE * (ran + waited)


def _grown(before: Times, after: Times) -> tuple[int, int]:
    """Nanoseconds for which our threads ran, and waited, between two readings."""
    threads = before.keys() & after.keys()
    ran, waited = (sum(after[thread][i] - before[thread][i] for thread in threads) for i in (0, 1))
    return ran, waited


def watch(
    read: Callable[[], Times] = read_times,
    pause: Callable[[float], None] = time.sleep,
    asleep: Callable[[], Any] | None = None,
    gathered: Callable[[int], Any] | None = None,
) -> None:
    """Look again and again. After a look that found the machine busy, waiting threads sleep, and
    all are gathered on as many cores as they had the time of.

    Each look is taken while they spin and are spread: threads that sleep wait a little for a core
    on any machine.
    """
    asleep, gathered = asleep or waiting_threads_sleep, gathered or openmp_threads_gathered
    before = read()
    while True:
        pause(LOOK)
        after = read()
        if is_busy(before, after):
            cores = max(1, round(_grown(before, after)[0] / 1e9 / LOOK))
            with asleep():
                for _ in range(ROUNDS):  # the calling thread moves about
                    with gathered(cores):
                        pause(ROUND)
            after = read()
        before = after


@contextlib.contextmanager
def waiting_threads_sleep() -> Iterator[None]:
    """Inside, this process has more OpenMP threads than there are cores."""
    begun, end = threading.Event(), threading.Event()

    def own_threads() -> None:
        _start_openmp_threads(len(os.sched_getaffinity(0)))
        begun.set()
        end.wait()  # its OpenMP threads end with it

    thread = threading.Thread(target=own_threads, name="minillm-sleepers", daemon=True)
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()


@contextlib.contextmanager
def openmp_threads_gathered(cores: int) -> Iterator[None]:
    """Inside, OpenMP's threads stay on so many cores, one of which is that of the Python thread
    that has worked most.

    Python's threads go where they like: what they start, processes too, inherits from them where
    it may run.
    """
    everywhere, moved = os.sched_getaffinity(0), []
    with contextlib.suppress(OSError, ValueError, IndexError):  # nothing is moved where Linux tells otherwise
        times, python = read_times(), {str(thread.native_id) for thread in threading.enumerate()}
        caller = max(times.keys() & python, key=lambda thread: times[thread], default="self")
        home = _core_of(caller)
        chosen = {home, *sorted(everywhere - {home})[: cores - 1]}
        for thread in map(int, times.keys() - python):
            if chosen < everywhere == os.sched_getaffinity(thread):
                os.sched_setaffinity(thread, chosen)
                moved.append(thread)
    try:
        yield
    finally:
        for thread in moved:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.sched_setaffinity(thread, everywhere)


def _core_of(thread: str) -> int:
    """On which core a thread of this process ran last: field 39 of its "stat", see proc(5)."""
    return int(Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[36])


def _start_openmp_threads(n: int) -> None:
    """Run a parallel region in which each thread asks for its number, and nothing else."""
    openmp = _openmp()
    run = openmp.GOMP_parallel
    run.argtypes, run.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    run(ctypes.cast(openmp.omp_get_thread_num, ctypes.c_void_p), None, n, 0)


def _openmp() -> ctypes.CDLL:
    """The OpenMP that Numba's threads are of."""
    layer: Any = importlib.import_module("numba.np.ufunc.omppool")
    return ctypes.CDLL(layer.__file__)  # finds the names of the libraries that it was linked with


@functools.cache
def start() -> bool:
    """Watch from now on, where Linux counts and OpenMP is GNU's; returns whether that is so."""
    if not os.path.exists("/proc/self/schedstat") or not hasattr(_openmp(), "GOMP_parallel"):
        return False
    threading.Thread(target=watch, name="minillm-busy", daemon=True).start()
    return True
