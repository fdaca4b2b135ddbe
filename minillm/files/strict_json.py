"""Text and JSON from strangers, read strictly; and JSON written so that everybody can read it.

A file may come from a stranger. Whatever it holds, the answer is the right value or a
``ValueError`` that names the file and says what is wrong; it comes quickly, and costs little
memory.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from .durable import Pathlike, durable_file

__all__ = ["open_regular", "parse_json", "read_json", "read_json_lines", "read_text", "to_json", "write_json"]


def read_json(path: Pathlike, limit: int = 1_000_000) -> dict[str, Any]:
    """Read a JSON object from a file of at most ``limit`` bytes, strictly.

    Raises ValueError when the file is too large, no UTF-8, no JSON, no object, nested beyond
    reason, or when it has a key twice, NaN or infinity: things on which readers differ.
    """
    return parse_json(_read_limited(path, limit), str(path))


def read_json_lines(path: Pathlike, limit: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield of each line of a file of at most ``limit`` bytes its place ("FILE, line 3") and its
    JSON object, read as strictly. Empty lines are left out.

    Only carriage returns and line feeds end a line: a text in JSON may hold Unicode's other line
    ends as they are.
    """
    data = _read_limited(path, limit).removeprefix(codecs.BOM_UTF8)
    for number, line in enumerate(data.splitlines(), start=1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, parse_json(line, place)


def read_text(path: Pathlike, limit: int = 1_000_000) -> str:
    """Read a UTF-8 text of at most ``limit`` bytes. Raises ValueError, naming the file, when it is
    something else.
    """
    try:
        return str(_read_limited(path, limit), "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None


def _read_limited(path: Pathlike, limit: int) -> bytes:
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise ValueError(f"{path}: larger than the {limit:,} bytes that are plausible here")
        return file.read()


def parse_json(data: bytes | memoryview, source: str) -> dict[str, Any]:
    """Parse one JSON object as ``read_json`` does; ``source`` is its name in messages."""
    try:
        value = json.loads(str(data, "utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(f"{source}: JSON nested too deeply") from None
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors too
        raise ValueError(f"{source}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{source}: expected a JSON object; got {type(value).__name__}")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r:.200} appears twice")
    return table


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def open_regular(path: Pathlike) -> BinaryIO:
    """Open a file to read. A pipe or a device, which may never end, is refused."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: not a regular file")
    return open(path, "rb")


def to_json(value: Mapping[str, Any], indent: int | None = None) -> bytes:
    """A JSON object in UTF-8. Numbers of NumPy are numbers; raises ValueError for NaN and infinity,
    which JSON lacks.

    A file name that is not UTF-8 is in Python's hands a text with lone surrogates: they are
    escaped, and read back as they were.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=_plain_number)
    return text.encode("utf-8", "backslashreplace")  # of a surrogate that makes JSON's own escape, \udc00


def write_json(path: Pathlike, value: Mapping[str, Any], indent: int | None = 2) -> None:
    """Write a JSON object, indented or (None) in one line, durably; which values, see `to_json`."""
    with durable_file(path) as file:
        file.write(to_json(value, indent=indent) + b"\n")


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON")
