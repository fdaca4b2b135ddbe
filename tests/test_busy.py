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
    quiet, crowded = (100 * MS, 0), (100 * MS, 100 * MS)
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

    with pytest.raises(StopIteration):
        busy.watch(read, told.append, asleep)
    rest = ["asleep", busy.ASLEEP, "awake"]
    assert told == [busy.LOOK] * 2 + rest + [busy.LOOK] * 2 + rest + [busy.LOOK] * 2


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
