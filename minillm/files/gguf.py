"""GGUF, llama.cpp's file of a model: settings, tokenizer and weights in one.

    magic "GGUF", version 3 (or 2), number of tensors, number of settings
    settings      key, type, value: ``llama.block_count``, ``tokenizer.ggml.tokens``, ``tokenizer.chat_template`` ...
    table         of each tensor its name, shape (the last axis first), type of numbers, where it begins
    padding       to a multiple of ``general.alignment``, 32 unless given; so after each tensor
    numbers       of the tensors, one after the other in the order of the table

All numbers are little-endian. Large models come in several files, ``NAME-00001-of-00003.gguf`` and so
on, each with a part of the tensors; the first has the settings. What the bytes of a tensor mean is in
``blocks.py``.

Whatever a file holds, reading it gives what is written there or a ``ValueError`` that names the file
and says what is wrong: every count and every length is compared with what is left of the file before
it is used. The reference is llama.cpp's own reader, ggml/src/gguf.cpp; the format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""  # noqa: W505

from __future__ import annotations

import math
import mmap
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .blocks import KINDS, Kind, dequantize, quantize
from .durable import Pathlike, durable_file
from .strict_json import open_regular

__all__ = ["GGUF", "StoredBlocks", "is_gguf", "open_gguf", "write_gguf"]

MAGIC = b"GGUF"
MOST_SETTINGS = 10_000
MOST_TENSORS = 100_000
MOST_SHARDS = 1_000
LONGEST_NAME = 1_000  # bytes of a key or of a tensor's name
MOST_ITEMS = 10_000_000  # of a list
MOST_DIMENSIONS = 4
LARGEST_ALIGNMENT = 1 << 20
MOST_WEIGHTS = 2**48

# Types of settings, by their numbers in the file. 7 is a truth value, 8 a text, 9 a list.
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "|b1", 10: "<u8", 11: "<i8",
            12: "<f8"}  # fmt: skip
_TEXT, _LIST, _BOOL = 8, 9, 7
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class StoredBlocks:
    """One tensor of a GGUF file: kind and shape are known, its bytes are still on the disk."""

    kind: Kind
    shape: tuple[int, ...]  # as in NumPy, the last axis last
    file: mmap.mmap
    start: int  # position of the first byte in the file

    @property
    def dtype(self) -> str:
        """The kind of numbers in the file's words: "F32", "Q4_1" ..."""
        return self.kind.name

    @property
    def nbytes(self) -> int:
        """How many bytes it takes in the file."""
        return self.kind.bytes_of(math.prod(self.shape))

    def blocks(self) -> np.ndarray:
        """The bytes as they are, a window into the mapped file: (..., blocks of a row, bytes of a
        block) uint8.
        """
        shape = *self.shape[:-1], self.shape[-1] // self.kind.weights, self.kind.bytes
        return np.frombuffer(self.file, np.uint8, self.nbytes, self.start).reshape(shape)

    def read(self) -> np.ndarray:
        """The array in float32; nothing is copied when the file holds float32 (see
        ``StoredTensor.read``).
        """
        return dequantize(self.blocks(), self.kind)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.read(), dtype, copy=copy)


@dataclass(frozen=True)
class GGUF:
    """What a file says: settings by key (lists of numbers are arrays), tensors by name.

    It stands for its path: who needs a file for several things opens it once, and hands it on.
    """

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, StoredBlocks]

    def __fspath__(self) -> str:
        return str(self.path)

    def get(self, key: str, kind: type, default: Any = None) -> Any:
        """A setting of this type. Raises ValueError where it has another one, or is missing and has
        no default.
        """
        value = self.settings.get(key)
        if value is None and default is not None:
            return default
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
            found = "it is missing" if value is None else f"got {value!r:.60}"
            raise ValueError(f"{self.path}: {key} must be {_WORDS[kind]}; {found}")
        return value


_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", list: "a list of texts",
          np.ndarray: "a list of numbers"}  # fmt: skip


def is_gguf(path: Pathlike) -> bool:
    """Whether this is a GGUF file, by its name or by its first bytes."""
    path = Path(path)
    if not path.is_file():
        return False
    if path.suffix == ".gguf":
        return True
    with open_regular(path) as file:
        return file.read(len(MAGIC)) == MAGIC


def open_gguf(path: Pathlike) -> GGUF:
    """Read settings and table of a GGUF file, and of the other parts of its model, where it is one
    of several.

    Raises FileNotFoundError when a part is not there, and ValueError, naming the file, when one is
    damaged or they do not belong together.
    """
    if isinstance(path, GGUF):  # it is open
        return path
    path = Path(path)
    one = _open_one(path)
    count = one.settings.get("split.count", 0)
    if type(count) is not int or not 0 <= count <= MOST_SHARDS:
        raise ValueError(f"{path}: split.count must be a whole number up to {MOST_SHARDS:,}; got {count!r:.60}")
    if count < 2:
        return one
    name = _SHARD.fullmatch(path.name)
    if name is None or int(name[3]) != count:
        raise ValueError(
            f"{path}: is one of {count} parts, and must be named so: NAME-00001-of-{count:05}.gguf"
        )
    tensors: dict[str, StoredBlocks] = {}
    first = one
    for number in range(count):
        at = path.with_name(f"{name[1]}-{number + 1:05}-of-{count:05}.gguf")
        part = one if at == path else _open_one(at)
        first = part if number == 0 else first
        for key, expected in (("split.count", count), ("split.no", number)):
            if part.settings.get(key) != expected:
                raise ValueError(f"{at}: {key} must be {expected}; got {part.settings.get(key)!r:.60}")
        if twice := sorted(part.tensors.keys() & tensors.keys()):
            raise ValueError(f"{at}: holds tensors that an earlier part holds too: {twice[:5]}")
        tensors |= part.tensors
    total = first.settings.get("split.tensors.count", len(tensors))
    if total != len(tensors):
        raise ValueError(f"{path}: all parts hold {len(tensors)} tensors; split.tensors.count is {total!r:.60}")
    return GGUF(path, first.settings, tensors)


def _open_one(path: Path) -> GGUF:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < 24:
            raise ValueError(f"{path}: {size} bytes are too few for a GGUF file")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    reader = _Reader(path, mapped, size)
    reader.magic()
    n_tensors, n_settings = reader.count("tensors", MOST_TENSORS), reader.count("settings", MOST_SETTINGS)
    settings: dict[str, Any] = {}
    for i in range(n_settings):
        key = reader.text(f"the key of setting {i}", LONGEST_NAME)
        if key in settings:
            reader.fail(f"setting {key!r} is there twice")
        settings[key] = reader.value(f"setting {key!r:.100}", reader.number("<u4"))
    alignment = settings.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= LARGEST_ALIGNMENT or alignment & (alignment - 1):
        reader.fail(f"general.alignment must be a power of two; got {alignment!r:.60}")
    table = [reader.entry(i) for i in range(n_tensors)]
    start = -(-reader.at // alignment) * alignment
    tensors: dict[str, StoredBlocks] = {}
    position = 0  # llama.cpp too wants each tensor where the one before it ends
    for name, kind, shape, offset in table:
        if name in tensors:
            reader.fail(f"tensor {name!r} is there twice")
        if offset != position:
            reader.fail(f"tensor {name!r} begins at byte {offset:,} of the data; expected {position:,}")
        tensors[name] = StoredBlocks(kind, shape, mapped, start + offset)
        if start + position + tensors[name].nbytes > size:
            reader.fail(f"tensor {name!r} goes on beyond the end: the file is cut off, or its shape {shape} is wrong")
        position += -(-tensors[name].nbytes // alignment) * alignment
    if size > start + position:
        reader.fail(f"the tensors end at byte {start + position:,}; the file has {size:,}")
    return GGUF(path, settings, tensors)


class _Reader:
    """Takes numbers and texts off the front of a file, none beyond its end."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size = path, data, size
        self.at = 0

    def fail(self, what: str) -> Any:
        raise ValueError(f"{self.path}: {what}")

    def take(self, size: int, what: str) -> int:
        """Go on by so many bytes, and return where they begin."""
        if size > self.size - self.at:
            self.fail(f"{what} goes on beyond the end of the file: it is damaged or cut off")
        self.at += size
        return self.at - size

    def number(self, dtype: str, what: str = "the header") -> Any:
        width = int(dtype[2])
        at = self.take(width, what)
        raw = self.data[at : at + width]
        if dtype == "|b1":
            return raw == b"\x01" if raw in (b"\x00", b"\x01") else self.fail(f"{what} must be true or false")
        if dtype[1] == "f":
            return struct.unpack("<f" if width == 4 else "<d", raw)[0]
        return int.from_bytes(raw, "little", signed=dtype[1] == "i")

    def magic(self) -> None:
        if self.data[self.take(4, "the header") : 4] != MAGIC:
            self.fail("does not begin with GGUF: it is no GGUF file")
        version = self.number("<u4")
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            hint = ": a file for big-endian machines" if swapped in (2, 3) else ""
            self.fail(f"GGUF version {version}{hint} is not implemented, only 2 and 3")

    def count(self, what: str, most: int) -> int:
        count = self.number("<u8")
        return count if count <= most else self.fail(f"claims {count:,} {what}; at most {most:,} are allowed")

    def text(self, what: str, longest: int | None = None) -> str:
        length = self.number("<u8", what)
        if longest is not None and length > longest:
            self.fail(f"{what} has {length:,} bytes; at most {longest:,} are allowed")
        at = self.take(length, what)
        try:
            return self.data[at : at + length].decode("utf-8")
        except UnicodeDecodeError:
            return self.fail(f"{what} is no UTF-8 text")

    def value(self, what: str, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], what)
        if kind == _TEXT:
            return self.text(what)
        if kind != _LIST:
            self.fail(f"{what} has the unknown type {kind}")
        item, count = self.number("<u4", what), self.number("<u8", what)
        if item not in _SCALARS and item != _TEXT:
            self.fail(f"{what} is a list of the type {item}, which is unknown or not implemented")
        width = 8 if item == _TEXT else int(_SCALARS[item][2])
        if count > min(MOST_ITEMS, (self.size - self.at) // width):
            self.fail(f"{what} claims {count:,} entries, more than the file or the limit of {MOST_ITEMS:,} allows")
        if item == _TEXT:
            return self.texts(count, what)
        at = self.take(count * width, what)
        array = np.frombuffer(self.data, "|u1" if item == _BOOL else _SCALARS[item], count, at)
        if item == _BOOL and array.max(initial=0) > 1:
            self.fail(f"{what} must be a list of true and false")
        return array.astype(bool) if item == _BOOL else array.copy()

    def texts(self, count: int, what: str) -> list[str]:
        """So many texts; a vocabulary has hundreds of thousands."""
        data, at, size, found = self.data, self.at, self.size, []
        for _ in range(count):
            length = int.from_bytes(data[at : at + 8], "little")
            start, at = at + 8, at + 8 + length
            if at > size:
                break
            found.append(data[start:at])
        self.take(at - self.at, what)
        try:
            return [text.decode("utf-8") for text in found]
        except UnicodeDecodeError:
            return self.fail(f"{what} is a list with an entry that is no UTF-8 text")

    def entry(self, i: int) -> tuple[str, Kind, tuple[int, ...], int]:
        """A line of the table: name, kind, shape, offset."""
        name = self.text(f"the name of tensor {i}", LONGEST_NAME)
        what = f"tensor {name!r:.100}"
        dimensions = self.number("<u4", what)
        if not 1 <= dimensions <= MOST_DIMENSIONS:
            self.fail(f"{what} has {dimensions:,} axes; expected 1 to {MOST_DIMENSIONS}")
        shape = tuple(self.number("<u8", what) for _ in range(dimensions))[::-1]
        if min(shape) < 1 or math.prod(shape) > MOST_WEIGHTS:
            self.fail(f"{what} has the shape {shape}; expected sizes from 1 on")
        number, offset = self.number("<u4", what), self.number("<u8", what)
        if number not in KINDS:
            known = ", ".join(kind.name for kind in KINDS.values())
            self.fail(f"{what} has numbers of the type {number}, which is not implemented; known are {known}")
        kind = KINDS[number]
        if shape[-1] % kind.weights:
            self.fail(f"{what}, {kind.name}, must have rows of a multiple of {kind.weights}; got the shape {shape}")
        return name, kind, shape, offset


# ---- writing -------------------------------------------------------------------------------------


def write_gguf(
    path: Pathlike, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray], kinds: Mapping[str, str]
) -> None:
    """Write a GGUF file, and return when the disk has it.

    settings: by key; a bool, int (uint32), float (float32), text, list of texts, or an array of
    int32 or float32. kinds: of each tensor "F32", "F16" or "Q8_0". Whoever wants little memory
    gives tensors as a mapping that makes each when it is asked for.
    """
    names = {kind.name: (number, kind) for number, kind in KINDS.items()}
    with durable_file(path) as file:
        file.write(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(settings)))
        for key, value in settings.items():
            file.write(_text(key) + _setting(value))
        position = 0
        for name in tensors:
            number, kind = names[kinds[name]]
            shape = tensors[name].shape
            file.write(_text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1]))
            file.write(struct.pack("<IQ", number, position))
            position += -(-kind.bytes_of(math.prod(shape)) // 32) * 32
        file.write(bytes(-file.tell() % 32))
        for name in tensors:
            for part in _parts(np.asarray(tensors[name])):
                file.write(quantize(part, names[kinds[name]][1]).tobytes())
            file.write(bytes(-file.tell() % 32))


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The array in parts of some rows."""
    rows = array.reshape(-1, array.shape[-1])
    step = max(1, (1 << 20) // rows.shape[1])
    for i in range(0, len(rows), step):
        yield rows[i : i + step]


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _setting(value: Any) -> bytes:
    """Type and value of a setting."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", _TEXT) + _text(value)
    if isinstance(value, np.ndarray):
        number = next(number for number, dtype in _SCALARS.items() if dtype == value.dtype.newbyteorder("<").str)
        return struct.pack("<IIQ", _LIST, number, len(value)) + value.astype(_SCALARS[number]).tobytes()
    assert isinstance(value, Sequence)
    return struct.pack("<IIQ", _LIST, _TEXT, len(value)) + b"".join(map(_text, value))
