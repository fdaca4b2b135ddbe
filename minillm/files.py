"""Files that can be trusted: safetensors, JSON, and folders that appear whole or not at all.

**Reading.** A file may come from a stranger. Whatever it holds, the answer is the right arrays or a ``ValueError`` that
names the file and says what is wrong; it comes quickly, and costs little memory. Pickle, which runs the code that it
finds, is read nowhere.

**Writing.** A computer may stop at any moment: a crash, a full disk, a power cut. Bytes that were "written" may still
wait in memory, and be lost; ``fsync`` waits until the disk has them. So a folder is made under another name, every file
in it fsynced, and then renamed: a rename happens wholly or not at all, and is the moment when the folder begins to be.

A safetensors file (https://huggingface.co/docs/safetensors) is a table of contents and then raw numbers::

    8 bytes    n, the length of the header (unsigned, little-endian)
    n bytes    JSON: {"__metadata__": {"format": "pt"},
                      "wte.weight": {"dtype": "F32", "shape": [65, 8], "data_offsets": [0, 2080]}, ...}
    the rest   the tensors' bytes, in C order, one after the other without a gap
"""

from __future__ import annotations

import contextlib
import filecmp
import json
import math
import mmap
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

__all__ = [
    "StoredTensor",
    "atomic_folder",
    "atomic_update",
    "open_safetensors",
    "open_weights",
    "parse_json",
    "read_json",
    "read_safetensors",
    "read_text",
    "remove_folder",
    "remove_stale",
    "write_json",
    "write_safetensors",
    "write_text",
]

Pathlike = str | os.PathLike[str]

# ---- JSON ------------------------------------------------------------------------------------------------------------


def read_json(path: Pathlike, limit: int = 1_000_000) -> dict[str, Any]:
    """Read a JSON object from a file of at most ``limit`` bytes, strictly.

    Raises ValueError when the file is too large, no UTF-8, no JSON, no object, nested beyond reason, or when it has a
    key twice, NaN or infinity: things on which readers differ.
    """
    return parse_json(_read_limited(path, limit), str(path))


def read_text(path: Pathlike, limit: int = 1_000_000) -> str:
    """Read a UTF-8 text of at most ``limit`` bytes. Raises ValueError, naming the file, when it is something else."""
    try:
        return str(_read_limited(path, limit), "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None


def _read_limited(path: Pathlike, limit: int) -> bytes:
    with _open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise ValueError(f"{path}: larger than the {limit:,} bytes that are plausible here")
        return file.read()


def parse_json(data: bytes | memoryview, source: str) -> dict[str, Any]:
    """Parse one JSON object as ``read_json`` does; ``source`` is its name in messages."""
    try:
        value = json.loads(
            str(data, "utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
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


# ---- reading safetensors ---------------------------------------------------------------------------------------------

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

    NumPy takes it for an array (``np.asarray(tensor)``), and so does whatever asks for a ``.shape`` first.
    """

    dtype: str  # in the file's words: "F32", "BF16" ...
    shape: tuple[int, ...]
    file: mmap.mmap
    start: int  # position of the first byte in the file

    def read(self) -> np.ndarray:
        """Return the array, float16 and bfloat16 as float32.

        Nothing is copied when the file holds float32: the array is a window into the mapped file, and the operating
        system fetches a page when it is first touched. The mapping is private: whoever writes into the array (an
        optimiser) gets an own copy of the pages concerned, and the file never changes.
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
        """Give the pages of a converted tensor back, or file and float32 copy would both stay in memory."""
        stop = self.start + math.prod(self.shape) * np.dtype(_DTYPES[self.dtype]).itemsize
        first, last = -(-self.start // mmap.PAGESIZE), stop // mmap.PAGESIZE  # the pages that are its own
        if first < last and hasattr(mmap, "MADV_DONTNEED"):
            self.file.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (last - first) * mmap.PAGESIZE)


def read_safetensors(path: Pathlike) -> dict[str, np.ndarray]:
    """Read all tensors of a safetensors file, memory-mapped: see ``StoredTensor.read``, ``open_safetensors``."""
    return {name: tensor.read() for name, tensor in open_safetensors(path).items()}


def open_safetensors(path: Pathlike) -> dict[str, StoredTensor]:
    """Read the header of a safetensors file: names, dtypes and shapes, in the order of their bytes.

    Raises ValueError, naming the file, when the header is not as the format says, a dtype is unknown, shape and dtype
    disagree with the number of bytes, or the tensors leave holes, overlap, or end elsewhere than the file.
    """
    with _open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise ValueError(f"{path}: {size} bytes are too few for a safetensors file")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    length = int.from_bytes(mapped[:8], "little")
    if length > min(MOST_HEADER_BYTES, size - 8):
        raise ValueError(
            f"{path}: the header claims {length:,} bytes; at most {MOST_HEADER_BYTES:,} are allowed, and the file "
            f"has {size:,}: it is damaged, cut off, or no safetensors file"
        )
    header = memoryview(mapped)[8 : 8 + length]
    if header[:1] != b"{":
        raise ValueError(f"{path}: the header is no JSON object: damaged, or no safetensors file")
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
    """Check that the tensors, in the order of their bytes, follow each other from the first byte to the last."""
    position = 0
    for begin, end, name in spans:
        if begin != position:
            what = "a hole before" if begin > position else "an overlap at"
            raise ValueError(f"{path}: {what} tensor {name!r:.200}: it begins at byte {begin:,}, expected {position:,}")
        position = end
    if position != size:
        raise ValueError(f"{path}: the tensors end at byte {position:,} of the data; the file has {size:,}")


def open_weights(folder: Pathlike) -> dict[str, StoredTensor]:
    """Open the weights of a model folder: ``model.safetensors``, or the shards that its index lists.

    Raises FileNotFoundError when there are none, and ValueError when a file is damaged or the index and the shards
    disagree on which tensor is where.
    """
    folder = Path(folder)
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return open_safetensors(single)
    if not index.exists():
        raise FileNotFoundError(f"{folder}: no weights here: neither {single.name} nor {index.name}")
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


def _open_regular(path: Pathlike) -> BinaryIO:
    """Open a file to read. A pipe or a device, which may never end, is refused."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError(f"{path}: not a regular file")
    return open(path, "rb")


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_safetensors(
    path: Pathlike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays to a safetensors file, and return when the disk has them.

    The widest dtypes come first, then names in order: every tensor lies at a multiple of its item size. The metadata is
    ``{"format": "pt"}`` unless given; without that entry ``transformers`` refuses a file.
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

    with _durable_file(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            array, stored_as = arrays[name]
            file.write(np.ascontiguousarray(array, stored_as).reshape(-1).view(np.uint8).data)


def write_json(path: Pathlike, value: Mapping[str, Any]) -> None:
    """Write a JSON object, indented, durably. Raises ValueError when it holds NaN or infinity, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Pathlike, text: str) -> None:
    """Write a UTF-8 text, and return when the disk has it."""
    with _durable_file(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def _durable_file(path: Pathlike) -> Iterator[BinaryIO]:
    with open(path, "wb") as file:
        yield file
        file.flush()  # from Python to the operating system
        os.fsync(file.fileno())  # from there to the disk


# ---- folders, whole or not at all ------------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_folder(path: Pathlike) -> Iterator[Path]:
    """Make a folder that appears whole or not at all; yields the folder to write into, which has another name.

    When the block ends, everything in it is fsynced and the folder gets its name. When the block raises, nothing is
    left. When the process dies, its half-written folder stays under the other name, which no reader looks at, until
    somebody writes to the same path again. Raises FileExistsError when ``path`` exists.

    >>> with atomic_folder("run/final") as folder:                                      # doctest: +SKIP
    ...     write_json(folder / "config.json", {"n_layer": 2})
    """
    path = Path(path)
    _refuse_existing(path)
    _make_parents(path)
    with _staging_folder(path.parent, path.name) as staging:
        yield staging
        _sync_tree(staging)
        _refuse_existing(path)  # os.rename would replace an empty folder
        os.rename(staging, path)  # the commit point
        _sync_folder(path.parent)


@contextlib.contextmanager
def atomic_update(folder: Path, commit: str) -> Iterator[Path]:
    """Put files into a folder that exists, replacing those of the same name; yields a folder to write them into.

    When one file differs from what is there, its rename is the commit point, and a reader finds the old one or the new
    one. But several renames cannot be one: then the file ``commit``, with which a reader must begin, is taken away
    first and comes back last. Whoever opens the folder, after a crash too, finds the old files, the new ones, or no
    file ``commit``, and never a mixture.
    """
    with _staging_folder(folder, folder.name) as staging:
        yield staging
        _sync_tree(staging)
        changed = {item.name for item in staging.iterdir() if not _same_file(item, folder / item.name)}
        if len(changed) > 1:
            # subtle: these reach the disk in any order, unless we wait between them
            (folder / commit).unlink(missing_ok=True)
            _sync_folder(folder)
            for name in sorted(changed - {commit}):
                os.rename(staging / name, folder / name)
            _sync_folder(folder)
            changed = {commit}
        for name in changed:
            os.rename(staging / name, folder / name)  # the commit point
        _sync_folder(folder)


def _same_file(a: Path, b: Path) -> bool:
    return b.is_file() and filecmp.cmp(a, b, shallow=False)


def remove_stale(parent: Path, stem: str | None = None) -> None:
    """Remove the half-written folders that dead processes left in ``parent``: those of the name ``stem``, or all."""
    for item in parent.iterdir():
        match = _STAGING_NAME.fullmatch(item.name)
        if match and stem in (None, match["stem"]) and item.name not in _ours and not _is_alive(int(match["pid"])):
            shutil.rmtree(item, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder. It loses its name first, so that a crash leaves no half of it where a reader would look."""
    doomed = _staging_name(path.parent, path.name)
    os.rename(path, doomed)
    shutil.rmtree(doomed)


_STAGING_NAME = re.compile(r"(?P<stem>.+)\.tmp-(?P<pid>[0-9]{1,9})-[0-9a-f]{8}")
_ours: set[str] = set()  # names of the staging folders that this process is writing


def _staging_name(parent: Path, stem: str) -> Path:
    return parent / f"{stem}.tmp-{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def _staging_folder(parent: Path, stem: str) -> Iterator[Path]:
    remove_stale(parent, stem)
    staging = _staging_name(parent, stem)
    _ours.add(staging.name)
    try:
        staging.mkdir()
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # by then renamed, or empty, or a failure's
        _ours.discard(staging.name)


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # a process of the past had our number, as is usual in containers; what is ours is in _ours
    if os.name != "posix":
        return True  # elsewhere os.kill is no question
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path}: exists already")


def _make_parents(path: Path) -> None:
    """Make the folders above ``path``, each durably entered in the folder above it."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        _sync_folder(parent.parent)


def _sync_tree(root: Path) -> None:
    """Fsync every file and folder under ``root``, whoever wrote it."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            with open(Path(folder, name), "rb") as file:
                os.fsync(file.fileno())
        _sync_folder(Path(folder))


def _sync_folder(folder: Path) -> None:
    """Fsync a folder: the names in it, as opposed to what the files hold."""
    if os.name != "posix":
        return  # Windows cannot
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
