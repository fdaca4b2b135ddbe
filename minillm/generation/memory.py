"""What a model has read, kept from one text to the next: a chat asks for the same beginning again
and again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..models import LanguageModel
    from ..models.base import Cache

__all__ = ["Memory"]

PART = 256  # tokens that are read before somebody is asked whether to go on


class Memory:
    """The tokens that a model has read last, and its cache of them.

    The next text is compared with them, and read from where it differs. What was computed for the
    tokens before stays right, since none of them looks at a later one. It belongs to one model, of
    which the weights stay as they are; else `forget`.
    """

    def __init__(self) -> None:
        self.reused = 0  # tokens of the last text that were not read again
        self.forget()

    def forget(self) -> None:
        """Begin with nothing."""
        self._cache: Cache | None = None
        self._prompt, self._drawn = list[int](), list[int]()

    @property
    def ids(self) -> list[int]:
        """The tokens in the cache."""
        return [] if self._cache is None else (self._prompt + self._drawn)[: self._cache.length]

    def read(
        self, model: LanguageModel, prompt: list[int], drawn: list[int], room: int, is_cancelled: Callable[[], bool]
    ) -> tuple[np.ndarray, Cache]:
        """Let a model read a prompt, and score the next token: (1, V), cache.

        drawn: the list to which each token is appended that will be drawn after the prompt; so the
        memory knows what goes into the cache later. room: how many these may be. When it is
        cancelled, the scores are those of some earlier token.
        """
        length = len(prompt) + room
        if model.context is not None:
            length = min(length, model.context)
        # the last token is read anyhow: somebody must score the next
        self.reused = min(common(self.ids, prompt), len(prompt) - 1)
        cache = None if self._cache is None else self._cache.kept(self.reused, length)
        if cache is None:
            self.reused, cache = 0, model.new_cache(1, length)
        self._cache, self._prompt, self._drawn = cache, prompt, drawn
        while True:
            logits = model.next_logits(np.array([prompt[cache.length : cache.length + PART]]), cache)
            if cache.length == len(prompt) or is_cancelled():
                return logits, cache


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many items two sequences have in common at their beginnings.

    >>> common([5, 6, 7], [5, 6, 8, 9])
    2
    """
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))
