r"""Tokenizers: from text to a list of small integers, and back.

A model reads numbers. One number per word would leave no number for words that were never seen; one
per byte would make every text long. *Byte-pair encoding* lies between: it begins with the 256
bytes, and gives frequent neighbours a number of their own, as often as the vocabulary allows. Ten
lines show all of it:

>>> text = " low" * 5 + " lower" * 2 + " newest" * 6 + " widest" * 3
>>> tokenizer = BPETokenizer.train([text], vocab_size=256 + 4, special_tokens=())
>>> [tokenizer.token_bytes(id) for id in range(256, 260)]   # most frequent first: e + s, in 9 words
[b'es', b'est', b'lo', b' lo']
>>> tokenizer.encode(" lowest")                             # the same merges, in the same order
[259, 86, 257]
>>> [tokenizer.token_bytes(id) for id in [259, 86, 257]]
[b' lo', b'w', b'est']
>>> tokenizer.decode([259, 86, 257])
' lowest'
>>> tokenizer.encode("é"), tokenizer.decode([127, 102])     # never seen: its two bytes
([127, 102], 'é')

Read in this order: bpe.py (the three functions at its top are all of byte-pair encoding),
patterns.py and pieces.py (how text is cut before), base.py and specials.py (what all tokenizers
share: special tokens, decoding), char.py, lattice.py, unigram.py and unigram_train.py (T5: every
piece has a probability), sentencepiece_bpe.py (Llama 2, Mistral). The rest are formats
(byte_level.py, normalize.py, character_map.py, sentencepiece.py, to_json.py, from_json.py,
from_gguf.py, files.py), stream.py (texts too large to hold) and show.py (`minillm tokenize`).
"""

from __future__ import annotations

from .base import StreamDecoder, Tokenizer
from .bpe import BPETokenizer
from .char import CharTokenizer
from .files import load, load_gpt2, load_ranks, load_sentencepiece
from .stream import read_parts
from .unigram import UnigramTokenizer

__all__ = [
    "BPETokenizer", "CharTokenizer", "StreamDecoder", "Tokenizer", "UnigramTokenizer",
    "load", "load_gpt2", "load_ranks", "load_sentencepiece", "read_parts",
]  # fmt: skip
