"""What all commands that compute share: ``--threads``, and a word while kernels compile."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .terminal import passing_line, say
from .values import positive

if TYPE_CHECKING:
    from ..training.compile_notice import CompileNotice

__all__ = ["add_threads", "computing"]


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that compute."""
    parser.add_argument("--threads", type=positive(), metavar="N", help="threads for the kernels; default: all cores")


@contextlib.contextmanager
def computing(options: argparse.Namespace, about: int = 30) -> Iterator[CompileNotice]:
    """Inside, as many threads as ``--threads`` says; and a person is told when kernels compile.

    about: how many seconds that may take this command, where no kernel is compiled yet.
    """
    from .. import kernels
    from ..training.compile_notice import CompileNotice

    if getattr(options, "threads", None) is not None:
        try:
            kernels.set_num_threads(options.threads)
        except ValueError as error:
            raise ValueError(str(error).replace("set_num_threads: expected", "--threads must be")) from None
    with CompileNotice(say, passing_line if sys.stderr.isatty() else None, about) as notice:
        yield notice
