"""Whether the machine is busy, and that waiting threads then sleep."""

import contextlib
import os
import threading

import numpy as np
import pytest

from minillm import kernels
from minillm.kernels import busy
from tests.test_process import run

MS = 1_000_000


def test_what_linux_counts_is_read_for_each_thread(tmp_path):
    odd = {"10": "", "11": "1", "12": "not counted"}  # as a container may have it
    for thread, text in {"7": "500 20 3\n", "8": "9000000000 1 1\n", "9": None, **odd}.items():
        (tmp_path / thread).mkdir()
        if text is not None:
            (tmp_path / thread / "schedstat").write_text(text)
    assert busy.read_times(tmp_path) == {"7": (500, 20), "8": (9_000_000_000, 1)}  # thread 9 has just ended
    assert busy.read_times(tmp_path / "none") == {}


@pytest.mark.parametrize(
    "before, after, expected",
    [
        ({"1": (0, 0), "2": (5, 9)}, {"1": (100 * MS, 0), "2": (100 * MS, MS)}, False),  # alone
        ({"1": (0, 0), "2": (0, 0)}, {"1": (90 * MS, 29 * MS), "2": (90 * MS, 29 * MS)}, False),  # just below a quarter
        ({"1": (0, 0), "2": (0, 0)}, {"1": (90 * MS, 31 * MS), "2": (90 * MS, 31 * MS)}, True),  # just above
        ({"1": (0, 0), "2": (0, 0)}, {"1": (150 * MS, 0), "2": (50 * MS, 100 * MS)}, True),  # one of two had no core
        ({"1": (700 * MS, 800 * MS)}, {"1": (900 * MS, 800 * MS)}, False),  # what was counted before does not count
        ({"1": (0, 0)}, {"1": (9 * MS, 10 * MS)}, False),  # hardly wanted a core: nothing can be said
        ({"1": (0, 0), "3": (0, 900 * MS)}, {"1": (99 * MS, 0), "4": (0, 900 * MS)}, False),  # ended, and begun
        ({}, {}, False),
    ],
)
def test_busy_is_a_quarter_of_the_time_without_a_core(before, after, expected):
    assert busy.is_busy(before, after) is expected


def test_threads_sleep_after_a_look_that_found_the_machine_busy():
    quiet, crowded = (100 * MS, 0), (320 * MS, 400 * MS)  # of 200 ms: 1.6 cores' worth
    # read at first, after two looks, after a sleep (whose time is not judged), after two looks, after a sleep, ...
    readings = iter([(0, 0), quiet, crowded, crowded, quiet, crowded, quiet, quiet])
    total, told = np.zeros(2, int), []

    def read():
        total[:] += next(readings)
        return {"1": tuple(total)}

    @contextlib.contextmanager
    def asleep():
        told.append("asleep")
        yield
        told.append("awake")

    @contextlib.contextmanager
    def gathered(cores):
        told.append(f"on {cores}")
        yield
        told.append("spread")

    with pytest.raises(StopIteration):
        busy.watch(read, told.append, asleep, gathered)
    rest = ["asleep", *["on 2", busy.ROUND, "spread"] * busy.ROUNDS, "awake"]
    assert told == [busy.LOOK] * 2 + rest + [busy.LOOK] * 2 + rest + [busy.LOOK] * 2


@pytest.mark.parametrize("ran, cores", [(90 * MS, 1), (290 * MS, 1), (310 * MS, 2), (1590 * MS, 8)])
def test_they_are_gathered_on_as_many_cores_as_they_had_the_time_of(ran, cores):
    readings, told = iter([{"1": (0, 0)}, {"1": (ran, ran)}]), []

    def gathered(cores):
        told.append(cores)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        busy.watch(lambda: next(readings), lambda seconds: None, contextlib.nullcontext, gathered)
    assert told == [cores]


def test_where_linux_does_not_count_nothing_is_watched(monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    before = [thread.name for thread in threading.enumerate()].count("minillm-busy")  # the tests may be watched, too
    assert busy.start.__wrapped__() is False
    assert [thread.name for thread in threading.enumerate()].count("minillm-busy") == before


# ---- with real threads -----------------------------------------------------------------------------------------------

COMPUTE = """
import contextlib, os, threading
import numpy as np
from minillm import kernels
from minillm.kernels import busy

sum_rows, x = kernels.load("rows", "sum_rows"), np.ones((4, 1 << 14), np.float32)

def sleeps():
    count = 0
    for thread in set(os.listdir("/proc/self/task")) - {str(os.getpid())}:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for line in open(f"/proc/self/task/{thread}/status"):
                if line.startswith("voluntary_ctxt_switches"):
                    count += int(line.split()[1])
    return count

def new_sleeps():
    before = sleeps()
    for _ in range(100):
        sum_rows(x)
        sum(range(20_000))
    return sleeps() - before

sum_rows(x)
told = [new_sleeps()]
with busy.waiting_threads_sleep():
    told.append(new_sleeps())
for _ in range(600):  # its threads end a little later
    if new_sleeps() < 20:
        break
print(*told, new_sleeps(), threading.active_count())
"""


@pytest.mark.skipif(
    kernels.KERNELS == "numpy" or kernels.get_num_threads() < 2 or not os.path.exists("/proc/self/schedstat"),
    reason="needs Linux, Numba and two cores",
)
def test_waiting_threads_sleep_at_once_inside_and_else_spin():
    """How often the second thread went to sleep while it waited for 100 loops: before, inside, after."""
    forever = {"GOMP_SPINCOUNT": str(10**11), "NUMBA_THREADING_LAYER": "omp", "MINILLM_PROCESS": "plain"}
    before, inside, after, threads = map(int, run(COMPUTE, **forever).split())
    assert before < 20 and inside >= 80 and after < 20 and threads == 1


GATHERED = """
import os, threading
import numpy as np
from minillm import kernels
from minillm.kernels import busy

sum_rows, x = kernels.load("rows", "sum_rows"), np.ones((4, 1 << 14), np.float32)
sum_rows(x)

def cores():
    return {thread: os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}

everywhere, before = os.sched_getaffinity(0), cores()
python = {str(thread.native_id) for thread in threading.enumerate()}
for _ in range(200):  # so that this thread has worked most
    sum(range(20_000))
for count in (1, len(everywhere)):
    with busy.openmp_threads_gathered(count):
        inside, home = cores(), busy._core_of(str(os.getpid()))
    assert all(inside[thread] == everywhere for thread in python), "a Python thread was moved"
    others = [inside[thread] for thread in inside.keys() - python]
    assert others and all(len(where) == count for where in others), others
    assert len(set(map(frozenset, others))) == 1
    assert cores() == before
print("gathered and spread again")
"""


@pytest.mark.skipif(
    kernels.KERNELS == "numpy" or kernels.get_num_threads() < 2 or not os.path.exists("/proc/self/schedstat"),
    reason="needs Linux, Numba and two cores",
)
def test_openmp_threads_are_gathered_and_python_threads_are_not():
    assert "gathered and spread again" in run(GATHERED, NUMBA_THREADING_LAYER="omp", MINILLM_PROCESS="plain")


def test_nothing_is_moved_where_linux_tells_otherwise(monkeypatch):
    monkeypatch.setattr(busy, "_core_of", lambda thread: int("unknown"))
    monkeypatch.setattr(os, "sched_setaffinity", lambda *arguments: pytest.fail("moved"))
    with busy.openmp_threads_gathered(1):
        pass
