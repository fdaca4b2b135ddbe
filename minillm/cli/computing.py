"""What all commands that compute share: ``--threads``, and a word while kernels compile."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .terminal import passing_line, say
from .values import positive

if TYPE_CHECKING:
    from ..training.compile_notice import CompileNotice

__all__ = ["add_threads", "computing", "on_ctrl_c"]


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that compute."""
    parser.add_argument("--threads", type=positive(), metavar="N", help="threads for the kernels; default: all cores")


@contextlib.contextmanager
def computing(options: argparse.Namespace, about: int = 40) -> Iterator[CompileNotice]:
    """Inside, as many threads as ``--threads`` says; a person is told when kernels compile, unless
    ``--quiet`` was chosen; and Ctrl-C raises KeyboardInterrupt, so that what was begun on the disk
    is put away.

    about: how many seconds that may take this command, where no kernel is compiled yet.
    """
    from .. import kernels
    from ..training.compile_notice import CompileNotice

    if getattr(options, "threads", None) is not None:
        try:
            kernels.set_num_threads(options.threads)
        except ValueError as error:
            raise ValueError(str(error).replace("set_num_threads: expected", "--threads must be")) from None
    if getattr(options, "quiet", False):
        notice = CompileNotice(lambda text: None, None, about)
    else:
        notice = CompileNotice(say, passing_line if sys.stderr.isatty() else None, about)
    with notice, on_ctrl_c(signal.default_int_handler):
        yield notice


@contextlib.contextmanager
def on_ctrl_c(handle: Callable[[int, Any], Any]) -> Iterator[None]:
    """Inside, Ctrl-C calls a function."""
    if threading.current_thread() is not threading.main_thread():  # only there can signals be caught
        yield
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
