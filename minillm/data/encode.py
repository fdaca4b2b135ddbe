"""From text files of any size to shards: read as streams, split, encoded, written."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..files import atomic_folder
from ..tokenizer import Tokenizer, read_parts
from .shards import TOKENS_PER_SHARD, ShardWriter
from .split import cut_at, held_out
from .text import END_OF_TEXT

_BLOCK = 1 << 20  # characters that are encoded at a time


def encode_files(
    files: Sequence[str | Path],
    folder: str | Path,
    tokenizer: Tokenizer,
    validation: float = 0.1,
    tokens_per_shard: int = TOKENS_PER_SHARD,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Encode UTF-8 files into the shards of a new corpus folder, as streams; returns the tokens of
    both parts.

    Which text is held out for validation, see `corpus_parts`. `progress(n)` is told how many bytes
    were read.

    Raises FileExistsError when the folder exists, ValueError when a file is not UTF-8, when there
    is no text, or when `validation` is not in (0, 0.5].
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
    """A document or a part of one: its text, whether it is held out for validation, whether the
    document ends here.
    """

    text: str
    held_out: bool
    ends: bool


def corpus_parts(
    files: Sequence[str | Path],
    validation: float = 0.1,
    whole: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Part]:
    """The documents of UTF-8 files in parts, read as streams, each part for training or held out
    for validation.

    A file is one document, or one per part between `<|endoftext|>` markers; white space around a
    document is left out. Which are held out, or cut: see `split.held_out`. The files are read
    twice, for the lengths of the documents must be known first. whole: hold a document until it is
    complete. `progress(n)` is told how many bytes were read.

    Raises ValueError when a file is not UTF-8, when there is no text, or when `validation` is not
    in (0, 0.5].
    """
    if not 0.0 < validation <= 0.5:
        raise ValueError(f"corpus_parts: validation must be above 0 and at most 0.5; got {validation}")
    lengths = _lengths(files)
    chosen = held_out(lengths, validation)
    number, done = 0, 0  # of this document; characters before this part
    for text, ends in _documents(files, whole, progress):
        share = chosen.get(number, 0.0)
        cut = (0 if share == 1.0 else cut_at(lengths[number], share)) - done  # where the training text ends
        if cut <= 0:
            yield Part(text, True, ends)
        elif cut >= len(text):
            yield Part(text, False, ends or cut == len(text))
        else:
            yield Part(text[:cut], False, True)
            yield Part(text[cut:], True, ends)
        number, done = (number + 1, 0) if ends else (number, done + len(text))


def _lengths(files: Sequence[str | Path]) -> array[int]:
    """The characters of each document."""
    lengths, length = array("q"), 0
    for text, ends in _documents(files):
        length += len(text)
        if ends:
            lengths.append(length)
            length = 0
    if not lengths:
        raise ValueError(f"corpus_parts: no text in {', '.join(map(str, files))}, only white space or nothing at all")
    if len(lengths) == 1 and lengths[0] < 2:
        raise ValueError("corpus_parts: a text of 1 character is too short to hold a part of it out")
    return lengths


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
    """Parts in lists of about `_BLOCK` characters, which are encoded together: a document may be a
    line.
    """
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
