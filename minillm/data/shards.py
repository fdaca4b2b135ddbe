r"""Token ids on the disk: a corpus is encoded once, and read by memory map, however large it is.

A shard is one file, little-endian::

    64 bytes   b"minillm tokens\0\0", then uint32: version 1, bytes per token (2 or 4), id of the end-of-text token,
               zero; uint64: tokens, documents; then the first 16 bytes of the tokenizer's fingerprint
    tokens     uint16 where the vocabulary fits, else uint32; after each document the end-of-text token
    padding    to a multiple of 8 bytes
    documents  uint64 each: where the document ends, past its end-of-text token

A corpus is a folder with shards `train-00000.tokens` ... and `validation-00000.tokens` ..., which appears whole or not
at all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from ..files import atomic_folder
from ..tokenizer import Tokenizer, read_parts
from .batches import Batch
from .text import END_OF_TEXT

_MAGIC = b"minillm tokens\0\0"
_HEADER = struct.Struct("<16s4I2Q16s")
_VERSION = 1
TOKENS_PER_SHARD = 1 << 28  # 512 MB of uint16


class ShardWriter:
    """Writes the shards of one part of a corpus, a new file when one is full; use it in a `with` block.

    folder, name: the files are `folder/name-00000.tokens` and so on. Documents go in as parts of ids, so that a long
    one is never held as a whole.

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

    Raises ValueError, naming the file, when it is no shard, is cut short, was made by another tokenizer, or contradicts
    itself.
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
        self.tokens = self._map(f"<u{itemsize}", _HEADER.size, size)
        self.ends = self._map("<u8", table, documents)
        if documents and (self.ends[-1] > size or (np.diff(self.ends.astype(np.int64), prepend=0) < 1).any()):
            raise ValueError(f"Shard: {path}: the ends of its documents do not ascend to at most {size} tokens")

    def _map(self, dtype: str, offset: int, size: int) -> np.ndarray:
        """Numbers in the file, as an array that stays on the disk (an empty one cannot be mapped)."""
        return np.memmap(self.path, dtype, "r", offset, (size,)) if size else np.zeros(0, dtype)

    def __len__(self) -> int:
        return len(self.ends)

    def document(self, number: int) -> np.ndarray:
        """The ids of one document, without its end-of-text token."""
        start = int(self.ends[number - 1]) if number else 0
        return self.tokens[start : int(self.ends[number]) - 1]


class ShardDataset:
    """Random windows of `context` tokens from the shards of a corpus, for the trainer; the ids stay on the disk.

    A batch is a pure function of (seed, step). Validation rows stand side by side, so that each target counts once.

    Raises ValueError when no training shard has room for a window, or the validation shards hold no target.
    """

    def __init__(self, train: Sequence[Shard], validation: Sequence[Shard], context: int) -> None:
        self.context = context
        self._train = [shard.tokens for shard in train if len(shard.tokens) > context]
        self._validation = [shard.tokens for shard in validation if len(shard.tokens) > 1]
        if not self._train:
            raise ValueError(f"ShardDataset: no training shard is longer than one context of {context} tokens")
        if not self._validation:
            raise ValueError("ShardDataset: the validation shards must hold at least 2 tokens")
        self.tokens_per_epoch = sum(len(tokens) - 1 for tokens in self._train)
        self.validation_tokens = sum(len(tokens) - 1 for tokens in self._validation)
        # how many windows begin in this shard or one before it
        self._windows = np.cumsum([len(tokens) - context for tokens in self._train])

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return `batch_size` windows, drawn anew for each (seed, step): x and y, (B, T) int64."""
        drawn = np.random.default_rng((seed, step)).integers(0, self._windows[-1], size=batch_size)
        shards = np.searchsorted(self._windows, drawn, side="right")
        starts = drawn - np.concatenate([[0], self._windows])[shards]
        rows = [self._train[s][at : at + self.context + 1] for s, at in zip(shards, starts, strict=True)]
        windows = np.stack(rows).astype(np.int64)  # (B, T + 1)
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield every validation target exactly once; the last rows are filled up with targets of -100."""
        rows: list[np.ndarray] = []
        for tokens in self._validation:
            for start in range(0, len(tokens) - 1, self.context):
                row = np.full(self.context + 1, -100, np.int64)
                window = tokens[start : start + self.context + 1]
                row[: len(window)] = window
                rows.append(row)
                if len(rows) == batch_size:
                    yield _pair(rows)
                    rows = []
        if rows:
            yield _pair(rows)


def open_shards(folder: str | Path, name: str, tokenizer: Tokenizer) -> list[Shard]:
    """The shards of one part of a corpus, "train" or "validation", in order.

    Raises FileNotFoundError when there are none, ValueError when one is damaged, missing in the row or was made by
    another tokenizer.
    """
    files = sorted(Path(folder).glob(f"{name}-*.tokens"))
    if not files:
        raise FileNotFoundError(f"open_shards: no {name}-*.tokens in {folder}")
    expected = [f"{name}-{i:05d}.tokens" for i in range(len(files))]
    if [file.name for file in files] != expected:
        missing = next(want for want, file in zip(expected, files, strict=True) if file.name != want)
        raise ValueError(f"open_shards: {missing} is missing in {folder}")
    return [Shard(file, tokenizer) for file in files]


def encode_files(
    files: Iterable[str | Path],
    folder: str | Path,
    tokenizer: Tokenizer,
    validation: float = 0.1,
    tokens_per_shard: int = TOKENS_PER_SHARD,
) -> tuple[int, int]:
    """Encode UTF-8 files into the shards of a new corpus folder, as streams; returns the tokens of both parts.

    A file is one document, or one per part between `<|endoftext|>` markers; white space around a document is left out.
    Every n-th document, n = 1 / validation, goes to the validation part.

    Raises FileExistsError when the folder exists, ValueError when a file is not UTF-8 or `validation` not in (0, 1).
    """
    if not 0.0 < validation < 1.0:
        raise ValueError(f"encode_files: validation must be between 0 and 1, both excluded; got {validation}")
    with atomic_folder(folder) as staging:
        with (
            ShardWriter(staging, "train", tokenizer, tokens_per_shard) as train,
            ShardWriter(staging, "validation", tokenizer, tokens_per_shard) as held_out,
        ):
            started, writer = 0, train
            for text, begins, ends in _documents(files, whole=not tokenizer.cuts_at_spaces):
                if begins:
                    started += 1
                    writer = held_out if int(started * validation) > int((started - 1) * validation) else train
                ids, _ = tokenizer.encode_array([text], add_special_tokens=False)
                writer.add(ids, ends)
        tokenizer.save(staging)
    return train.tokens, held_out.tokens


def _documents(files: Iterable[str | Path], whole: bool) -> Iterator[tuple[str, bool, bool]]:
    """The documents of the files in parts: (text, whether it begins a document, whether it ends it).

    whole: hold a document until it is complete.
    """
    for file in files:
        held, begun = "", False  # text that may be the end of the document, or white space before it
        for part in read_parts(file):
            *complete, held = (held + part).split(END_OF_TEXT)
            for text in complete:
                if text.strip() or begun:
                    yield (text.rstrip() if begun else text.strip()), not begun, True
                begun = False
            cut = 0 if whole else len(held.rstrip())
            if cut and held.strip():
                yield (held[:cut] if begun else held[:cut].lstrip()), not begun, False
                held, begun = held[cut:], True
        if held.strip() or begun:
            yield (held.rstrip() if begun else held.strip()), not begun, True


def _hash(tokenizer: Tokenizer) -> bytes:
    return bytes.fromhex(tokenizer.fingerprint())[:16]


def _pair(rows: Sequence[np.ndarray]) -> Batch:
    """Rows (B, T + 1), filled up with -100 -> x, where 0 fills up, and y."""
    windows = np.stack(rows)
    return np.maximum(windows[:, :-1], 0), np.ascontiguousarray(windows[:, 1:])
