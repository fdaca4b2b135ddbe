"""The chat corpus: as many conversations as one likes, their right answers, and the loss that no
model can beat on them.

Two parts of one grammar (chat_grammar.py). A tenth of all combinations of a style and an answer is
held out by a checksum: whatever is drawn to train on, a model was never asked for *this* answer in
*this* style, though it has seen the answer in other styles and the style with other answers. For
one and the same answer is right where its language is asked for, and where the user speaks it: at
most one of the two is held out.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .chat_grammar import CALLED, ENGLISH, FRENCH, KINDS, ME, WISHES, WORDS, ChatGrammar, Style
from .grammar import Choice

_GRAMMAR = ChatGrammar()
TRAIN, TEST = "train", "test"
_ENTRIES = re.compile(r"^(system|user|assistant): ", re.MULTILINE)


class Chat(NamedTuple):
    """A conversation that ends with an answer."""

    messages: list[dict[str, str]]
    logprob: float  # nats: of all that is said, under the grammar
    answer_nats: float  # of the choices that the assistant had: what no model can foresee

    @property
    def prompt(self) -> list[dict[str, str]]:
        """All but the last answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1]["content"]


def chats(n: int, seed: int = 0, part: str = TRAIN) -> list[Chat]:
    """Draw ``n`` conversations, no two alike.

    part: "train", without any answer in a style that is held out; "test", where the last answer is
    held out. The i-th draw is a pure function of (seed, i).

    Raises ValueError for another part.
    """
    if part not in (TRAIN, TEST):
        raise ValueError(f"chats: part must be {TRAIN} or {TEST}; got {part!r}")
    found: dict[str, Chat] = {}
    draws = 0
    while len(found) < n:
        choices = _GRAMMAR.drawn(np.random.default_rng((seed, draws)))
        draws += 1
        text = "".join(choice.text for choice in choices)
        messages = messages_of(text)
        if belongs_to(messages, part):
            found.setdefault(text, _chat(messages, choices))
    return list(found.values())


def belongs_to(messages: Sequence[Mapping[str, str]], part: str) -> bool:
    """Whether no answer is held out (part "train"), or the last one is ("test")."""
    style = style_of(messages)
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    held_out = [_is_held_out(style, answer) for answer in answers]
    return held_out[-1] if part == TEST else not any(held_out)


def _is_held_out(style: Style, answer: str) -> bool:
    checksum = zlib.crc32(f"{style.capitals} {style.one_word}: {answer}".encode())
    return checksum % 10 == (1 if style.language else 0)


def chat_floor(drawn: Sequence[Chat], n_targets: int) -> float:
    """The loss in nats per token that no model can beat, on average, on the assistant's tokens of
    these conversations: the assistant's choices alone cost something.

    n_targets: how many tokens are learned, the ends of turns included.
    """
    if n_targets < 1:
        raise ValueError(f"chat_floor: n_targets must be at least 1; got {n_targets}")
    return sum(chat.answer_nats for chat in drawn) / n_targets


def is_right(prompt: Sequence[Mapping[str, str]], answer: str) -> bool:
    """Whether the grammar could answer so."""
    if "\n" in answer:
        return False
    try:
        _GRAMMAR.logprob(text_of([*prompt, {"role": "assistant", "content": answer}]))
    except ValueError:
        return False
    return True


def chance(drawn: Sequence[Chat], seed: int = 0) -> float:
    """The share of right answers of one who answers each with what was right in another
    conversation.
    """
    others = np.random.default_rng(seed).permutation(len(drawn))
    return float(np.mean([is_right(chat.prompt, drawn[i].answer) for chat, i in zip(drawn, others, strict=True)]))


def obeys(style: Style, answer: str) -> bool:
    """Whether an answer, be it right or wrong, is in this style: capitals, one word, no word of the
    other language, the right name of its own.
    """
    words = set(re.findall(r"[^\W\d]+", answer.lower()))
    wrong = {ENGLISH: WORDS[FRENCH], FRENCH: WORDS[ENGLISH], "": set[str]()}[style.language]
    return (
        bool(answer.strip())
        and (style.capitals == (answer == answer.upper()) or not words)
        and style.one_word == (len(answer.split()) == 1)
        and not words & wrong
        and not (style.name and ME.lower() in words)
    )


def kind_of(messages: Sequence[Mapping[str, str]]) -> str:
    """Of what kind the last question is: see KINDS."""
    asked = next(message["content"] for message in reversed(messages) if message["role"] == "user")
    return next(kind for kind, heads in KINDS.items() if asked.startswith(heads))


def style_of(messages: Sequence[Mapping[str, str]]) -> Style:
    """What the system message asks for, if there is one."""
    if messages[0]["role"] != "system":
        return Style()
    text, name = messages[0]["content"], ""
    for called in CALLED:
        if text.startswith(called):
            name, _, text = text.removeprefix(called).partition(".")
    return WISHES[text.strip()]._replace(name=name)


def text_of(messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as the grammar writes it."""
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages) + "\nend"


def messages_of(text: str) -> list[dict[str, str]]:
    """A text of the grammar as messages."""
    _, *parts = _ENTRIES.split(text.removesuffix("\nend"))
    return [
        {"role": role, "content": content.removesuffix("\n")}
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _chat(messages: list[dict[str, str]], choices: Sequence[Choice]) -> Chat:
    nats = sum(choice.nats for choice in choices if choice.text.startswith("\nassistant: "))
    return Chat(messages, -sum(choice.nats for choice in choices), nats)
