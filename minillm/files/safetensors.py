"""Weights on the disk: the safetensors format, read from strangers and written durably.

A safetensors file (https://huggingface.co/docs/safetensors) is a table of contents and then raw
numbers::

    8 bytes    n, the length of the header (unsigned, little-endian)
    n bytes    JSON: {"__metadata__": {"format": "pt"},
                      "wte.weight": {"dtype": "F32", "shape": [65, 8], "data_offsets": [0, 2080]},
                      ...}
    the rest   the tensors' bytes, in C order, one after the other without a gap

Whatever a file holds, reading it gives the right arrays or a ``ValueError`` that names the file and
says what is wrong.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .durable import Pathlike, durable_file
from .strangers import about_pickles
from .strict_json import open_regular, parse_json, read_json

__all__ = ["StoredTensor", "open_safetensors", "open_weights", "read_safetensors", "write_safetensors"]

MOST_HEADER_BYTES = 100_000_000
MOST_HEADER_VALUES = 1_000_000  # a tensor has three or more: parsing more than this would take seconds and gigabytes
MOST_DIMENSIONS = 64  # of a NumPy array
MOST_BYTES = 2**48  # no disk holds more

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1",
}  # fmt: skip


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file: dtype and shape are known, its bytes are still on the disk.

    NumPy takes it for an array (``np.asarray(tensor)``), and so does whatever asks for a ``.shape``
    first.
    """

    dtype: str  # in the file's words: "F32", "BF16" ...
    shape: tuple[int, ...]
    file: mmap.mmap
    start: int  # position of the first byte in the file

    def read(self) -> np.ndarray:
        """Return the array, float16 and bfloat16 as float32.

        Nothing is copied when the file holds float32: the array is a window into the mapped file,
        and the operating system fetches a page when it is first touched. The mapping is private:
        whoever writes into the array (an optimiser) gets an own copy of the pages concerned, and
        the file never changes.
        """
        dtype = np.dtype(_DTYPES[self.dtype])
        count = math.prod(self.shape)
        stored = np.frombuffer(self.file, dtype, count, self.start) if count else np.empty(0, dtype)
        if self.dtype == "BF16":  # the upper half of a float32
            values = stored.astype(np.uint32)
            values = np.left_shift(values, 16, out=values).view(np.float32)
            self._release()
        elif self.dtype == "F16":
            values = stored.astype(np.float32)
            self._release()
        else:
            values = stored if stored.flags.aligned else stored.copy()
        return values.reshape(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.read(), dtype, copy=copy)

    def _release(self) -> None:
        """Give the pages of a converted tensor back, or file and float32 copy would both stay in
        memory.
        """
        stop = self.start + math.prod(self.shape) * np.dtype(_DTYPES[self.dtype]).itemsize
        first, last = -(-self.start // mmap.PAGESIZE), stop // mmap.PAGESIZE  # the pages that are its own
        if first < last and hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def read_safetensors(path: Pathlike) -> dict[str, np.ndarray]:
    """Read all tensors of a safetensors file, memory-mapped: see ``StoredTensor.read``,
    ``open_safetensors``.
    """
    return {name: tensor.read() for name, tensor in open_safetensors(path).items()}


def open_safetensors(path: Pathlike) -> dict[str, StoredTensor]:
    """Read the header of a safetensors file: names, dtypes and shapes, in the order of their bytes.

    Raises ValueError, naming the file, when the header is not as the format says, a dtype is
    unknown, shape and dtype disagree with the number of bytes, or the tensors leave holes, overlap,
    or end elsewhere than the file.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise ValueError(f"{path}: {size} bytes are too few for a safetensors file")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    length = int.from_bytes(mapped[:8], "little")
    if length > min(MOST_HEADER_BYTES, size - 8):
        raise ValueError(
            f"{path}: the header claims {length:,} bytes; at most {MOST_HEADER_BYTES:,} are allowed, and the file "
            f"has {size:,}: it is damaged, cut off, or no safetensors file{_if_pickle(mapped)}"
        )
    header = memoryview(mapped)[8 : 8 + length]
    if header[:1] != b"{":
        raise ValueError(f"{path}: the header is no JSON object: damaged, or no safetensors file{_if_pickle(mapped)}")
    if bytes(header).count(b",") > MOST_HEADER_VALUES:
        raise ValueError(f"{path}: the header lists more than {MOST_HEADER_VALUES:,} values")
    table = parse_json(header, f"{path}: header")
    _check_metadata(table.pop("__metadata__", {}), path)
    spans = sorted((*_checked_span(entry, name, path), name) for name, entry in table.items())
    _check_tiling(spans, size - 8 - length, path)
    return {
        name: StoredTensor(table[name]["dtype"], tuple(table[name]["shape"]), mapped, 8 + length + start)
        for start, _, name in spans
    }


def _if_pickle(data: mmap.mmap) -> str:
    """What to add about a file that torch.save or pickle wrote, by its first bytes."""
    if data[:4] != b"PK\3\4" and data[:1] != b"\x80":
        return ""
    return (
        ". It looks like a pickle, which runs code when it is read, and is read nowhere here: where torch is at hand, "
        'safetensors.torch.save_file(torch.load(path, weights_only=True), "new.safetensors") converts one that you '
        "trust"
    )


def _check_metadata(metadata: Any, path: Pathlike) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"{path}: __metadata__ must be a table of texts")


def _checked_span(entry: Any, name: str, path: Pathlike) -> tuple[int, int]:
    """Check one entry of the header, and return where its bytes begin and end."""
    tensor = f"{path}: tensor {name!r:.200}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{tensor} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{tensor} has dtype {dtype!r:.40}; known are {', '.join(_DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MOST_DIMENSIONS or math.prod(n for n in shape if n) > MOST_BYTES:
        raise ValueError(f"{tensor} has shape {shape!r:.80}; expected a list of sizes")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"{tensor} has data_offsets {offsets!r:.80}; expected [begin, end]")
    begin, end = offsets
    needed = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if end - begin != needed:
        raise ValueError(f"{tensor}, {dtype} {shape}, needs {needed:,} bytes; has {end - begin:,}")
    return begin, end


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value <= MOST_BYTES for value in values)


def _check_tiling(spans: list[tuple[int, int, str]], size: int, path: Pathlike) -> None:
    """Check that the tensors, in the order of their bytes, follow each other from the first byte to
    the last.
    """
    position = 0
    for begin, end, name in spans:
        if begin != position:
            what = "a hole before" if begin > position else "an overlap at"
            raise ValueError(f"{path}: {what} tensor {name!r:.200}: it begins at byte {begin:,}, expected {position:,}")
        position = end
    if position != size:
        raise ValueError(f"{path}: the tensors end at byte {position:,} of the data; the file has {size:,}")


def open_weights(folder: Pathlike) -> dict[str, StoredTensor]:
    """Open the weights of a model folder: ``model.safetensors``, or the shards that its index
    lists.

    Raises FileNotFoundError when there are none, and ValueError when a file is damaged or the index
    and the shards disagree on which tensor is where.
    """
    folder = Path(folder)
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return open_safetensors(single)
    if not index.exists():
        why = about_pickles(folder) or f"neither {single.name} nor {index.name}"
        raise FileNotFoundError(f"{folder}: no weights here: {why}")
    places = read_json(index, limit=10_000_000).get("weight_map")
    if not isinstance(places, dict) or not all(_is_shard_name(place) for place in places.values()):
        raise ValueError(f"{index}: weight_map must say for each tensor which .safetensors file of this folder has it")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted(set(places.values())):
        found = open_safetensors(folder / shard)
        if wrong := sorted(name for name in found if places.get(name) != shard):
            raise ValueError(f"{folder / shard}: holds tensors that the index does not place here: {wrong[:5]}")
        tensors |= found
    if absent := sorted(places.keys() - tensors.keys()):
        raise ValueError(f"{index}: lists tensors that no shard holds: {absent[:5]}")
    return tensors


def _is_shard_name(name: Any) -> bool:
    """Whether this names a safetensors file in the folder itself: ``../x`` would lead out of it."""
    return isinstance(name, str) and re.fullmatch(r"[\w.-]+\.safetensors", name) is not None


# ---- writing -------------------------------------------------------------------------------------


def write_safetensors(
    path: Pathlike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to a safetensors file, and return when the disk has them.

    The widest dtypes come first, then names in order: every tensor lies at a multiple of its item
    size. The metadata is ``{"format": "pt"}`` unless given; without that entry ``transformers``
    refuses a file.
    """
    codes = {np.dtype(dtype): code for code, dtype in _DTYPES.items() if code != "BF16"}
    arrays = {}
    for name, array in tensors.items():
        array = np.asarray(array)
        stored_as = array.dtype.newbyteorder("<")
        if name == "__metadata__" or stored_as not in codes:
            raise ValueError(f"write_safetensors: cannot store {name!r} of dtype {array.dtype}")
        arrays[name] = (array, stored_as)

    header: dict[str, Any] = {"__metadata__": dict({"format": "pt"} if metadata is None else metadata)}
    names = sorted(arrays, key=lambda name: (-arrays[name][1].itemsize, name))
    position = 0
    for name in names:
        array, stored_as = arrays[name]
        span = [position, position + array.nbytes]
        header[name] = {"dtype": codes[stored_as], "shape": list(array.shape), "data_offsets": span}
        position = span[1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)

    with durable_file(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            array, stored_as = arrays[name]
            file.write(np.ascontiguousarray(array, stored_as).reshape(-1).view(np.uint8).data)
