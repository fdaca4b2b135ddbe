"""How the `sentencepiece` library reads a text: replacements, spaces, symbols of the user.

The reference is its own program (normalizer.cc). `tokenizer.json` describes T5's tokenizer by other components, which
give the same ids on ordinary text but not on letters followed by loose marks, tabs, or symbols inside a word.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import regex

from .character_map import CharacterMap

SPACE = "▁"


class SentencePieceText:
    """Turns a text into what the pieces of a model spell: spaces become `▁`, one `▁` stands before the first word.

    steps: the table of replacements, as in `tokenizer.json`, or nothing; symbols: the ids of texts that stay as they
    are and are always one token ("user defined"); unused: ids that are never given; unknown: what an unknown piece
    decodes to.

    At each place the longest entry of the table is replaced. White space is what the table makes a plain space: runs
    of it become one, none is left at the ends. A tab or a line end that the table does not know is a character like
    any other.
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
        parts: list[str] = []
        starts: list[int] = []
        at, after_space = 0, True  # white space at the beginning is left out as any after white space
        while at < len(text):
            new, end = self._replaced(text, at)
            if after_space:
                new = new.lstrip(" ")
            if new and not parts:
                parts.append(SPACE)
                starts.append(at)
            if new:
                parts.append(new.replace(" ", SPACE))
                starts += [at] * len(new)
                after_space = new.endswith(" ")
            at = end
        marked = "".join(parts)
        kept = len(marked.rstrip(SPACE))
        starts.append(len(text))
        return marked[:kept], starts[:kept], starts[1 : kept + 1]

    def _replaced(self, text: str, at: int) -> tuple[str, int]:
        """What the text at this place becomes, and where it ends."""
        symbol = self._symbols.match(text, at) if self._symbols else None
        if symbol:
            return symbol.group(), symbol.end()
        return self._map.longest(text, at) if self._map else (text[at], at + 1)
