"""Cutting text into pieces, the first step of byte-level BPE: no token ever crosses from one piece into the next.

The definition of a split is a regular expression, and `split_numpy` simply runs it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import regex

__all__ = ["PATTERNS", "compiled", "split_numpy"]

# Each alternative of a pattern is one kind of piece: contractions ('s), words with the space before them, numbers,
# punctuation, white space. `\s+(?!\S)` leaves the last space of a run to the word that follows it.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # GPT-2's, after each digit was cut out alone: white space before a digit is the end of its stretch
    "smollm2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+",
    # any case of contractions, numbers three digits at a time, line ends with the punctuation before them
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+",
}


@cache
def compiled(pattern: str) -> regex.Pattern:
    """The compiled form of a pattern, given by name or as a regular expression."""
    return regex.compile(PATTERNS.get(pattern, pattern))


def split_numpy(data: np.ndarray, stops: np.ndarray, pattern: str) -> np.ndarray:
    """Where each piece ends.

    data: (N,) uint8, valid UTF-8 of several texts; stops: (D,) int64, where each text ends, which also ends a piece.
    pattern: a name from PATTERNS. Returns the ends of the pieces, (P,) int64, ascending; the last is N.
    """
    ends: list[int] = []
    start = 0
    for stop in stops.tolist():
        text = data[start:stop].tobytes().decode("utf-8")
        sizes = [len(match.group().encode("utf-8")) for match in compiled(pattern).finditer(text)]
        ends += (start + np.cumsum(sizes, dtype=np.int64)).tolist()
        start = stop
    return np.array(ends, np.int64)
