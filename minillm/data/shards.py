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
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

import numpy as np

from ..files import atomic_folder
from ..tokenizer import Tokenizer, read_parts
from .batches import Batch
from .text import END_OF_TEXT

_MAGIC = b"minillm tokens\0\0"
_HEADER = struct.Struct("<16s4I2Q16s")
_VERSION = 1
TOKENS_PER_SHARD = 1 << 28  # 512 MB of uint16
_BLOCK = 1 << 20  # characters that are encoded at a time


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
    itself. The ids are checked as they are read: a look at all of them would read gigabytes before the first step.
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
        """Numbers in the file, as an array that stays on the disk (an empty one cannot be mapped)."""
        return np.memmap(self.path, dtype, "r", offset, (size,)) if size else np.zeros(0, dtype)

    def __len__(self) -> int:
        return len(self.ends)

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids from `start` up to `stop`, or to the end of the shard, which may come before: (<= stop - start,).

        Raises ValueError, naming the file and the position, for an id that is not in the vocabulary.
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
        """The ids of one document, without its end-of-text token. Raises ValueError as `read` does."""
        start = int(self.ends[number - 1]) if number else 0
        return self.read(start, int(self.ends[number]) - 1)


class ShardDataset:
    """Random windows of `context` tokens from the shards of a corpus, for the trainer; the ids stay on the disk.

    A batch is a pure function of (seed, step). Validation rows stand side by side, so that each target counts once;
    where they hold more than `most_validation` tokens, only every n-th row is read, or a large corpus would be
    measured for hours.

    Raises ValueError when no training shard has room for a window, or the validation shards hold no target.
    """

    def __init__(
        self,
        train: Sequence[Shard],
        validation: Sequence[Shard],
        context: int,
        most_validation: int | None = None,
    ) -> None:
        self.context = context
        self._train = [shard for shard in train if len(shard.tokens) > context]
        self._validation = [shard for shard in validation if len(shard.tokens) > 1]
        if not self._train:
            raise ValueError(f"ShardDataset: no training shard is longer than one context of {context} tokens")
        if not self._validation:
            raise ValueError("ShardDataset: the validation shards must hold at least 2 tokens")
        self.tokens_per_epoch = sum(len(shard.tokens) - 1 for shard in self._train)
        # how many windows begin in this shard or one before it
        self._windows = np.cumsum([len(shard.tokens) - context for shard in self._train])
        targets = np.array([len(shard.tokens) - 1 for shard in self._validation])
        rows = np.cumsum(-(-targets // context))  # how many rows begin in this shard or one before it
        every = 1 if most_validation is None else -(-int(rows[-1]) * context // most_validation)
        chosen = np.arange(0, rows[-1], every)
        self._shards = np.searchsorted(rows, chosen, side="right")  # (R,) where each validation row comes from ...
        self._starts = (chosen - np.concatenate([[0], rows])[self._shards]) * context  # ... and begins there
        self.validation_tokens = int(np.minimum(context, targets[self._shards] - self._starts).sum())

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return `batch_size` windows, drawn anew for each (seed, step): x and y, (B, T) int64.

        Raises ValueError for an id that is not in the vocabulary.
        """
        drawn = np.random.default_rng((seed, step)).integers(0, self._windows[-1], size=batch_size)
        shards = np.searchsorted(self._windows, drawn, side="right")
        starts = drawn - np.concatenate([[0], self._windows])[shards]
        rows = [self._train[s].read(at, at + self.context + 1) for s, at in zip(shards, starts, strict=True)]
        windows = np.stack(rows).astype(np.int64)  # (B, T + 1)
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield each validation target exactly once; rows that are too short are filled up with targets of -100.

        Raises ValueError for an id that is not in the vocabulary.
        """
        for first in range(0, len(self._starts), batch_size):
            starts = self._starts[first : first + batch_size]
            rows = np.full((len(starts), self.context + 1), -100, np.int64)  # (B, T + 1)
            for row, shard, start in zip(rows, self._shards[first : first + batch_size], starts, strict=True):
                ids = self._validation[shard].read(start, start + self.context + 1)
                row[: len(ids)] = ids
            yield np.maximum(rows[:, :-1], 0), np.ascontiguousarray(rows[:, 1:])


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


def holds_shards(path: str | Path) -> bool:
    """Whether `path` is a folder with shards in it."""
    return Path(path).is_dir() and any(Path(path).glob("*.tokens"))


def encode_files(
    files: Sequence[str | Path],
    folder: str | Path,
    tokenizer: Tokenizer,
    validation: float = 0.1,
    tokens_per_shard: int = TOKENS_PER_SHARD,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Encode UTF-8 files into the shards of a new corpus folder, as streams; returns the tokens of both parts.

    Which text is held out for validation, see `corpus_parts`. `progress(n)` is told how many bytes were read.

    Raises FileExistsError when the folder exists, ValueError when a file is not UTF-8, when there is no text, or when
    `validation` is not in (0, 0.5].
    """
    with atomic_folder(folder) as staging:
        with (
            ShardWriter(staging, "train", tokenizer, tokens_per_shard) as train,
            ShardWriter(staging, "validation", tokenizer, tokens_per_shard) as held_out,
        ):
            parts = corpus_parts(files, validation, whole=not tokenizer.cuts_at_spaces, progress=progress)
            for block in _blocks(parts):
                ids, stops = tokenizer.encode_array([part.text for part in block], add_special_tokens=False)
                for part, start, stop in zip(block, [0, *stops.tolist()], stops.tolist(), strict=False):
                    (held_out if part.held_out else train).add(ids[start:stop], part.ends)
        tokenizer.save(staging)
    return train.tokens, held_out.tokens


class Part(NamedTuple):
    """A document or a part of one: its text, whether it is held out for validation, whether the document ends here."""

    text: str
    held_out: bool
    ends: bool


def corpus_parts(
    files: Sequence[str | Path],
    validation: float = 0.1,
    whole: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Part]:
    """The documents of UTF-8 files in parts, read as streams, each part for training or held out for validation.

    A file is one document, or one per part between `<|endoftext|>` markers; white space around a document is left out.
    Every n-th document is held out, n = 1 / validation; of fewer documents the last; of a single one its end.
    whole: hold a document until it is complete. `progress(n)` is told how many bytes were read.

    Raises ValueError when a file is not UTF-8, when there is no text, or when `validation` is not in (0, 0.5].
    """
    if not 0.0 < validation <= 0.5:
        raise ValueError(f"corpus_parts: validation must be above 0 and at most 0.5; got {validation}")
    every, length = _count(files, enough=round(1 / validation))
    number, done = 1, 0  # of this document; characters before this part
    for text, ends in _documents(files, whole, progress):
        if every > 1:
            yield Part(text, number % every == 0, ends)
            number += ends
            continue
        cut = int(length * (1.0 - validation)) - done  # where the training text ends
        if 0 < cut <= len(text):
            yield Part(text[:cut], False, True)
        if cut < len(text):
            yield Part(text[max(cut, 0) :], True, ends)
        if cut > len(text):
            yield Part(text, False, False)
        done += len(text)


def _count(files: Sequence[str | Path], enough: int) -> tuple[int, int]:
    """How many documents there are, and how many characters in them; counted until there are enough."""
    documents = length = 0
    for text, ends in _documents(files):
        documents += ends
        length += len(text)
        if documents == enough:
            break
    if not documents:
        raise ValueError(f"corpus_parts: no text in {', '.join(map(str, files))}, only white space or nothing at all")
    if length < 2:
        raise ValueError("corpus_parts: a text of 1 character is too short to hold a part of it out")
    return documents, length


def _documents(
    files: Iterable[str | Path], whole: bool = False, progress: Callable[[int], None] | None = None
) -> Iterator[tuple[str, bool]]:
    """The documents of the files in parts: (text, whether it ends a document)."""
    for file in files:
        held, begun = "", False  # the open document, as far as it was not yielded; whether some of it was
        for part in read_parts(file, progress=progress):
            more, *others = part.split(END_OF_TEXT)
            if held.strip() and more.strip() and not whole:  # the white space between them is inside the document
                yield (held if begun else held.lstrip()), False
                held, begun = more, True
            else:
                held += more
            for text in others:
                if held.strip():
                    yield (held.rstrip() if begun else held.strip()), True
                held, begun = text, False
        if held.strip():
            yield (held.rstrip() if begun else held.strip()), True


def _blocks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Parts in lists of about `_BLOCK` characters, which are encoded together: a document may be a line."""
    block: list[Part] = []
    size = 0
    for part in parts:
        block.append(part)
        size += len(part.text)
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _hash(tokenizer: Tokenizer) -> bytes:
    return bytes.fromhex(tokenizer.fingerprint())[:16]
