"""Patterns: how a text is cut into pieces before merging. No token ever crosses from one piece into
the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import regex

from ..kernels import compiled

# Each alternative of a pattern is one kind of piece: contractions ('s), words with the space before
# them, numbers, punctuation, white space. `\s+(?!\S)` leaves the last space of a run to the word
# that follows it.
PATTERNS = {
    "gpt2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    # GPT-2's, after each digit was cut out alone: white space before a digit is the end of its
    # stretch
    "smollm2": r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+",
    # any case of contractions, numbers three digits at a time, line ends with the punctuation
    # before them
    "gpt4": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s*[\r\n]|\s+(?!\S)|\s+",
}
SECONDS = 5.0  # a pattern may take this long on one text ...
SECONDS_PER_CHARACTER = 1e-5  # ... and this much more for each character: twenty times what a sane one needs
# before a space, or after a line end between two visible characters: Chinese and Japanese have no
# spaces
_SAFE_CUT = regex.compile(r"(?<=\S)(?= )|(?<=\S\n)(?=\S)")


@compiled("text.split")
def split(text: str, stops: np.ndarray, pattern: str) -> np.ndarray:
    """Where each piece ends, in characters.

    text: several texts, one after the other; stops: (D,) int64, where each text ends, which also
    ends a piece; pattern: a name from PATTERNS -> (P,) int64, ascending; the last is the length of
    `text`.
    """
    ends: list[int] = []
    for start, stop in pairwise([0, *stops.tolist()]):
        ends += [start + match.end() for match in expression(pattern).finditer(text[start:stop])]
    return np.array(ends, np.int64)


@cache
def expression(pattern: str) -> regex.Pattern:
    """The compiled form of a pattern, given by name or as a regular expression."""
    return regex.compile(PATTERNS.get(pattern, pattern))


class Splitter:
    """Cuts texts into pieces by a pattern: "gpt2", "gpt4", "smollm2", or any expression of the
    `regex` module.

    Text that an expression does not match is kept, as pieces of its own: nothing is ever lost.

    Raises ValueError when the expression does not compile.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        try:
            self._regex = expression(pattern)
        except regex.error as error:
            names = ", ".join(PATTERNS)
            raise ValueError(
                f"Splitter: pattern must be one of {names}, or a regular expression; got {pattern!r}: {error}"
            ) from None

    @property
    def cuts_at_spaces(self) -> bool:
        """Whether a piece always ends before a space that follows a visible character, as in the
        known patterns.
        """
        return self.pattern in PATTERNS

    def ends(self, text: str, stops: np.ndarray) -> np.ndarray:
        """Where the pieces of several texts end, in characters.

        text: the texts, one after the other; stops: (D,) int64, where each ends -> (P,) int64.
        """
        if self.cuts_at_spaces:
            return split(text, stops, self.pattern)
        starts = [0, *stops.tolist()]
        pieces = (piece for start, stop in pairwise(starts) for piece in self.pieces(text[start:stop]))
        return np.cumsum([len(piece) for piece in pieces], dtype=np.int64)

    def safe_parts(self, text: str, size: int) -> Iterator[str]:
        """The text in parts of at least `size` characters that split the same alone as together.

        With an expression of the user's own the text stays whole.
        """
        start = 0
        while self.cuts_at_spaces and len(text) - start > size:
            cut = _SAFE_CUT.search(text, start + size)
            if cut is None:
                break
            yield text[start : cut.start()]
            start = cut.start()
        yield text[start:]

    def pieces(self, text: str) -> Iterator[str]:
        """The pieces of one text, by the `regex` module.

        Raises TimeoutError when the expression takes too long: some, such as `(a+)+b`, need
        exponential time.
        """
        limit = SECONDS + SECONDS_PER_CHARACTER * len(text)
        position = 0
        try:
            for match in self._regex.finditer(text, timeout=limit):
                start, end = match.span()
                if start > position:
                    yield text[position:start]
                if end > start:
                    yield text[start:end]
                position = end
        except TimeoutError:
            raise TimeoutError(
                f"Splitter: pattern {self.pattern!r} took more than {limit:.1f} s on a text of {len(text)} characters, "
                f"at character {position}: it needs a form that does not backtrack"
            ) from None
        if position < len(text):
            yield text[position:]
