"""Supervised fine-tuning: a model that continues texts learns to answer, to obey and to stop.

Nothing is new but the data: conversations, of which the assistant's tokens and its end-of-turn
token are the targets (see encode.py). Before, the vocabulary gets the marks of turns, and the words
that it lacks; the embedding gets rows for them. Source: Ouyang et al. 2022, "Training language
models to follow instructions with human feedback", section 3.4, step 1.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from .. import files
from ..generation import GenerationConfig
from ..generation.stopping import END_OF_TURN
from ..nn import init
from ..tokenizer import BPETokenizer, Tokenizer
from ..tokenizer.chat_format import ChatFormat
from ..tokenizer.from_json import from_json
from .encode import Encoded, encode_each
from .messages import Messages, texts_in
from .template import CHATML

MOST_WORDS, OFTEN = 512, 20  # merges that conversations add to a vocabulary; the least occurrences for one
MARKS = ("<|im_start|>", "<|im_end|>")  # of a turn, in ChatML
_MOST_BYTES = 1_000_000_000  # of a file of conversations
_IN_NO_TEXT = {bytes([byte]) for byte in (0xC0, 0xC1, *range(0xF5, 0x100))}
_LIKE_THEM = 0.8


def with_marks(tokenizer: Tokenizer, conversations: Sequence[Messages] = ()) -> Tokenizer:
    """A tokenizer that can write conversations: the same, if its folder has a chat template; else
    one that knows ChatML's two marks as special tokens, new ones at the end where it lacks them.

    Words that come often in the conversations get tokens too, where it cuts them into parts: a
    vocabulary learned from other texts spells them letter by letter, and what is spelled takes long
    to read and to learn.
    """
    if tokenizer.chat_format is not None:
        return tokenizer
    if isinstance(tokenizer, BPETokenizer):
        messages = (message for messages in conversations for message in messages if isinstance(message, Mapping))
        texts = [text for message in messages for text in texts_in([*message.values()])]
        tokenizer = tokenizer.extended(texts, MOST_WORDS, max(OFTEN, len(conversations) // 300))
    content = tokenizer.to_json()
    lacking = [name for name in MARKS if name not in tokenizer.special_tokens]
    for id, name in enumerate(lacking, start=tokenizer.vocab_size):
        content["added_tokens"].append({"id": id, "content": name, "special": True})
    marked = from_json(content)
    marked.chat_format = ChatFormat(CHATML)
    return marked


def with_rows(model: Any, tokenizer: Tokenizer, used: Collection[int] = ()) -> Any:
    """A copy of a model that knows all tokens of ``tokenizer``, if it lacks some.

    A new row is drawn as if it were one of the rows that have learned something: from a normal
    distribution with their mean and, in each column, their deviation. So it is neither likely nor
    impossible at first, and differs from the other new ones (Hewitt 2021).

    The tokens among ``used``, those of the conversations, that the model never met begin anew in
    the same way (see `unmet`): what training did to them is the same for all, and the model could
    hardly tell one from the other.
    """
    known = model.config.vocab_size
    if tokenizer.vocab_size <= known:
        return model
    with init.skipped():
        grown = type(model)(dataclasses.replace(model.config, vocab_size=tokenizer.vocab_size))
    old = dict(model.named_parameters())
    rng = np.random.default_rng(0)
    for name, parameter in grown.named_parameters():
        values = np.zeros(parameter.shape, old[name].data.dtype)
        values[: len(old[name].data)] = old[name].data
        if values.shape != old[name].shape:
            never = unmet(values[:known], tokenizer)
            met = np.delete(values[:known], sorted(never), axis=0)
            for id in [*sorted(never.intersection(used)), *range(known, tokenizer.vocab_size)]:
                values[id] = met.mean(axis=0) + met.std(axis=0) * rng.standard_normal(met.shape[1:])
        parameter.data = values
    return grown


def grown(model: Any, before: Any) -> list[str]:
    """The parameters of `with_rows` that have new rows, which nothing but training can fill."""
    shapes = {name: parameter.shape for name, parameter in before.named_parameters()}
    return [name for name, parameter in model.named_parameters() if parameter.shape != shapes[name]]


def unmet(rows: np.ndarray, tokenizer: Tokenizer) -> set[int]:
    """The tokens that a model never met in training, by their rows (V, C) in its embedding.

    A token that never comes is pushed down at each step, and always in the same direction. Some are
    certain: bytes that no text in UTF-8 holds. A row that points where theirs do on average (cosine
    above 0.8) had their fate. Source: Land and Bartolo 2024, "Fishing for Magikarp".
    """
    certain = [id for id in range(len(rows)) if tokenizer.token_bytes(id) in _IN_NO_TEXT]
    if not certain or rows.ndim < 2:
        return set()
    direction = rows[certain].mean(axis=0)
    cosines = rows @ direction / (np.linalg.norm(rows, axis=1) * np.linalg.norm(direction) + 1e-12)
    return set(np.flatnonzero(cosines > _LIKE_THEM).tolist())


def generation_config(tokenizer: Tokenizer) -> GenerationConfig:
    """How a chat model answers: its most likely words, until its turn or the text ends. Both ends
    are named, for `transformers` looks nowhere else.
    """
    ends = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    turns = tuple(tokenizer.special_tokens[name] for name in END_OF_TURN if name in tokenizer.special_tokens)
    return GenerationConfig(
        temperature=0, eos_token_id=ends, end_of_turn_token_id=turns, add_bos=tokenizer.begins_prompts
    )


def read_conversations(path: str | os.PathLike[str]) -> list[Messages]:
    """The conversations of a JSONL file: on each line a table with ``messages``, as `trl` has it.

    Raises ValueError, with the number of the line, for what is none.
    """
    found = []
    for place, table in files.read_json_lines(path, limit=_MOST_BYTES):
        if not isinstance(table.get("messages"), list):
            raise ValueError(f"{place}: expected a table with a list of messages")
        found.append(table["messages"])
    if not found:
        raise ValueError(f"{path}: it holds no conversation")
    return found


def encode_all(conversations: Sequence[Messages], tokenizer: Tokenizer, source: str = "") -> list[Encoded]:
    """Each conversation as ids and mask; an error names the place in ``source``, from 1 on."""
    encoded: list[Encoded] = []
    try:
        for one in encode_each(conversations, tokenizer):
            encoded.append(one)
    except ValueError as error:
        raise ValueError(f"{source}, conversation {len(encoded) + 1}: {error}" if source else str(error)) from None
    return encoded
