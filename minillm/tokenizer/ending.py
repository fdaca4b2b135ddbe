"""Which token ends a text, where its name does not say so, and which begins one: what the files
beside the tokenizer know.
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
        if _is_id(id, tokenizer):
            return id
    return None


def beginning_of_text(folder: Path, tokenizer: Tokenizer) -> tuple[int | None, bool]:
    """The id that a model folder calls its beginning of text, and whether it goes before a prompt.

    It does where the tokenizer's template puts it there; and in run folders of old, whose
    ``add_bos`` nobody else reads. Without a template ``transformers`` begins an empty prompt with
    the ``bos_token_id`` of ``generation_config.json``, or of ``config.json``; last comes the
    ``bos_token`` of ``tokenizer_config.json``. Files that are damaged say nothing: whoever needs
    them will complain.
    """
    if tokenizer._template.before:
        return tokenizer._template.before[0], True
    contents = []
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        try:
            contents.append(_content(folder / name))
        except ValueError:
            contents.append({})
    generation, model, words = contents
    candidates = (generation.get("bos_token_id"), model.get("bos_token_id"), _named(words.get("bos_token"), tokenizer))
    found = next((id for id in candidates if _is_id(id, tokenizer)), None)
    return found, generation.get("add_bos") is True


def _is_id(id: Any, tokenizer: Tokenizer) -> bool:
    return isinstance(id, int) and not isinstance(id, bool) and 0 <= id < tokenizer.vocab_size


def _named(token: Any, tokenizer: Tokenizer) -> int | None:
    """The id of a token's name, or of an added token, which is a table."""
    name = token.get("content") if isinstance(token, dict) else token
    return tokenizer.special_tokens.get(name) if isinstance(name, str) else None


def _candidates(folder: Path, tokenizer: Tokenizer) -> Iterator[Any]:
    yield from _listed(_content(folder / "config.json").get("eos_token_id"))
    yield _named(_content(folder / "tokenizer_config.json").get("eos_token"), tokenizer)
    yield from _listed(_content(folder / "generation_config.json").get("eos_token_id"))


def _content(path: Path) -> dict[str, Any]:
    return read_json(path, limit=10_000_000) if path.is_file() else {}


def _listed(ids: Any) -> list[Any]:
    return ids if isinstance(ids, list) else [ids]
