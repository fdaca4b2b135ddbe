"""Files that outlive a crash, and folders that appear whole or not at all.

A computer may stop at any moment: a crash, a full disk, a power cut. Bytes that were "written" may
still wait in memory, and be lost; ``fsync`` waits until the disk has them. So a folder is made
under another name, every file in it fsynced, and then renamed: a rename happens wholly or not at
all, and is the moment when the folder begins to be.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "Pathlike",
    "atomic_file",
    "atomic_folder",
    "atomic_update",
    "durable_file",
    "remove_folder",
    "remove_stale",
    "write_text",
]

Pathlike = str | os.PathLike[str]


@contextlib.contextmanager
def durable_file(path: Pathlike) -> Iterator[BinaryIO]:
    """A new file to write bytes into; when the block ends, the disk has them."""
    with open(path, "wb") as file:
        yield file
        file.flush()  # from Python to the operating system
        os.fsync(file.fileno())  # from there to the disk


def write_text(path: Pathlike, text: str) -> None:
    """Write a UTF-8 text, and return when the disk has it."""
    with durable_file(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def atomic_file(path: Pathlike) -> Iterator[Path]:
    """Make a file that appears, or replaces an older one, whole or not at all; yields the name to
    write to meanwhile.

    Who has the older file mapped into memory goes on reading it.
    """
    path = Path(path)
    _make_parents(path)
    staging = _staging_name(path.parent, path.name)
    try:
        yield staging
        os.replace(staging, path)
        _sync_folder(path.parent)
    finally:
        staging.unlink(missing_ok=True)  # a failure's


# ---- folders, whole or not at all ----------------------------------------------------------------


@contextlib.contextmanager
def atomic_folder(path: Pathlike) -> Iterator[Path]:
    """Make a folder that appears whole or not at all; yields the folder to write into, which has
    another name.

    When the block ends, everything in it is fsynced and the folder gets its name. When the block
    raises, nothing is left. When the process dies, its half-written folder stays under the other
    name, which no reader looks at, until somebody writes to the same path again. Raises
    FileExistsError when ``path`` exists.

    >>> with atomic_folder("run/final") as folder:  # doctest: +SKIP
    ...     write_json(folder / "config.json", {"n_layer": 2})
    """
    path = Path(path)
    _refuse_existing(path)
    _make_parents(path)
    with _staging_folder(path.parent, path.name) as staging:
        yield staging
        _sync_tree(staging)
        _refuse_existing(path)  # os.rename would replace an empty folder
        os.rename(staging, path)  # the commit point
        _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_update(folder: Path, commit: str) -> Iterator[Path]:
    """Put files into a folder that exists, replacing those of the same name; yields a folder to
    write them into.

    When one file differs from what is there, its rename is the commit point, and a reader finds the
    old one or the new one. But several renames cannot be one: then the file ``commit``, with which
    a reader must begin, is taken away first and comes back last. Whoever opens the folder, after a
    crash too, finds the old files, the new ones, or no file ``commit``, and never a mixture.
    """
    with _staging_folder(folder, folder.name) as staging:
        yield staging
        _sync_tree(staging)
        changed = {item.name for item in staging.iterdir() if not _same_file(item, folder / item.name)}
        if len(changed) > 1:
            # subtle: these reach the disk in any order, unless we wait between them
            (folder / commit).unlink(missing_ok=True)
            _sync_folder(folder)
            for name in sorted(changed - {commit}):
                os.rename(staging / name, folder / name)
            _sync_folder(folder)
            changed = {commit}
        for name in changed:
            os.rename(staging / name, folder / name)  # the commit point
        _sync_folder(folder)


def _same_file(a: Path, b: Path) -> bool:
    return b.is_file() and filecmp.cmp(a, b, shallow=False)


def remove_stale(parent: Path, stem: str | None = None) -> None:
    """Remove the half-written folders that dead processes left in ``parent``: those of the name
    ``stem``, or all.
    """
    for item in parent.iterdir():
        match = _STAGING_NAME.fullmatch(item.name)
        if match and stem in (None, match["stem"]) and item.name not in _ours and not _is_alive(int(match["pid"])):
            shutil.rmtree(item, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder. It loses its name first, so that a crash leaves no half of it where a reader
    would look.
    """
    doomed = _staging_name(path.parent, path.name)
    os.rename(path, doomed)
    shutil.rmtree(doomed)


_STAGING_NAME = re.compile(r"(?P<stem>.+)\.tmp-(?P<pid>[0-9]{1,9})-[0-9a-f]{8}")
_ours: set[str] = set()  # names of the staging folders that this process is writing


def _staging_name(parent: Path, stem: str) -> Path:
    return parent / f"{stem}.tmp-{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def _staging_folder(parent: Path, stem: str) -> Iterator[Path]:
    remove_stale(parent, stem)
    staging = _staging_name(parent, stem)
    _ours.add(staging.name)
    try:
        staging.mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # by then renamed, or empty, or a failure's
        _ours.discard(staging.name)


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # a process of the past had our number, as is usual in containers; what is ours is in _ours
    if os.name != "posix":
        return True  # elsewhere os.kill is no question
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path}: exists already")


def _make_parents(path: Path) -> None:
    """Make the folders above ``path``, each durably entered in the folder above it."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        _sync_folder(parent.parent)


def _sync_tree(root: Path) -> None:
    """Fsync every file and folder under ``root``, whoever wrote it."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            with open(Path(folder, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(folder))


def _sync_folder(folder: Path) -> None:
    """Fsync a folder: the names in it, as opposed to what the files hold."""
    if os.name != "posix":
        return  # Windows cannot
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
