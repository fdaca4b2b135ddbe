"""Tokenizers: text to ids and back."""

from __future__ import annotations

from .base import StreamDecoder, Tokenizer
from .bpe import BPETokenizer
from .char import CharTokenizer
from .files import load, load_gpt2, load_ranks

__all__ = ["BPETokenizer", "CharTokenizer", "StreamDecoder", "Tokenizer", "load", "load_gpt2", "load_ranks"]
