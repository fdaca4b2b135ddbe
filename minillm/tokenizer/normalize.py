"""Normalizers: texts that look the same become the same characters before they are cut.

A normalizer can also say where every character of its result came from, so that tokens can be shown
in the original. Where one character becomes several, or several become one, which old one a new one
counts to is a matter of convention: here that of the `tokenizers` library.
"""

from __future__ import annotations

import base64
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol, cast

import regex

from .character_map import CharacterMap

Aligned = tuple[str, list[int]]  # a new text, and for each of its characters the old one that it came from

# A new text by its characters, each with 0: it takes the place of the next old one; 1: it was added
# after that of the one before; -n: it takes the place of the next old one, and the n after that
# vanish.
Changes = list[tuple[str, int]]


class Step(Protocol):
    """One normalizer of a chain."""

    def __call__(self, text: str) -> str:
        """The normalized text."""

    def aligned(self, text: str) -> Aligned:
        """The same, and where each character came from."""


class Normalizer:
    """A chain of normalizers, described as in `tokenizer.json`; no steps: the text stays as it is.

    Steps: NFC, NFD, NFKC, NFKD, Nmt (control characters and odd spaces), Strip, Replace,
    Precompiled (SentencePiece's table of replacements, see character_map.py).

    Raises ValueError for a step that is not known, by name.
    """

    def __init__(self, steps: Sequence[dict[str, Any]] = ()) -> None:
        self.steps = list(steps)
        self._chain = [_step(step) for step in self.steps]

    def __call__(self, text: str) -> str:
        """The normalized text."""
        for step in self._chain:
            text = step(text)
        return text

    def aligned(self, text: str) -> tuple[str, list[int]]:
        """The normalized text, and the position in `text` of the character that each of its
        characters came from.
        """
        origins = list(range(len(text)))
        for step in self._chain:
            text, sources = step.aligned(text)
            origins = [origins[source] for source in sources]
        return text, origins


def _applied(changes: Changes) -> Aligned:
    sources = []
    following = 0  # the next old character
    for _, change in changes:
        sources.append(max(following - 1, 0) if change > 0 else following)
        following += max(1 - change, 0)
    return "".join(character for character, _ in changes), sources


def _step(description: dict[str, Any]) -> Step:
    kind = description["type"]
    if kind in ("NFC", "NFD", "NFKC", "NFKD"):
        return UnicodeForm(cast(Any, kind))
    if kind == "Nmt":
        return Nmt()
    if kind == "Strip":
        return Strip(bool(description["strip_left"]), bool(description["strip_right"]))
    if kind == "Replace":
        pattern = description["pattern"]
        expression = pattern["Regex"] if "Regex" in pattern else regex.escape(pattern["String"])
        return Replace(expression, description["content"])
    if kind == "Precompiled":
        return Precompiled(base64.b64decode(description["precompiled_charsmap"]))
    raise ValueError(f"normalizer {kind!r} is not implemented")


class UnicodeForm:
    """The normal forms of Unicode: C joins letters and marks, D takes them apart, K unites variants
    such as `ﬁ`.
    """

    def __init__(self, form: Literal["NFC", "NFD", "NFKC", "NFKD"]) -> None:
        self.form = form

    def __call__(self, text: str) -> str:
        """The normalized text."""
        return unicodedata.normalize(self.form, text)

    def aligned(self, text: str) -> Aligned:
        """The same by hand: taken apart, marks put in order, joined again (Unicode Standard Annex
        15).
        """
        apart: Literal["NFD", "NFKD"] = "NFKD" if "K" in self.form else "NFD"
        changes: Changes = []
        for character in text:
            changes += [(part, int(i > 0)) for i, part in enumerate(unicodedata.normalize(apart, character))]
        start = 0
        while start < len(changes):  # marks on one letter: in the order of their class
            end = start + 1
            while end < len(changes) and unicodedata.combining(changes[end][0]):
                end += 1
            marks = start if unicodedata.combining(changes[start][0]) else start + 1
            changes[marks:end] = sorted(changes[marks:end], key=lambda change: unicodedata.combining(change[0]))
            start = end
        return _applied(_composed(changes) if "C" in self.form else changes)


def _composed(changes: Changes) -> Changes:
    """Join each letter with the marks after it where Unicode has one character for both."""
    joined: Changes = []
    letter, last_class = -1, 0  # where the last letter stands in `joined`; the class of the mark before this one
    for character, change in changes:
        mark_class = unicodedata.combining(character)
        if letter >= 0 and (letter == len(joined) - 1 or last_class < mark_class):
            both = unicodedata.normalize("NFC", joined[letter][0] + character)
            if len(both) == 1:
                joined[letter] = (both, joined[letter][1] + change - 1)
                continue
        last_class = mark_class
        if mark_class == 0:
            letter = len(joined)
        joined.append((character, change))
    return joined


class Nmt:
    """What machine translation cleans away: control characters vanish, odd spaces become plain
    ones.
    """

    DROPPED = frozenset({*range(0x1, 0x9), 0xB, *range(0xE, 0x20), 0x7F, 0x8F, 0x9F})
    SPACES = frozenset({0x9, 0xA, 0xC, 0xD, 0x1680, *range(0x200B, 0x2010), 0x2028, 0x2029, 0x2581, 0xFEFF, 0xFFFD})

    def __call__(self, text: str) -> str:
        """The normalized text."""
        return "".join(" " if ord(c) in self.SPACES else c for c in text if ord(c) not in self.DROPPED)

    def aligned(self, text: str) -> Aligned:
        """The same, and where each character came from."""
        kept = [i for i, character in enumerate(text) if ord(character) not in self.DROPPED]
        return self(text), kept


class Strip:
    """No white space at the beginning, at the end, or both."""

    WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))

    def __init__(self, left: bool, right: bool) -> None:
        self._left, self._right = self.WHITE if left else "", self.WHITE if right else ""

    def __call__(self, text: str) -> str:
        """The normalized text."""
        return text.lstrip(self._left).rstrip(self._right)

    def aligned(self, text: str) -> Aligned:
        """The same, and where each character came from."""
        new = self(text)
        start = len(text) - len(text.lstrip(self._left))
        return new, list(range(start, start + len(new)))


class Replace:
    """Every match of a regular expression becomes the same text."""

    def __init__(self, expression: str, content: str) -> None:
        self._expression = regex.compile(expression)
        self._content = content

    def __call__(self, text: str) -> str:
        """The normalized text."""
        return self._expression.sub(lambda _: self._content, text)

    def aligned(self, text: str) -> Aligned:
        """The same; the new text counts to the last character of the old."""
        sources: list[int] = []
        start = 0
        for match in self._expression.finditer(text):
            sources += [*range(start, match.start()), *[max(match.end() - 1, 0)] * len(self._content)]
            start = match.end()
        return self(text), [*sources, *range(start, len(text))]


class Precompiled:
    """SentencePiece's table of replacements, as the `tokenizers` library reads it.

    It looks up letters with their marks as a whole, and takes the shortest entry that they begin
    with. SentencePiece itself takes the longest entry, wherever it ends: see sentencepiece.py.
    """

    def __init__(self, table: bytes) -> None:
        self._map = CharacterMap(table)

    def __call__(self, text: str) -> str:
        """The normalized text."""
        return "".join(new for new, _ in self._parts(text))

    def aligned(self, text: str) -> Aligned:
        """The same, and where each character came from."""
        changes: Changes = []
        for new, length in self._parts(text):
            changes += [(character, int(i >= length)) for i, character in enumerate(new)]
            if len(new) < length and changes:  # subtle: what vanishes at the very beginning is not counted
                changes[-1] = (changes[-1][0], changes[-1][1] - (length - len(new)))
        return _applied(changes)

    def _parts(self, text: str) -> Iterator[tuple[str, int]]:
        """The new text, stretch by stretch, with the length of the old: letters with their marks,
        or characters.
        """
        for match in regex.finditer(r"\X", text):
            cluster = match.group()
            whole = self._map.shortest(cluster) if len(cluster.encode("utf-8")) < 6 else None
            if whole is not None:
                yield whole, len(cluster)
                continue
            for character in cluster:
                new = self._map.shortest(character)
                yield character if new is None else new, 1
