"""Names of files and folders as a person reads them, and as a shell takes them.

On Linux a name is any bytes. Python holds those that are not UTF-8 as lone surrogates (PEP 383),
which no file of text and no picture can hold.
"""

from __future__ import annotations

import os
import shlex

from .durable import Pathlike

__all__ = ["shell_path", "shell_word", "shown"]


def shown(name: Pathlike) -> str:
    r"""The name in characters that every UTF-8 text can hold.

    >>> shown("caf\udce9")
    'caf�'
    """
    return os.fspath(name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def shell_path(path: Pathlike) -> str:
    """A path as one word of a command line, which no command takes for an option.

    >>> print(shell_path("my run"), shell_path("-x"))
    'my run' ./-x
    """
    text = os.fspath(path)
    return shell_word(f"./{text}" if text.startswith("-") else text)


def shell_word(text: str) -> str:
    r"""A text as one word of a command line; what cannot be printed is written as bash and zsh read
    it.

    >>> print(shell_word("Ba$$in"), shell_word("caf\udce9"))
    'Ba$$in' $'caf\xe9'
    """
    if text.isprintable():
        return shlex.quote(text)
    printable = (chr(b) if 32 <= b < 127 and chr(b) not in "'\\" else f"\\x{b:02x}" for b in os.fsencode(text))
    return f"$'{''.join(printable)}'"
