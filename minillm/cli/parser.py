"""How the command line is read: one line of complaint, and the name that was probably meant."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see: {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, not_one_of(action.choices, value))


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """What the arguments say; nothing says ``--help``. Raises ValueError with the name that was
    probably meant.
    """
    if not arguments:
        parser.parse_args(["--help"])
    options, unknown = parser.parse_known_args(list(arguments))
    if unknown and not unknown[0].startswith("-") and getattr(options, "prompt", None) == "":
        options.prompt = unknown.pop(0)  # argparse looks for it before the options only: RUN --int8 "text"
    if unknown:
        known = [name for action in _actions_of(parser, options.command) for name in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f" (see: minillm {options.command} --help)"
        raise ValueError(f"unknown option {unknown[0]}{hint}")
    return options


def _actions_of(parser: argparse.ArgumentParser, command: str) -> list[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[command]._actions
    return []


def choice(*names: str) -> Any:
    """A type for options with a few values; suggests the nearest."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(not_one_of(names, text))
        return text

    return read


def not_one_of(names: Iterable[str], text: str) -> str:
    """The complaint about a value that is none of ``names``, with the nearest of them."""
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
    return f"expected one of {', '.join(names)}; got {text!r}" + (f"; did you mean {near[0]}?" if near else "")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that compute."""
    parser.add_argument("--threads", type=int, metavar="N", help="threads for the kernels; default: all cores")


def add_ignore_unknown(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that open a stranger's model."""
    parser.add_argument(
        "--ignore-unknown", action="append", default=[], metavar="NAME",
        help="open a model without this field or tensor, which minillm does not know (may be given again)",
    )  # fmt: skip


def set_threads(options: argparse.Namespace) -> None:
    """Do as ``--threads`` says."""
    if options.threads is not None:
        from .. import kernels

        kernels.set_num_threads(options.threads)
