"""Of two processes that want the same kernel, one compiles it; the other waits, and reads it from
the cache.

They meet where a training starts on a new machine (``training/warm_up.py``), and where somebody
starts two. The operating system holds a lock on the kernel's table in the cache as long as the
process lives that has it, and lets go of it however that ends.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from numba.core.compiler_lock import global_compiler_lock

PATIENCE = 5.0  # seconds: a process that works only where the machine is idle may never be done


@contextlib.contextmanager
def in_turn(table: str | None) -> Iterator[None]:
    """Inside, no other process compiles the kernel with this table in the cache: a file, or None
    where nothing is kept. (Unless it was waited for too long, or files cannot be locked here.)
    """
    if table is None:
        yield
        return
    with global_compiler_lock:  # first: a thread that held only the file would wait for one that wants it
        descriptor = _locked(table)
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)  # which unlocks it


def _locked(path: str) -> int | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:  # it will be compiled, and not kept
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # subtle: what another has saved took the place of the file that was locked
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:  # a file system without locks
            end = 0.0
        os.close(descriptor)
    return None
