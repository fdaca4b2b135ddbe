"""What a person types: ``minillm train | sft | dpo | generate | eval | quantize | convert | info |
tokenize | encode | warmup``.

Text goes to standard output, everything about it to standard error, so that ``minillm generate ...
> story.txt`` keeps the story alone. A person's mistake is one line that says what was expected, and
exit code 2.

Each command has a file: ``add`` says what can be typed, ``run`` does it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from . import convert, dpo, encode, eval, generate, info, quantize, sft, tokenize, train, warmup
from .parser import Parser, parse
from .terminal import forgiving_streams, say

# What a message begins with in Python: the function or class that raised it.
OUR_NAMES = re.compile(
    r"^(generate|generate_batch|stream|load|load_texts|text_files|corpus_parts|evaluate|from_pretrained|(?:[A-Z]\w*)?"
    r"(?:Dataset|Config|Tokenizer)(?:\.\w+)?): "
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    with forgiving_streams(), _short_warnings():
        try:
            try:
                return _run(arguments)
            finally:
                sys.stdout.flush()  # here, where it can still be told that nobody reads it
        except BrokenPipeError:  # as in ``minillm tokenize ... | head -1``: whoever reads has seen enough
            _discard_output()
            return 128 + 13  # what a shell gives a program that SIGPIPE ended


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = parse(_parser(), sys.argv[1:] if arguments is None else arguments)
        from ..kernels import settings

        settings.threads()  # refuses a wrong MINILLM_THREADS here, where nothing else can be blamed
        return options.run(options) or 0
    except BrokenPipeError:
        raise
    except (ValueError, FloatingPointError, OSError, MemoryError, ImportError) as error:
        say(f"minillm: {_one_line(error)}")
        return 2
    except KeyboardInterrupt:
        say("minillm: interrupted")
        return 130


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Warnings in one line, without the place in the source."""
    before = warnings.showwarning
    warnings.showwarning = lambda message, *_, **__: say(f"minillm: warning: {message}")
    try:
        yield
    finally:
        warnings.showwarning = before


def _discard_output() -> None:
    """Send what is still to be written nowhere, or Python would complain of it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return OUR_NAMES.sub("", " ".join(str(error).split()))


def _parser() -> argparse.ArgumentParser:
    from .. import __version__

    parser = Parser(prog="minillm", description="Train a small language model on a CPU, and let it speak.")
    parser.add_argument("--version", action="version", version=f"minillm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in (train, sft, dpo, generate, eval, quantize, convert, info, tokenize, encode, warmup):
        command.add(commands)
    return parser
