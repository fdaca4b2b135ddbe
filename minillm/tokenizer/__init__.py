"""Tokenizers: text to ids and back."""

from __future__ import annotations

from pathlib import Path

from .base import StreamDecoder, Tokenizer
from .bpe import BPETokenizer
from .char import CharTokenizer

__all__ = ["BPETokenizer", "CharTokenizer", "StreamDecoder", "Tokenizer", "load"]


def load(path: str | Path) -> Tokenizer:
    """Read a tokenizer from a `tokenizer.json`, or from the folder that holds one.

    Raises FileNotFoundError when there is none, ValueError when it is damaged or needs a component that minillm does
    not have; the message names it.
    """
    from .tokenizer_json import read

    path = Path(path)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"load: no tokenizer at {path}: expected a tokenizer.json")
    return read(file)
