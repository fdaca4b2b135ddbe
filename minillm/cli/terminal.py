"""What is told beside the text itself, on standard error."""

from __future__ import annotations

import sys
from typing import Any


def say(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def bytes_bar(what: str, size: int) -> Any:
    """A progress bar over the bytes of a text; where standard error is no terminal, nothing."""
    from tqdm import tqdm

    return tqdm(total=size, desc=what, unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False)
