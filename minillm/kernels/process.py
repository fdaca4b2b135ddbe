"""What acts on the whole process, or must know what else happens in it: threads, forks, memory.

Four settings of the process are changed when Numba is imported, unless ``MINILLM_PROCESS=plain``
(which also keeps ``busy.py`` from watching how busy the machine is):

* ``GOMP_SPINCOUNT=10000`` in the environment, unless it is set: how long OpenMP's waiting threads
  spin before they sleep. 10,000 turns outlast the 100 us of Python between two kernels; the default
  of 300,000 would also keep a core from other programs, and from the thread that everybody waits
  for.
* Numba's threading layers are tried in the order OpenMP, TBB, work queue, unless
  ``NUMBA_THREADING_LAYER`` or ``NUMBA_THREADING_LAYER_PRIORITY`` is set: OpenMP's threads wake in 3
  us, those of the work queue in 80 us.
* On processors with AVX-512 LLVM makes its vectors of 256 bits, as on those with AVX2, unless
  ``NUMBA_CPU_NAME`` or ``NUMBA_CPU_FEATURES`` is set. (On Intel's it does so anyway.) A sum of many
  numbers is then split among the same vectors everywhere, and has the same bits.
* glibc is asked to keep freed blocks instead of returning them to the system. A training step
  allocates the same arrays as the step before. By default a large one is mapped and unmapped each
  time, and every page is zeroed by the system at its first touch: several milliseconds a step.

Nothing here imports Numba where the NumPy definitions compute.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from . import busy, settings

LOADING = threading.RLock()  # held while a kernel is imported
forked = False  # whether this is a child of a process whose kernels have threads, of which a child has none
when_forked: list[Callable[[], None]] = []  # called in such a child

_this_thread = threading.local()  # .threads: what set_num_threads was told in this thread


@functools.cache
def numba_module() -> Any:
    """Numba, with the settings above, and with the news of forks."""
    with LOADING:
        import numba

        if settings.may_tune_process():
            os.environ.setdefault("GOMP_SPINCOUNT", "10000")
            if not {"NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY"} & os.environ.keys():
                vars(numba.config)["THREADING_LAYER_PRIORITY"] = ["omp", "tbb", "workqueue"]
            _vectors_of_256_bits(vars(numba.config))
            if sys.platform == "linux":
                _keep_freed_memory()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
        return numba


def _vectors_of_256_bits(config: dict[str, Any]) -> None:
    from llvmlite import binding as llvm
    from numba.core.codegen import get_host_cpu_features

    if llvm.get_host_cpu_features().get("avx512f") and config["CPU_NAME"] is config["CPU_FEATURES"] is None:
        config["CPU_FEATURES"] = f"{get_host_cpu_features()},+prefer-256-bit"


# ---- threads -------------------------------------------------------------------------------------


def set_num_threads(n: int) -> None:
    """Let the kernels that this Python thread calls use ``n`` threads, 1 <= n <= the number that
    Numba started with.

    That is all cores, unless ``NUMBA_NUM_THREADS`` says otherwise. Other Python threads keep their
    own number. The NumPy definitions always use one.
    """
    most = _most_threads()
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= most:
        raise ValueError(f"set_num_threads: expected an integer from 1 to {most}; got {n!r}")
    _this_thread.threads = n
    if _has_threads():
        numba_module().set_num_threads(n)


def get_num_threads() -> int:
    """How many threads the kernels that this Python thread calls use; the NumPy definitions use
    one.
    """
    settings.threads()  # refuses a wrong value, also where one thread is all there is
    if not _has_threads():
        return 1
    _begin_thread()
    return numba_module().get_num_threads()


def threading_layer() -> str:
    """Which of Numba's threading layers runs the kernels, or in which order they will be tried."""
    if not _has_threads():
        return "none: the NumPy definitions use one thread"
    numba = numba_module()
    try:
        return numba.threading_layer()
    except ValueError:  # none has been started yet
        config = vars(numba.config)
        chosen = config["THREADING_LAYER"]
        return " or ".join(config["THREADING_LAYER_PRIORITY"]) if chosen == "default" else chosen


def _has_threads() -> bool:
    return settings.KERNELS == "numba" and not forked


def _most_threads() -> int:
    if settings.KERNELS == "numba":
        return vars(numba_module().config)["NUMBA_NUM_THREADS"]
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin_thread() -> None:
    """Give a Python thread that was told no number the one of ``MINILLM_THREADS``."""
    threads = settings.threads()
    if threads is not None and not hasattr(_this_thread, "threads"):
        set_num_threads(min(threads, _most_threads()))


# ---- calls from several Python threads -----------------------------------------------------------

_WORK_QUEUE = threading.RLock()  # two calls at a time would abort the process


def guarded(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel with parallel loops, as any Python thread may call it: on the work queue one waits
    for the other.
    """
    numba = numba_module()
    numba.get_num_threads()  # starts the threads, which decides on the layer
    layer = numba.threading_layer()
    one_at_a_time = layer == "workqueue"
    if layer == "omp" and settings.may_tune_process():
        with LOADING:
            busy.start()
    if not one_at_a_time and settings.threads() is None:
        return kernel

    @functools.wraps(kernel)
    def call(*args: Any, **kwargs: Any) -> Any:
        _begin_thread()
        with _WORK_QUEUE if one_at_a_time else nullcontext():
            return kernel(*args, **kwargs)

    return call


# ---- forks ---------------------------------------------------------------------------------------
# A child has the memory of its parent and one thread. OpenMP's pool of threads is gone, and Numba
# ends a child that enters a parallel loop ("fork() called from a process already using GNU
# OpenMP"); so a child computes by the NumPy definitions, and by those kernels that have no parallel
# loop. And it must not find a lock that another thread of its parent held at the moment of the
# fork: nobody would give it back.


def _locks() -> list[Any]:
    from numba.core.compiler_lock import global_compiler_lock

    return [LOADING, global_compiler_lock, _WORK_QUEUE]


def _before_fork() -> None:
    for lock in _locks():
        lock.acquire()


def _after_fork() -> None:
    for lock in reversed(_locks()):
        lock.release()


def _after_fork_in_child() -> None:
    global forked
    _after_fork()
    try:
        numba_module().threading_layer()
    except ValueError:  # the threads had not been started: the child will have its own
        return
    forked = True
    for tell in when_forked:
        tell()


# ---- memory --------------------------------------------------------------------------------------


def _keep_freed_memory() -> None:
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest that glibc accepts
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    except (OSError, AttributeError):  # another C library: nothing to set
        pass


def release_freed_memory() -> None:
    """Give kept blocks back to the system after all: for work on a stream, where no step is like
    the one before.

    Its arrays are of all sizes, and the small ones that live on keep the holes between them from
    joining: 1 GB of text would leave 1 GB of holes behind.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # another C library, which was not asked to keep them
        pass
