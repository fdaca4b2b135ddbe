"""Reading a text of any size in parts, so that it is never held as a whole."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path

import regex

from .. import kernels

PART = 1 << 20  # bytes read at a time
# before a space, or after a line end between two visible characters; searched from the end
_LAST_SAFE_CUT = regex.compile(r"(?r)(?<=\S)(?= )|(?<=\S\r?\n)(?=\S)")
_RELEASE = 1 << 24  # bytes read between two releases of memory
_SEEN = 3  # how many characters before a cut the expression looks at


def read_parts(path: str | Path, size: int = PART, progress: Callable[[int], None] | None = None) -> Iterator[str]:
    r"""Yield a UTF-8 file in parts of about `size` bytes that give the same tokens as the whole.

    A part ends before a space that follows a visible character, or after a line end between two of
    them (Chinese and Japanese have no spaces): the known patterns end a piece at every such place,
    and a tokenizer says so with `cuts_at_spaces`. No special token that holds no space is ever cut
    in two. A text with neither is held until one comes. Windows line ends become `\n`, a byte order
    mark at the beginning is left out. `progress(n)` is told how many bytes were read.

    Raises ValueError when the file is not UTF-8, with the offset of the bad byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    held: list[str] = [""]  # without a place to cut
    offset = 0
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
            held[-1], text = held[-1][:-_SEEN], held[-1][-_SEEN:] + text
            held.append(text)
            if not data:
                break
            if offset // _RELEASE < (offset + len(data)) // _RELEASE and kernels.KERNELS == "numba":
                kernels.release_freed_memory()
            offset += len(data)
            if progress is not None:
                progress(len(data))
            cut = _LAST_SAFE_CUT.search(text)
            if cut is not None:
                held[-1] = text[: cut.start()]
                yield "".join(held).replace("\r\n", "\n")
                held = [text[cut.start() :]]
    if any(held):
        yield "".join(held).replace("\r\n", "\n")
