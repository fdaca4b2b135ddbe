"""How the `sentencepiece` library reads a text: replacements, spaces, symbols of the user.

The reference is its own program (normalizer.cc). `tokenizer.json` describes T5's tokenizer by other
components, which give the same ids on ordinary text but not on letters followed by loose marks,
tabs, or symbols inside a word.
"""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import regex

from .character_map import CharacterMap

SPACE = "▁"


class SentencePieceText:
    """Turns a text into what the pieces of a model spell: spaces become `▁`, one `▁` stands before
    the first word.

    steps: the table of replacements, as in `tokenizer.json`, or nothing; symbols: the ids of texts
    that stay as they are and are always one token ("user defined"); unused: ids that are never
    given; unknown: what an unknown piece decodes to.

    At each place the longest entry of the table is replaced. White space is what the table makes a
    plain space: runs of it become one, none is left at the ends. A tab or a line end that the table
    does not know is a character like any other.
    """

    def __init__(
        self,
        steps: Sequence[Mapping[str, Any]] = (),
        symbols: Mapping[str, int] | None = None,
        unused: Collection[int] = (),
        unknown: str = " ⁇ ",
    ) -> None:
        if [step["type"] for step in steps] not in ([], ["Precompiled"]):
            raise ValueError("SentencePieceText: steps must be one table of replacements, or nothing")
        self.steps = [dict(step) for step in steps]
        self.symbols = dict(symbols or {})
        self.unused = sorted(unused)
        self.unknown = unknown
        self._map = CharacterMap(base64.b64decode(steps[0]["precompiled_charsmap"])) if steps else None
        longest_first = sorted(self.symbols, key=len, reverse=True)
        self._symbols = regex.compile("|".join(map(regex.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """The normalized text."""
        return self.aligned(text)[0]

    def aligned(self, text: str) -> tuple[str, list[int], list[int]]:
        """The same, and of each character where in `text` what it came from begins and ends."""
        at = 0
        while at < len(text) and self._replaced(text, at)[0] == " ":
            at = self._replaced(text, at)[1]
        if at == len(text):
            return "", [], []
        parts, starts = [SPACE], [at]
        after_space = True
        while at < len(text):
            new, end = self._replaced(text, at)
            if after_space:
                new = new.lstrip(" ")
            if new:
                parts.append(new.replace(" ", SPACE))
                starts += [at] * len(new)
                after_space = new.endswith(" ")
            at = end
        marked = "".join(parts)
        ends, following = [0] * len(marked), len(text)
        for i in reversed(range(len(marked))):  # up to where the next begins that came from elsewhere
            if i + 1 < len(marked) and starts[i + 1] > starts[i]:
                following = starts[i + 1]
            ends[i] = following
        ends[0] = starts[0]  # the first mark came from nothing
        kept = len(marked.rstrip(SPACE))
        return marked[:kept], starts[:kept], ends[:kept]

    def _replaced(self, text: str, at: int) -> tuple[str, int]:
        """What the text at this place becomes, and where it ends."""
        symbol = self._symbols.match(text, at) if self._symbols else None
        if symbol:
            return symbol.group(), symbol.end()
        return self._map.longest(text, at) if self._map else (text[at], at + 1)


def segment(
    text: str, pieces: Mapping[str, tuple[int, float]], longest: int, unknown: tuple[int, float]
) -> list[tuple[int, int]]:
    """The best segmentation of a normalized text: (id, end) of each token, as `Lattice.best` finds
    it.

    Segmentations of the same pieces in another order are equally likely: which one `sentencepiece`
    takes depends on how it rounds. It goes through the whole text; the scores, that of an unknown
    character too, and the score of the best way to each place are float32 (unigram_model.cc,
    EncodeOptimized).
    """
    unknown = unknown[0], float(np.float32(unknown[1]))
    score = array("f", [-math.inf]) * (len(text) + 1)
    score[0] = 0.0
    back: list[tuple[int, int]] = [(-1, 0)] * (len(text) + 1)  # the last token of the best way, and where it begins
    rounded = array("f", [0.0])
    for start in range(len(text)):
        known = [(end, pieces.get(text[start:end])) for end in range(start + 1, min(start + longest, len(text)) + 1)]
        if known[0][1] is None:
            known[0] = start + 1, unknown
        for end, found in known:
            if found is not None:
                rounded[0] = score[start] + found[1]
                if rounded[0] > score[end]:
                    score[end], back[end] = rounded[0], (found[0], start)
    tokens: list[tuple[int, int]] = []
    end = len(text)
    while end:
        id, start = back[end]
        tokens.append((id, end))
        end = start
    return tokens[::-1]
