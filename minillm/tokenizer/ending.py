"""Which token ends a text, where its name does not say so: what the files beside the tokenizer
know.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..files import read_json
from .base import Tokenizer


def end_of_text(folder: Path, tokenizer: Tokenizer) -> int | None:
    """The first id that a model folder calls its end of text; None when it says nothing.

    Asked in this order: ``eos_token_id`` of ``config.json`` (one id or several), ``eos_token`` of
    ``tokenizer_config.json``, ``eos_token_id`` of ``generation_config.json``.
    """
    for id in _candidates(folder, tokenizer):
        if isinstance(id, int) and not isinstance(id, bool) and 0 <= id < tokenizer.vocab_size:
            return id
    return None


def _candidates(folder: Path, tokenizer: Tokenizer) -> Iterator[Any]:
    yield from _listed(_content(folder / "config.json").get("eos_token_id"))
    token = _content(folder / "tokenizer_config.json").get("eos_token")
    name = token.get("content") if isinstance(token, dict) else token  # an added token is a table
    if isinstance(name, str):
        yield tokenizer.special_tokens.get(name)
    yield from _listed(_content(folder / "generation_config.json").get("eos_token_id"))


def _content(path: Path) -> dict[str, Any]:
    return read_json(path, limit=10_000_000) if path.is_file() else {}


def _listed(ids: Any) -> list[Any]:
    return ids if isinstance(ids, list) else [ids]
