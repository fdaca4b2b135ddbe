"""How the command line is read: complaints are one line, in the words of the command."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from .guesses import of_command, of_model, of_option, of_word
from .values import not_one_of

__all__ = ["Parser", "add_ignore_unknown", "in_words_of_the_command", "one_line", "parse"]


# What a message begins with in Python: the function or class that raised it.
OUR_NAMES = re.compile(
    r"^(generate|generate_batch|stream|load|load_texts|text_files|corpus_parts|evaluate|from_pretrained|(?:[A-Z]\w*)?"
    r"(?:Dataset|Config|Tokenizer)(?:\.\w+)?): "
)


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and begin with the option that they are about."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument (\S+): ", r"\1 ", message).replace("expected one argument", "needs a value")
        message = re.sub(r"the following arguments are required: (.+)", r"\1 is missing", message)
        raise ValueError(f"{message} (see: {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, of_command(value) or not_one_of(action.choices, value))


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """What the arguments say; nothing says ``--help``. Raises ValueError with what was probably
    meant.
    """
    if not arguments:
        parser.parse_args(["--help"])
    options, unknown = parser.parse_known_args(list(arguments))
    if unknown and not unknown[0].startswith("-") and getattr(options, "prompt", None) == "":
        options.prompt = unknown.pop(0)  # argparse looks for it before the options only: RUN --int8 "text"
    actions = _actions_of(parser, options.command)
    if told := of_model(options, actions):
        raise ValueError(told)
    if unknown:
        guess = of_option if unknown[0].startswith("-") else of_word
        what = "unknown option" if unknown[0].startswith("-") else "unexpected"
        near = guess(unknown, options, actions)
        hint = f"; {near}" if near else f" (see: minillm {options.command} --help)"
        raise ValueError(f"{what} {unknown[0]}{hint}")
    return options


def _actions_of(parser: argparse.ArgumentParser, command: str) -> list[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[command]._actions
    return []


@contextlib.contextmanager
def in_words_of_the_command(options: Mapping[str, str]) -> Iterator[None]:
    """Let a ValueError about parameters speak of the options that set them.

    ``GenerationConfig: min_new_tokens must be at most max_new_tokens = 5`` becomes
    ``--min-new-tokens must be at most --max-new-tokens = 5``, and ``slide=True`` ``--slide``.
    options: parameter -> option.
    """
    names = "|".join(options)
    try:
        yield
    except ValueError as error:
        text = re.sub(r"^(GenerationConfig|TrainConfig|Recipe|stream|generate|generate_batch): ", "", str(error))
        pattern = rf"(?<![-\w])({names})(?:=True|(?= must\b| = | above ))"
        raise ValueError(re.sub(pattern, lambda name: options[name[1]], text)) from None


def one_line(error: Exception) -> str:
    """What went wrong, in a line, without Python's names for it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return OUR_NAMES.sub("", " ".join(str(error).split()))


def add_ignore_unknown(parser: argparse.ArgumentParser) -> None:
    """The option of all commands that open a stranger's model."""
    parser.add_argument(
        "--ignore-unknown", action="append", default=[], metavar="NAME",
        help="open a model without this field or tensor, which minillm does not know (may be given again)",
    )  # fmt: skip
