"""What kind of word each part of a story is: for the question what a model finds hard."""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import stories as s

KINDS: dict[str, Sequence[str]] = {
    "name": s.NAMES,
    "animal": s.ANIMALS,
    "color": s.COLORS,
    "thing": s.THINGS,
    "place": s.PLACES,
    "activity": s.ACTIVITIES,
    "food": s.FOODS,
    "number": s.NUMBERS,
    "flock": s.FLOCKS,
    "spot": s.BESIDE + s.CORNERS,
    "description": s.TRAITS + s.LOOKS + s.WEATHERS + s.GLAD + s.SORRY + s.KINDLY,
}
"""The words that are drawn by lot."""

PHRASE = "phrase"  # everything else: how a thing is said, and what happens next

_KIND_OF = {word: kind for kind in reversed(KINDS) for word in KINDS[kind]}
_WORD = re.compile(rf"\b({'|'.join(_KIND_OF)})\b")


def kinds_of(text: str, ends: Sequence[int]) -> list[str]:
    """The kind of word that each token of a story is, or is a part of.

    ends: where in the text each token ends.

    >>> kinds_of("Mia had a red ball.", [3, 9, 13, 16, 18, 19])
    ['name', 'phrase', 'color', 'thing', 'thing', 'phrase']
    """
    kinds = [PHRASE] * len(text)
    for word in _WORD.finditer(text):
        kinds[word.start() : word.end()] = [_KIND_OF[word[1]]] * len(word[1])
    return [kinds[end - 1] if end > start else PHRASE for start, end in zip([0, *ends], ends, strict=False)]
