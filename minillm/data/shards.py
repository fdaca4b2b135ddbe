r"""Token ids on the disk: a corpus is encoded once, and read by memory map, however large it is.

A shard is one file, little-endian::

    64 bytes   b"minillm tokens\0\0", then uint32: version 1, bytes per token (2 or 4), id of the
    end-of-text token,
               zero; uint64: tokens, documents; then the first 16 bytes of the tokenizer's
               fingerprint
    tokens     uint16 where the vocabulary fits, else uint32; after each document the end-of-text token
    padding    to a multiple of 8 bytes
    documents  uint64 each: where the document ends, past its end-of-text token

A corpus is a folder with shards `train-00000.tokens` ... and `validation-00000.tokens` ..., which
appears whole or not at all (see encode.py).
"""  # noqa: W505

from __future__ import annotations

import struct
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from ..tokenizer import Tokenizer

_MAGIC = b"minillm tokens\0\0"
_HEADER = struct.Struct("<16s4I2Q16s")
_VERSION = 1
TOKENS_PER_SHARD = 1 << 28  # 512 MB of uint16


class ShardWriter:
    """Writes the shards of one part of a corpus, a new file when one is full; use it in a `with`
    block.

    folder, name: the files are `folder/name-00000.tokens` and so on. Documents go in as parts of
    ids, so that a long one is never held as a whole.

    Raises ValueError when the tokenizer has no end-of-text token.
    """

    def __init__(
        self, folder: str | Path, name: str, tokenizer: Tokenizer, tokens_per_shard: int = TOKENS_PER_SHARD
    ) -> None:
        if tokenizer.eos_id is None:
            raise ValueError("ShardWriter: the tokenizer has no end-of-text token to put between documents")
        self.folder, self.name, self.tokens_per_shard = Path(folder), name, tokens_per_shard
        self.tokens = self.documents = 0  # in all files
        self._eos = tokenizer.eos_id
        self._hash = _hash(tokenizer)
        self._dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
        self._file: BinaryIO | None = None
        self._files = 0
        self._ends: list[int] = []
        self._size = 0  # tokens in this file

    def add(self, ids: np.ndarray, end: bool = True) -> None:
        """Add ids (N,) to the present document, and end it unless `end` is False."""
        if self._file is None:
            path = self.folder / f"{self.name}-{self._files:05d}.tokens"
            self._file = open(path, "xb")  # noqa: SIM115 - closed when the shard is full
            self._file.write(bytes(_HEADER.size))
            self._files += 1
            self._ends, self._size = [], 0
        row = np.append(ids, self._eos) if end else ids
        self._file.write(np.asarray(row).astype(self._dtype).tobytes())
        self._size += len(row)
        self.tokens += len(row)
        if end:
            self._ends.append(self._size)
            self.documents += 1
            if self._size >= self.tokens_per_shard:
                self._finish()

    def _finish(self) -> None:
        if self._file is None:
            return
        self._file.write(bytes(-self._size * self._dtype.itemsize % 8))
        self._file.write(np.array(self._ends, "<u8").tobytes())
        self._file.seek(0)
        head = (_VERSION, self._dtype.itemsize, self._eos, 0, self._size, len(self._ends))
        self._file.write(_HEADER.pack(_MAGIC, *head, self._hash))
        self._file.close()
        self._file = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        elif self._file is not None:
            self._file.close()


class Shard:
    """One file of token ids, on the disk: `tokens` is a memory map, (N,) uint16 or uint32.

    Raises ValueError, naming the file, when it is no shard, is cut short, was made by another
    tokenizer, or contradicts itself. The ids are checked as they are read: a look at all of them
    would read gigabytes before the first step.
    """

    def __init__(self, path: str | Path, tokenizer: Tokenizer) -> None:
        self.path = Path(path)
        with open(self.path, "rb") as file:
            head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise ValueError(f"Shard: {path} is no shard of minillm")
        _, version, itemsize, self.eos_id, _, size, documents, fingerprint = _HEADER.unpack(head)
        if version != _VERSION or itemsize not in (2, 4):
            raise ValueError(f"Shard: {path} has version {version}, {itemsize} bytes a token; expected 1 with 2 or 4")
        table = _HEADER.size + -(-size * itemsize // 8) * 8
        expected, found = table + 8 * documents, self.path.stat().st_size
        if found != expected:
            raise ValueError(f"Shard: {path} must have {expected} bytes; it has {found}: it was cut short or added to")
        if fingerprint != _hash(tokenizer):
            raise ValueError(
                f"Shard: {path} was encoded by another tokenizer: its hash is {fingerprint.hex()}, "
                f"this one's {_hash(tokenizer).hex()}"
            )
        self.vocab_size = tokenizer.vocab_size
        self.tokens = self._map(f"<u{itemsize}", _HEADER.size, size)
        self.ends = self._map("<u8", table, documents)
        if documents and (self.ends[-1] > size or (np.diff(self.ends.astype(np.int64), prepend=0) < 1).any()):
            raise ValueError(f"Shard: {path}: the ends of its documents do not ascend to at most {size} tokens")

    def _map(self, dtype: str, offset: int, size: int) -> np.ndarray:
        """Numbers in the file, as an array that stays on the disk (an empty one cannot be mapped).
        """
        return np.memmap(self.path, dtype, "r", offset, (size,)) if size else np.zeros(0, dtype)

    def __len__(self) -> int:
        return len(self.ends)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids from `start` up to `stop`, or to the end of the shard, which may come before: (<=
        stop - start,).

        Raises ValueError, naming the file and the position, for an id that is not in the
        vocabulary.
        """
        ids = self.tokens[start:stop]
        if len(ids) and ids.max() >= self.vocab_size:
            at = int(np.argmax(ids >= self.vocab_size))
            raise ValueError(
                f"Shard: {self.path} is damaged: ids must be in [0, {self.vocab_size}); "
                f"got {ids[at]} at token {start + at}"
            )
        return ids

    def document(self, number: int) -> np.ndarray:
        """The ids of one document, without its end-of-text token. Raises ValueError as `read` does.
        """
        start = int(self.ends[number - 1]) if number else 0
        return self.read(start, int(self.ends[number]) - 1)


def open_shards(folder: str | Path, name: str, tokenizer: Tokenizer) -> list[Shard]:
    """The shards of one part of a corpus, "train" or "validation", in order.

    Raises FileNotFoundError when there are none, ValueError when one is damaged, missing in the row
    or was made by another tokenizer.
    """
    files = sorted(Path(folder).glob(f"{name}-*.tokens"))
    if not files:
        raise FileNotFoundError(f"open_shards: no {name}-*.tokens in {folder}")
    expected = [f"{name}-{i:05d}.tokens" for i in range(len(files))]
    if [file.name for file in files] != expected:
        missing = next(want for want, file in zip(expected, files, strict=True) if file.name != want)
        raise ValueError(f"open_shards: {missing} is missing in {folder}")
    return [Shard(file, tokenizer) for file in files]


def holds_shards(path: str | Path) -> bool:
    """Whether `path` is a folder with shards in it."""
    return Path(path).is_dir() and any(Path(path).glob("*.tokens"))


def _hash(tokenizer: Tokenizer) -> bytes:
    return bytes.fromhex(tokenizer.fingerprint())[:16]
