"""Reading a text of any size in parts, so that it is never held as a whole."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

import regex

PART = 1 << 20  # bytes read at a time
_LAST_SAFE_CUT = regex.compile(r"(?r)\S ")  # before the space; searched from the end


def read_parts(path: str | Path, size: int = PART) -> Iterator[str]:
    r"""Yield a UTF-8 file in parts of about `size` bytes, cut before a space that follows a visible character.

    The known patterns end a piece at every such place, so the parts give the same pieces as the whole (a tokenizer says
    so with `cuts_at_spaces`); and no special token that holds no space is ever cut in two. A text without spaces is
    held until one comes. Windows line ends become `\n`, a byte order mark at the beginning is left out.

    Raises ValueError when the file is not UTF-8, with the offset of the bad byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    held, offset = "", 0
    with open(path, "rb") as file:
        while True:
            data = file.read(size)
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                at = offset + len(data) - len(error.object) + error.start
                raise ValueError(
                    f"read_parts: {path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {at}"
                ) from None
            held += text
            offset += len(data)
            if not data:
                break
            cut = _LAST_SAFE_CUT.search(held)
            if cut is not None:
                yield held[: cut.end() - 1].replace("\r\n", "\n")
                held = held[cut.end() - 1 :]
    if held:
        yield held.replace("\r\n", "\n")
