"""Tokenizers: text to ids and back."""

from __future__ import annotations

from .base import StreamDecoder, Tokenizer
from .bpe import BPETokenizer
from .char import CharTokenizer
from .files import load, load_gpt2, load_ranks, load_sentencepiece
from .unigram import UnigramTokenizer

__all__ = [
    "BPETokenizer", "CharTokenizer", "StreamDecoder", "Tokenizer", "UnigramTokenizer",
    "load", "load_gpt2", "load_ranks", "load_sentencepiece",
]  # fmt: skip
