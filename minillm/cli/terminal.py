"""Standard output and standard error: what a terminal cannot show is replaced, and nobody need be
listening.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any


def say(text: str) -> None:
    """A line on standard error for the person who watches, if there is one."""
    with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads, a stream that is closed
        print(text, file=sys.stderr, flush=True)


def passing_line(text: str) -> None:
    """A line on the terminal behind standard error, which the next one overwrites."""
    columns = shutil.get_terminal_size().columns - 1
    with contextlib.suppress(OSError, ValueError):
        print(f"{text[:columns]}\x1b[K\r", end="", file=sys.stderr, flush=True)


def bytes_bar(what: str, size: int) -> Any:
    """A progress bar over the bytes of a text; where standard error is no terminal, nothing."""
    from tqdm import tqdm

    return tqdm(total=size, desc=what, unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False)


@contextlib.contextmanager
def forgiving_streams() -> Iterator[None]:
    """Inside, standard output and error take every text: what they cannot show becomes a question
    mark.

    Where the process was started without one of them (``>&-`` in a shell), what is written to it is
    lost.
    """
    with contextlib.ExitStack() as afterwards:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None:
                # subtle: this takes the stream's own number, which else the next file to be opened
                # would get
                nowhere = afterwards.enter_context(open(os.devnull, "w", encoding="utf-8"))
                setattr(sys, name, nowhere)
                afterwards.callback(setattr, sys, name, None)
            elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="replace")
                afterwards.callback(_strict_again, stream)
        yield


def _strict_again(stream: io.TextIOWrapper) -> None:
    with contextlib.suppress(OSError, ValueError):
        stream.reconfigure(errors="strict")


def write(text: str) -> None:
    """Words of a model on standard output, at once."""
    print(harmless(text) if sys.stdout.isatty() else text, end="", flush=True)


def harmless(text: str) -> str:
    """A text without the characters that command a terminal: a model may write anything."""
    return "".join([c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc"])
