"""Pairs of answers from the chat corpus: the short one is preferred to the whole sentence.

    user: I know Mia, Tom and Ben. Who is second?
    chosen: Tom.
    rejected: Tom is second.

Both are right, and a model that was taught by chat_corpus.py can write both: the short ones where a
system message asks for one word. Here none does. What is learned is the wish itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .chat_corpus import TEST, TRAIN, belongs_to, is_right, kind_of, messages_of, text_of
from .chat_grammar import ChatGrammar, World, goodbye, opening
from .grammar import Grammar, Pen, Step


class Preference(NamedTuple):
    """A prompt, the short answer to it and the long one, as `trl` names them."""

    prompt: list[dict[str, str]]
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]

    def is_right(self, answer: str) -> bool:
        """Whether an answer is right, short or long."""
        return answer == self.chosen[0]["content"] or is_right(self.prompt, answer)

    def is_short(self, answer: str) -> bool:
        """Whether it is a single word."""
        return len(answer.split()) == 1


def _briefly(pen: Pen, w: World) -> Step:
    """The same conversations, with an assistant that says one word though nobody asks for it."""
    scene, w = opening(pen, w)
    return scene, w._replace(style=w.style._replace(one_word=True))


_WHOLE, _BRIEF = ChatGrammar(), Grammar(_briefly, World())


def preferences(n: int, seed: int = 0, part: str = TRAIN) -> list[Preference]:
    """Draw ``n`` pairs of answers, no two prompts alike.

    part: "train", without any whole answer in a style that is held out, or "test", where the last
    one is, as in `chats`. A goodbye, which has several right answers, is in "train" alone, so no
    prompt is in both. Short answers are few, and "train" has all of them: a model that never
    prefers one of them unlearns it. The i-th draw is a pure function of (seed, i).

    Raises ValueError for another part.
    """
    if part not in (TRAIN, TEST):
        raise ValueError(f"preferences: part must be {TRAIN} or {TEST}; got {part!r}")
    found: dict[str, Preference] = {}
    draws = 0
    while len(found) < n:
        # the same lots, and so the same conversation
        whole, brief = (
            messages_of(grammar.sample(np.random.default_rng((seed, draws))).text) for grammar in (_WHOLE, _BRIEF)
        )
        draws += 1
        if whole != brief and belongs_to(whole, part) and (part == TRAIN or kind_of(whole) != goodbye.__name__):
            found.setdefault(text_of(whole[:-1]), Preference(whole[:-1], brief[-1:], whole[-1:]))
    return list(found.values())
