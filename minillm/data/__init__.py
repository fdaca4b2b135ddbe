"""Data: what a model reads. Stories whose entropy is known, text files, and batches of either.

In reading order: grammar.py (a writer that knows the probability of its text), stories.py (what it writes),
collection.py (many stories, and their floor), text.py (files), batches.py (from token ids to the arrays a
model trains on), shards.py (token ids on the disk, of texts too large to hold).
"""

from .batches import Batch, Dataset, DocumentDataset, StreamDataset
from .collection import corpus, floor, train_and_validation
from .grammar import Choice, Document, Grammar, Pen
from .shards import Shard, ShardDataset, ShardWriter, corpus_parts, encode_files, holds_shards, open_shards
from .stories import StoryGrammar
from .text import load_texts, split_documents, text_files

__all__ = [
    "Batch",
    "Choice",
    "Dataset",
    "Document",
    "DocumentDataset",
    "Grammar",
    "Pen",
    "Shard",
    "ShardDataset",
    "ShardWriter",
    "StoryGrammar",
    "StreamDataset",
    "corpus",
    "corpus_parts",
    "encode_files",
    "floor",
    "holds_shards",
    "load_texts",
    "open_shards",
    "split_documents",
    "text_files",
    "train_and_validation",
]
