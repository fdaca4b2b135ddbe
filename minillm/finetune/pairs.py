"""Pairs of answers as `trl` has them in files, and as ids.

    {"prompt": "Who has it?", "chosen": " Mia.", "rejected": " How should I know?"}
    {"prompt": [{"role": "user", "content": "Who has it?"}],
     "chosen": [{"role": "assistant", "content": "Mia."}], "rejected": [...]}

Messages are written with the chat template. Texts are not: the answer goes on where the prompt
ends, and the end-of-text token ends it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from .. import files
from ..chat.encode import Encoded, encode_each, prompt, prompt_each
from ..tokenizer import Tokenizer
from .preferences import Pair

ANSWERS = ("chosen", "rejected")
PARTS = ("prompt", *ANSWERS)
_MOST_BYTES = 1_000_000_000


def read_preferences(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The pairs of a JSONL file: on each line a table with prompt, chosen and rejected, three texts
    or three lists of messages.

    Raises ValueError, with the number of the line, for what is none.
    """
    found = []
    for place, table in files.read_json_lines(path, limit=_MOST_BYTES):
        parts = [table.get(name) for name in PARTS]
        if not any(all(isinstance(part, kind) for part in parts) for kind in (str, list)):
            raise ValueError(
                f"{place}: expected a table with prompt, chosen and rejected, all of them texts or all of them lists "
                "of messages"
            )
        if table["chosen"] == table["rejected"]:
            raise ValueError(f"{place}: chosen and rejected are the same, and nothing can be learned from that")
        found.append({name: table[name] for name in PARTS})
    if not found:
        raise ValueError(f"{path}: it holds no pair of answers")
    return found


def encode_pairs(tables: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, source: str = "") -> list[Pair]:
    """Each pair as ids; an error names the place in ``source``, from 1 on."""
    talks = [table for table in tables if not isinstance(table["prompt"], str)]
    before = prompt_each([table["prompt"] for table in talks], tokenizer)
    whole = [encode_each([[*table["prompt"], *table[name]] for table in talks], tokenizer) for name in ANSWERS]
    pairs = []
    for number, table in enumerate(tables, start=1):
        try:
            if isinstance(table["prompt"], str):
                pairs.append(Pair(*(_continued(table, name, tokenizer) for name in ANSWERS)))
            elif not all(table[name] for name in ANSWERS):
                raise ValueError("an answer must hold at least one message; got none")
            else:
                read = next(before)
                pairs.append(Pair(*(_answered(read, next(encoded)) for encoded in whole)))
        except ValueError as error:
            raise ValueError(f"{source}, pair {number}: {error}" if source else str(error)) from None
    return pairs


def prompt_ids(table: Mapping[str, Any], tokenizer: Tokenizer) -> list[int]:
    """What a model reads before it answers."""
    asked = table["prompt"]
    if not isinstance(asked, str):
        return prompt(asked, tokenizer)
    ids = tokenizer.encode(asked, add_special_tokens=False)
    first = tokenizer.bos_id
    return [first, *ids] if tokenizer.begins_prompts and first is not None else ids


def _continued(table: Mapping[str, Any], name: str, tokenizer: Tokenizer) -> Encoded:
    """A text, and an answer that goes on where it ends."""
    before = prompt_ids(table, tokenizer)
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    ids = [*before, *tokenizer.encode(table[name], add_special_tokens=False), *end]
    return Encoded(ids, [i >= len(before) for i in range(len(ids))])


def _answered(before: list[int], whole: Encoded) -> Encoded:
    """A conversation, of which only what follows the prompt counts."""
    if whole.ids[: len(before)] != before:
        raise ValueError("the chat template writes the prompt otherwise once an answer follows")
    return Encoded(whole.ids, [learned and i >= len(before) for i, learned in enumerate(whole.mask)])
