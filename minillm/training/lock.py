"""One training at a time in a run folder: two would write each other's checkpoints and log.

The operating system holds the lock as long as the process lives, and lets go of it however the
process ends, `kill -9` too. The file holds the process's number, for people; one that a dead
process has left means nothing, and is taken over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["LOCK", "training_lock"]

LOCK = "training.lock"


@contextlib.contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Inside, this is the only training in the folder.

    Raises BlockingIOError, with the number of the other process, when there is one already, and
    OSError when the folder cannot be written to. On a file system, or a system (Windows), without
    such locks it only leaves the number.
    """
    path = folder / LOCK
    descriptor = _locked(path)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # it may have gone with its folder
            os.unlink(path)  # before the lock is let go of: after that, the file may be another's
        os.close(descriptor)


def _locked(path: Path) -> int:
    """The locked file's descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor)
            # subtle: whoever had the lock may have removed the file between our opening and our
            # locking it
            if path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            number = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise BlockingIOError(
                f"{path.parent} is being trained already, by process {number or 'unknown'}: wait until it has ended, "
                "or end it (Ctrl-C saves first)"
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:  # a file system without locks
        return
