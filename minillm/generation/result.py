"""What generation gives back, and the row of a batch in which it is written."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .prompt import Prompt, top_logprobs
from .stopping import Ending, FinishReason, StopStrings, stop_probability

if TYPE_CHECKING:
    from ..tokenizer import StreamDecoder

__all__ = ["Generation", "Row", "Trace", "joined"]


@dataclass(frozen=True)
class Generation:
    """A text that a model wrote, how likely it found each token, and why it ended.

    All log-probabilities are the model's own, before any parameter of the configuration changed
    them, in nats. A token that ended the text is the last of ``ids``, but not in ``text``: so the
    sum of ``logprobs`` is the log-probability of the whole, its end included.

    From ``stream`` each piece is a Generation that holds only what is new; ``finish_reason`` is
    None until the last.
    """

    text: str  # without the prompt (unless echo), the token that ended it, and the stop string
    ids: list[int]  # the tokens that were drawn: N
    logprobs: list[float]  # N log-probabilities, one for each token
    finish_reason: FinishReason | None
    stop_probs: list[float] = field(default_factory=list)  # N probabilities that the text ends at this position
    top_logprobs: list[dict[int, float]] = field(default_factory=list)  # N tables {id: log-probability}, best first
    prompt_ids: list[int] = field(default_factory=list)  # as the model read them, beginning of text included: P
    prompt_logprobs: list[float | None] = field(default_factory=list)  # echo: P; None for the first, nothing is before
    prompt_top_logprobs: list[dict[int, float] | None] = field(default_factory=list)  # echo and logprobs: P
    index: int = 0  # the row of the batch: number of the prompt * n + number of the text
    score: float | None = None  # beam search: log-probability / length^length_penalty


def joined(pieces: Sequence[Generation]) -> Generation:
    """The pieces that ``stream`` gave of one text as the whole that ``generate`` would return.

    Of a text that was left in the middle, which has no finish_reason yet: as if cancelled.
    """
    return dataclasses.replace(
        pieces[0],
        text="".join([piece.text for piece in pieces]),
        ids=[id for piece in pieces for id in piece.ids],
        logprobs=[logprob for piece in pieces for logprob in piece.logprobs],
        finish_reason=pieces[-1].finish_reason or "cancelled",
        stop_probs=[probability for piece in pieces for probability in piece.stop_probs],
        top_logprobs=[table for piece in pieces for table in piece.top_logprobs],
    )


def check_finite(normalizers: Sequence[float], token: int) -> None:
    """Raise ValueError where the scores of the token of this number, whose log_sum_exp are given,
    hold infinity or NaN: nothing can be chosen among them.
    """
    if not all(map(math.isfinite, normalizers)):
        raise ValueError(f"generate: the model's scores for token {token} are not finite")


@dataclass
class Trace:
    """How likely the model found each token of a text, and that the text ends there."""

    logprobs: list[float] = field(default_factory=list)
    stop_probs: list[float] = field(default_factory=list)
    top_logprobs: list[dict[int, float]] = field(default_factory=list)

    def add(self, id: int, logits: np.ndarray, normalizer: float, stop_ids: Sequence[int], alternatives: int) -> None:
        """Note one token, of which the model's logits (V,) and their log_sum_exp are given."""
        check_finite([normalizer], len(self.logprobs))
        self.logprobs.append(float(logits[id]) - normalizer)
        self.stop_probs.append(stop_probability(logits, normalizer, stop_ids))
        if alternatives:
            self.top_logprobs.append(top_logprobs(logits, normalizer, alternatives))

    def copy(self) -> Trace:
        """The same, to be continued apart."""
        return Trace(self.logprobs.copy(), self.stop_probs.copy(), self.top_logprobs.copy())


@dataclass(eq=False)
class Row:
    """One text in the making. It is done when ``finish_reason`` is no longer None."""

    index: int
    prompt: Prompt
    decoder: StreamDecoder
    ending: Ending
    limit: tuple[int, FinishReason]  # how many tokens there can be, and why no more
    echo: bool
    rng: np.random.Generator

    ids: list[int] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    pieces: list[str] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    score: float | None = None
    forgotten: int = 0  # tokens of prompt and text that the model no longer sees, since the context was full

    def __post_init__(self) -> None:
        self._stops = StopStrings(self.ending.strings) if self.ending.strings else None
        self._taken: tuple[int, int] | None = None  # how many tokens and pieces of text take() has given away

    def push(self, id: int) -> None:
        """Add a token, and decide whether the text ends with it."""
        self.ids.append(id)
        reason = self.ending.ids.get(id)
        if reason is None:
            self._show(self.decoder.push(id))
            reason = self._reason()
        if reason is not None:
            self.finish(reason)

    def finish(self, reason: FinishReason) -> None:
        """End the text; what was held back of it is shown, unless a stop string was found."""
        self.finish_reason = reason
        if reason != "stop":
            self._show(self.decoder.flush())
            if self._stops is not None:
                self.pieces.append(self._stops.flush())

    def take(self) -> Generation:
        """What is new since the last call; all of it, the first time."""
        ids, pieces = self._taken or (0, 0)
        new = Generation(
            text="".join(self.pieces[pieces:]),
            ids=self.ids[ids:],
            logprobs=self.trace.logprobs[ids:],
            finish_reason=self.finish_reason,
            stop_probs=self.trace.stop_probs[ids:],
            top_logprobs=self.trace.top_logprobs[ids:],
            index=self.index,
            score=self.score,
        )
        if self._taken is None:
            new = dataclasses.replace(
                new,
                text=self.prompt.text + new.text if self.echo else new.text,
                prompt_ids=self.prompt.ids,
                prompt_logprobs=self.prompt.logprobs,
                prompt_top_logprobs=self.prompt.top_logprobs,
            )
        self._taken = len(self.ids), len(self.pieces)
        return new

    def visible(self, context: int) -> list[int]:
        """The tokens that the model is to see: all, or, once they are more than the context, the
        later half of it.
        """
        text = self.prompt.ids + self.ids
        if len(text) - self.forgotten > context:
            self.forgotten = len(text) - max(1, context // 2)
        return text[self.forgotten :]

    def _show(self, text: str) -> None:
        self.pieces.append(text if self._stops is None else self._stops.push(text))

    def _reason(self) -> FinishReason | None:
        """Why the text ends after the token that was just added, if it does."""
        if self._stops is not None and self._stops.found:
            return "stop"
        if self.ending.criterion is not None:
            held = "" if self._stops is None else self._stops.held
            if self.ending.criterion(self.ids.copy(), "".join(self.pieces) + held):
                return "criterion"
        most, reason = self.limit
        return reason if len(self.ids) >= most else None
