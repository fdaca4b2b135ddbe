"""What a chat model can do, measured on conversations of which the right answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.chat_corpus import Chat, chance, is_right, kind_of, obeys, style_of
from ..generation import Generation, GenerationConfig, generate_batch
from ..tokenizer import Tokenizer
from .encode import prompt_each
from .messages import Messages

LONGEST_ANSWER = 32  # tokens
ROWS = 50  # prompts that are answered at once


@dataclass(frozen=True)
class ChatReport:
    """Shares, from 0 to 1."""

    stopped: float  # by the token that ends a turn
    exact: float
    obeyed: float  # of the conversations with a system message: the answer is in its style
    obeyed_without: float  # the same conversations without the message: how often that happens by itself
    random: float  # exact answers of one who gives the answer to another question
    kinds: dict[str, float]  # exact answers, for each kind of question

    def rows(self) -> dict[str, float]:
        """What is measured of the model, by what it is called in a table."""
        return {
            "stops by its end-of-turn token": self.stopped,
            "exact answers": self.exact,
            "obeys the system message": self.obeyed,
            "does so without the message": self.obeyed_without,
        }


def measure(model: Any, tokenizer: Tokenizer, asked: Sequence[Chat]) -> ChatReport:
    """Let a model answer, with its most likely tokens, and compare."""
    answers = answer_all(model, tokenizer, [chat.prompt for chat in asked])
    ordered = [i for i, chat in enumerate(asked) if chat.messages[0]["role"] == "system"]
    unasked = answer_all(model, tokenizer, [asked[i].prompt[1:] for i in ordered])
    styles = [style_of(asked[i].messages) for i in ordered]
    right = [is_right(chat.prompt, answer.text) for chat, answer in zip(asked, answers, strict=True)]
    kinds = [kind_of(chat.prompt) for chat in asked]
    return ChatReport(
        stopped=_share([answer.finish_reason == "end_of_turn" for answer in answers]),
        exact=_share(right),
        obeyed=_share([obeys(style, answers[i].text) for style, i in zip(styles, ordered, strict=True)]),
        obeyed_without=_share([obeys(style, answer.text) for style, answer in zip(styles, unasked, strict=True)]),
        random=chance(asked),
        kinds={
            what: _share([held for held, kind in zip(right, kinds, strict=True) if kind == what])
            for what in sorted(set(kinds))
        },
    )


def answer_all(model: Any, tokenizer: Tokenizer, asked: Sequence[Messages]) -> list[Generation]:
    """The most likely answer to each conversation."""
    config = GenerationConfig(temperature=0, max_new_tokens=LONGEST_ANSWER)
    prompts = [*prompt_each(asked, tokenizer)]
    answers: list[Generation] = []
    for start in range(0, len(prompts), ROWS):
        answers += generate_batch(model, tokenizer, prompts[start : start + ROWS], config)
    return answers


def table(**reports: ChatReport) -> str:
    """Reports on the same conversations side by side: ``table(before=a, after=b)``."""
    made = [*reports.values()]
    lines = [f"{'':32}" + "".join(f"{name:>8}" for name in reports)]
    for what in made[0].rows():
        lines.append(f"{what:32}" + "".join(f"{report.rows()[what]:8.1%}" for report in made))
    lines.append(f"{'exact answers at random':32}{made[0].random:8.1%}")
    lines += ["", "exact answers by kind of question"]
    for kind in made[0].kinds:
        lines.append(f"  {kind.replace('_', ' '):30}" + "".join(f"{report.kinds[kind]:8.1%}" for report in made))
    return "\n".join(lines)


def _share(held: Sequence[bool]) -> float:
    return float(np.mean(held)) if held else float("nan")
