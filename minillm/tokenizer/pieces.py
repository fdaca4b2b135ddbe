"""Pieces in arrays: cutting many texts at once, and counting the distinct pieces of a text of any
size.

Pieces lie one after the other: `data`, (N,) uint8, holds their UTF-8, and `ends`, (P,) int64, where
each ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ..kernels import compiled
from .base import replace_surrogates
from .patterns import Splitter
from .specials import stretches

SHARE = 1 << 18  # characters that are worked on at a time: while training, and by each thread while encoding
_PENDING = 1 << 20  # bytes of counted pieces that may wait, at least, before they are put together

Counted = tuple[np.ndarray, np.ndarray, np.ndarray]  # data, ends, and (P,) int64: how often each piece occurs


@compiled("text.count")
def unique_pieces(data: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> Counted:
    """Keep each distinct piece once, in the order of first appearance, and add up its counts."""
    text, start = data.tobytes(), 0
    totals: Counter[bytes] = Counter()
    for end, count in zip(ends.tolist(), counts.tolist(), strict=True):
        totals[text[start:end]] += count
        start = end
    kept = np.frombuffer(b"".join(totals), np.uint8)
    return kept, np.cumsum([len(piece) for piece in totals], dtype=np.int64), np.array([*totals.values()], np.int64)


def cut(texts: Sequence[str], splitter: Splitter) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut texts into pieces; returns data, ends, and (D,) int64: how many pieces there are up to
    each text's end.
    """
    text = texts[0] if len(texts) == 1 else "".join(texts)
    stops = np.cumsum([len(text) for text in texts], dtype=np.int64)
    ends = splitter.ends(text, stops)
    data = np.frombuffer(text.encode("utf-8"), np.uint8)
    pieces = np.searchsorted(ends, stops, side="right")
    return data, ends if text.isascii() else byte_positions(text)[ends], pieces


def byte_positions(text: str) -> np.ndarray:
    """Where each character begins in the UTF-8 of the text, and the end: (len(text) + 1,) int64."""
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    widths = 1 + (points >= 0x80).astype(np.int8) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(widths, dtype=np.int64)])


def count_pieces(
    texts: Iterable[str], splitter: Splitter, special_tokens: Sequence[str], prepare: Callable[[str], str], caller: str
) -> Counted:
    """The distinct pieces of the texts and their counts, in a memory that grows with those alone.

    prepare: what is done with every stretch of text between special tokens before it is cut.
    """
    counted: Counted = (np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))
    pending, size = [counted], 0
    for block in _blocks(texts, splitter, special_tokens, prepare, caller):
        data, ends, _ = cut(block, splitter)
        pending.append(unique_pieces(data, ends, np.ones(len(ends), np.int64)))
        size += len(pending[-1][0])
        if size > len(counted[0]) + _PENDING:  # rarely enough that the whole work stays linear
            counted = _together(pending)
            pending, size = [counted], 0
    return _together(pending)


def _blocks(
    texts: Iterable[str], splitter: Splitter, special_tokens: Sequence[str], prepare: Callable[[str], str], caller: str
) -> Iterator[list[str]]:
    """The texts without their special tokens, in lists of about `SHARE` characters; a longer text
    is cut.
    """
    block: list[str] = []
    size = 0
    for text in [texts] if isinstance(texts, str) else texts:
        if not isinstance(text, str):
            raise TypeError(f"{caller}: texts must be strings; got {type(text).__name__}")
        for stretch in stretches(replace_surrogates(text), special_tokens):
            for part in splitter.safe_parts(prepare(stretch), SHARE):
                block.append(part)
                size += len(part)
                if size >= SHARE:
                    yield block
                    block, size = [], 0
    if block:
        yield block


def _together(parts: Sequence[Counted]) -> Counted:
    """Several counts as one, each piece once."""
    starts = np.cumsum([0] + [len(data) for data, _, _ in parts[:-1]])
    return unique_pieces(
        np.concatenate([data for data, _, _ in parts]),
        np.concatenate([ends + start for (_, ends, _), start in zip(parts, starts, strict=True)]),
        np.concatenate([counts for _, _, counts in parts]),
    )


def shares(texts: Sequence[str], splitter: Splitter) -> tuple[list[list[str]], list[bool]]:
    """Texts in groups of about `SHARE` characters, long ones cut; and of every part, whether it
    ends its text.
    """
    groups: list[list[str]] = [[]]
    last_of_text, size = [], 0
    for text in texts:
        parts = list(splitter.safe_parts(text, SHARE))
        last_of_text += [False] * (len(parts) - 1) + [True]
        for part in parts:
            if size >= SHARE:
                groups.append([])
                size = 0
            groups[-1].append(part)
            size += len(part)
    return groups, last_of_text
