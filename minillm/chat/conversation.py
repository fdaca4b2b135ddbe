"""A conversation that goes on: the model reads only what is new in it.

    talk = Conversation(model, tokenizer, settings)
    for piece in talk.say("What is gravity?"):
        print(piece, end="", flush=True)

At each turn the whole conversation is written out anew by the chat template, as the model knows it.
But its beginning is that of the turn before, and what the model has computed for it is kept: so an
answer begins as soon in the tenth turn as in the second.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ..files import read_json, write_json
from ..files.durable import atomic_file
from ..generation import Generation, GenerationConfig, stream
from ..generation.memory import Memory
from ..generation.result import joined
from ..generation.stopping import Cancel
from ..tokenizer import Tokenizer
from .encode import prompt
from .messages import Messages, checked
from .template import HELLO

if TYPE_CHECKING:
    from ..models import LanguageModel

__all__ = ["Conversation"]

INSTRUCTIONS = ("system", "developer")  # the roles of those who say how to answer
_MOST_BYTES = 10_000_000  # of a saved conversation


class Conversation:
    """A model, and the messages that were exchanged with it.

    config: how it answers; it may be changed between two turns. There is one answer, without beams,
    whatever it says. messages: what was said before.

    When the context has no room left, the oldest turns are forgotten until the rest takes half of
    it, so that the turns after this one can be read on again; the system message stays. `messages`
    keeps them all, and `forgotten` says how many of them the model no longer sees.

    The model's weights must stay as they are, and one thread uses a conversation at a time.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: GenerationConfig | None = None,
        messages: Messages = (),
    ) -> None:
        self.model, self.tokenizer, self.config = model, tokenizer, config or GenerationConfig()
        self._memory = Memory()
        self.begin(messages)

    def begin(self, messages: Messages = ()) -> None:
        """Begin anew, with these messages as what was said before.

        Raises ValueError, and leaves all as it was, where they are no conversation, or the chat
        template refuses them.
        """
        said = [] if isinstance(messages, list | tuple) and not messages else checked(messages)
        asks = bool(said) and said[-1]["role"] not in ("assistant", *INSTRUCTIONS)
        prompt(said if asks else [*said, *HELLO], self.tokenizer)
        self.messages: list[dict[str, Any]] = said
        self.last: Generation | None = None  # the last answer, with its probabilities
        self._begins = 0  # the first message that the model sees, after those that stay

    @property
    def forgotten(self) -> int:
        """How many messages the model no longer sees, for want of room."""
        return max(0, self._begins - len(self.instructions))

    @property
    def reused(self) -> int:
        """How many tokens of the last prompt the model knew already."""
        return self._memory.reused

    @property
    def instructions(self) -> list[dict[str, Any]]:
        """The messages before the first that somebody says: the system's."""
        return _instructions(self.messages)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the messages, whole or not at all, as a line of JSON: {"messages": [...]}.

        A file of such lines is what `minillm sft` learns from.
        """
        with atomic_file(path) as staging:
            write_json(staging, {"messages": self.messages}, indent=None)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Begin anew with the messages of a file that `save` wrote. Raises FileNotFoundError, or
        ValueError, with the name of the file, for anything else.
        """
        content = read_json(path, limit=_MOST_BYTES)
        if content.keys() != {"messages"}:
            raise ValueError(f'{path}: expected {{"messages": [...]}} alone; got the entries {sorted(content)!r:.80}')
        try:
            self.begin(content["messages"])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def say(self, text: str, cancel: Cancel | None = None) -> Generator[str, None, None]:
        """Say something, and get the pieces of the answer while it is written; see `answer`."""
        return self.answer([*self.messages, {"role": "user", "content": text}], cancel)

    def answer(self, messages: Messages, cancel: Cancel | None = None) -> Generator[str, None, None]:
        """Let the model answer a conversation, which takes the place of the one so far: yields the
        pieces of the answer.

        The answer is that of `generate` after `chat.prompt` of the messages; it joins them once the
        pieces are used up, or left. One that is cancelled before its first letter never was, and
        neither was its question.

        Raises ValueError, and leaves all as it was, for messages that the chat template refuses,
        and when the last turn alone is longer than the context.
        """
        messages = checked(messages)
        ids, begins = self._fitting(messages)
        config = self.config.replace(n=1, num_beams=1, echo=False)
        pieces = stream(self.model, self.tokenizer, ids, config, cancel=cancel, memory=self._memory)
        return self._written(messages, begins, pieces)

    def _written(
        self, messages: list[dict[str, Any]], begins: int, pieces: Iterator[Generation]
    ) -> Generator[str, None, None]:
        seen: list[Generation] = []
        try:
            for piece in pieces:
                seen.append(piece)
                if piece.text:
                    yield piece.text
        except GeneratorExit:  # whoever listened went away between two tokens
            raise
        except BaseException:  # within a token: nobody knows what the cache holds
            self._memory.forget()
            raise
        finally:
            whole = joined(seen) if seen else None
            if whole is not None and (whole.text or whole.finish_reason != "cancelled"):
                self.messages = [*messages, {"role": "assistant", "content": whole.text}]
                self._begins, self.last = begins, whole

    def _fitting(self, messages: list[dict[str, Any]]) -> tuple[list[int], int]:
        """The ids of the messages, or of as many as the context has room for, and the index of the
        first that is among them.
        """
        context, begins = self.model.context, 0
        if messages[: len(self.messages)] == self.messages:
            begins = self._begins  # what was forgotten once is not remembered
        turns = [i for i, message in enumerate(messages) if message["role"] == "user"]
        first = _instructions(messages)
        ids = prompt([*first, *messages[begins:]] if begins else messages, self.tokenizer)
        if context is None:
            return ids, begins
        if len(ids) > context - min(self.config.max_new_tokens, context // 4):  # an answer needs room too
            for begins in [turn for turn in turns[1:] if turn > begins]:
                ids = prompt([*first, *messages[begins:]], self.tokenizer)
                if len(ids) <= context // 2:
                    break
        if len(ids) > context:
            raise ValueError(
                f"the message makes {len(ids):,} tokens, with what the chat template writes around it; the model's "
                f"context is {context:,}: shorten it"
            )
        return ids, begins


def _instructions(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(takewhile(lambda message: message["role"] in INSTRUCTIONS, messages))
