"""A disk that fails when told to, a process that is killed at any moment, a file that somebody tampered with.

Every write, fsync, rename, mkdir and unlink under ``faulty_disk`` is numbered (an fsync is no more than that). Run once
to count them; then run once for each number, with the operation of that number failing (a full disk, an I/O error) or
the process dying there.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np


class Disk:
    """Counts the operations, and lets number ``fail_at`` fail with an errno, or by death where that is None."""

    def __init__(self, fail_at: int | None, error: int | None):
        self.fail_at, self.error = fail_at, error
        self.log: list[tuple[str, str]] = []  # (operation, path)

    def operation(self, name: str, path: str, half: Callable[[], object] = lambda: None) -> None:
        self.log.append((name, path))
        if len(self.log) - 1 == self.fail_at:
            half()
            if self.error is None:
                os._exit(99)
            raise OSError(self.error, os.strerror(self.error), path)


class _File:
    """An open file whose writes are numbered; the one that fails has written half of its bytes."""

    def __init__(self, file, disk: Disk):
        self.file, self.disk = file, disk

    def write(self, data):
        def half():
            self.file.write(data[: len(data) // 2])
            self.file.flush()

        self.disk.operation("write", str(self.file.name), half)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()


@contextlib.contextmanager
def faulty_disk(fail_at: int | None = None, error: int | None = errno.ENOSPC) -> Iterator[Disk]:
    """Number the operations; number ``fail_at`` raises OSError(error), or ends the process when error is None."""
    disk = Disk(fail_at, error)
    real = {name: getattr(os, name) for name in ("fsync", "rename", "replace", "mkdir", "unlink")}
    real_open = builtins.open

    def numbered(name):
        def call(target, *args, **kwargs):
            path = os.readlink(f"/proc/self/fd/{target}") if name == "fsync" else os.fspath(target)
            disk.operation(name, str(path))
            return None if name == "fsync" else real[name](target, *args, **kwargs)  # a real fsync takes its time

        return call

    def open_numbered(file, mode="r", *args, **kwargs):
        opened = real_open(file, mode, *args, **kwargs)
        return _File(opened, disk) if set(mode) & set("wxa+") else opened

    try:
        builtins.open = open_numbered
        for name in real:
            setattr(os, name, numbered(name))
        yield disk
    finally:
        builtins.open = real_open
        for name, function in real.items():
            setattr(os, name, function)


def dies(action: Callable[[], object], fail_at: int) -> bool:
    """Run ``action`` in a copy of this process that dies at operation ``fail_at``; False when it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            with faulty_disk(fail_at, error=None):
                action()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 99), f"the child failed of itself, with exit code {code}"
    return code == 99


def kill_repeatedly(
    command: Sequence[str],
    check: Callable[[], object],
    rng: np.random.Generator,
    cycles: int = 30,
    longest: float = 2.0,
    ready: Callable[[], bool] = lambda: True,
) -> int:
    """Start ``command`` and kill it (SIGKILL) after a random time, ``cycles`` times; call ``check()`` after each death.

    The time, up to ``longest`` seconds, counts from the moment when ``ready()`` is true: for a training, when it
    has begun to save. Returns how many times the process was killed; it fails when one ended with an error by itself.
    """
    killed = 0
    for _ in range(cycles):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and not ready():
                time.sleep(0.01)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0, longest))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                killed += 1
            output = process.communicate()[0]
        assert process.returncode in (0, -signal.SIGKILL), output.decode(errors="replace")
        check()
    return killed


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file under ``folder``, with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mutated_json(text, rng):
    """One change of a JSON file: of its bytes, of a value, or of a field's name."""
    fields = json.loads(text)
    name = list(fields)[rng.integers(len(fields))]
    values = [0, -1, 3, 7.5, 10**9, 10**40, None, True, False, "", "gelu", [], [1], {}, {"a": 1}, "x" * 10_000]
    kind = rng.integers(7)
    if kind == 0:
        changed = bytearray(text)
        changed[rng.integers(len(text))] ^= 1 << rng.integers(8)
        return bytes(changed)
    if kind == 1:
        return text[: rng.integers(len(text))]
    if kind == 2:
        at = rng.integers(len(text))
        return text[:at] + rng.bytes(4) + text[at:]
    if kind == 3:
        return text.replace(b"{", b"{" + json.dumps(name).encode() + b": 1, ", 1)  # a name twice
    if kind == 4:
        fields[name + "_x"] = fields.pop(name)
    else:
        fields[name] = values[rng.integers(len(values))]
    return json.dumps(fields).encode()
