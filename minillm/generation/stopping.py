"""The seven ways in which a text ends, and the search for stop strings while the text is still
being written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from .config import GenerationConfig

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

__all__ = ["Cancel", "Criterion", "Ending", "FinishReason", "StopStrings", "asked", "ending", "stop_probability"]

FinishReason = Literal[
    "eos",  # the model drew the end-of-text token
    "end_of_turn",  # the model drew the token that ends a speaker's turn in a chat
    "stop",  # a stop string came up in the text
    "length",  # max_new_tokens were drawn
    "context",  # the model cannot see more tokens
    "cancelled",  # the caller asked to end
    "criterion",  # the caller's own criterion was met
]

# The names under which chat models know the end of a turn: ChatML and SmolLM2, Llama 3, Gemma.
END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")


class _Event(Protocol):
    def is_set(self) -> bool: ...


Cancel = Callable[[], bool] | _Event  # such as a threading.Event, which another thread sets
Criterion = Callable[[list[int], str], bool]  # the ids and the text so far -> whether to end


def asked(cancel: Cancel | None) -> Callable[[], bool]:
    """The function that says whether the caller has asked to end: once he has, it stays so."""
    if cancel is None:
        return lambda: False
    ask, has_asked = cancel if callable(cancel) else cancel.is_set, False

    def is_cancelled() -> bool:
        nonlocal has_asked
        has_asked = has_asked or bool(ask())
        return has_asked

    return is_cancelled


@dataclass(frozen=True)
class Ending:
    """What ends a text, besides its length."""

    ids: dict[int, FinishReason]
    strings: tuple[str, ...]
    criterion: Criterion | None


def ending(tokenizer: Tokenizer, config: GenerationConfig, criterion: Criterion | None) -> Ending:
    """What the configuration, and the tokenizer where that leaves it open, say about the end of a
    text.
    """
    ends = config.eos_token_id
    if ends is None:
        ends = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    turns = config.end_of_turn_token_id
    if turns is None:
        turns = tuple(tokenizer.special_tokens[name] for name in END_OF_TURN if name in tokenizer.special_tokens)
    ids: dict[int, FinishReason] = {**dict.fromkeys(ends, "eos"), **dict.fromkeys(turns, "end_of_turn")}
    return Ending(ids, config.stop, criterion)


def stop_probability(logits: np.ndarray, normalizer: float, ids: Iterable[int]) -> float:
    """The probability that one of some tokens comes next: the sum of e^(l - log sum e^l) over them.

    logits: (V,), as the model gave them, before any parameter changed them; normalizer: their
    log_sum_exp.
    """
    return sum([math.exp(float(logits[id]) - normalizer) for id in ids])


class StopStrings:
    """Lets text through until a stop string comes up, and never shows any part of it.

    A stop string may be spread over several tokens. So the end of the text, where it could be the
    beginning of a stop string, is held back until the next tokens decide. The result does not
    depend on how the text is cut: of several stop strings, the one that is complete first ends the
    text.

    >>> stops = StopStrings(["END"])
    >>> stops.push("the E"), stops.push("N"), stops.push("Z E"), stops.push("ND of")
    ('the ', '', 'ENZ ', '')
    >>> stops.found
    True
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self.strings = tuple(strings)
        self.held = ""  # what could be the beginning of a stop string
        self.found = False

    def push(self, text: str) -> str:
        """The text that can be shown now; the rest is held back, or, when ``found``, dropped."""
        text = self.held + text
        starts = [(at + len(string), at) for string in self.strings if (at := text.find(string)) >= 0]
        if starts:
            self.found, self.held = True, ""
            return text[: min(starts)[1]]
        self.held = text[len(text) - self._undecided(text) :]
        return text[: len(text) - len(self.held)]

    def flush(self) -> str:
        """What was held back, when the text ends for another reason."""
        text, self.held = self.held, ""
        return text

    def _undecided(self, text: str) -> int:
        """The length of the longest end of the text with which a stop string begins."""
        longest = max(map(len, self.strings), default=1) - 1
        for length in range(min(longest, len(text)), 0, -1):
            if any(string.startswith(text[-length:]) for string in self.strings):
                return length
        return 0
