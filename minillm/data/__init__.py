"""Data: what a model reads. Stories whose entropy is known, text files, and batches of either.

In reading order: grammar.py (a writer that knows the probability of its text), stories.py (what it writes),
collection.py (many stories, and their floor), text.py (files), batches.py (from token ids to the arrays a
model trains on), shards.py (token ids on the disk, of texts too large to hold). For a model with an encoder and a
decoder: pairs.py (questions and answers), spans.py (texts with gaps), tasks.py and french.py (tasks that a small model
learns).
"""

from .batches import Batch, Dataset, DocumentDataset, StreamDataset
from .collection import corpus, floor, train_and_validation
from .grammar import Choice, Document, Grammar, Pen
from .pairs import PairDataset
from .shards import Shard, ShardDataset, ShardWriter, corpus_parts, encode_files, holds_shards, open_shards
from .spans import SpanCorruptionDataset, fill_spans, hide_spans, random_spans
from .stories import StoryGrammar
from .tasks import TASKS, Pair, Task
from .text import load_texts, split_documents, text_files

__all__ = [
    "TASKS",
    "Batch",
    "Choice",
    "Dataset",
    "Document",
    "DocumentDataset",
    "Grammar",
    "Pair",
    "PairDataset",
    "Pen",
    "Shard",
    "ShardDataset",
    "ShardWriter",
    "SpanCorruptionDataset",
    "StoryGrammar",
    "StreamDataset",
    "Task",
    "corpus",
    "corpus_parts",
    "encode_files",
    "fill_spans",
    "floor",
    "hide_spans",
    "holds_shards",
    "load_texts",
    "open_shards",
    "random_spans",
    "split_documents",
    "text_files",
    "train_and_validation",
]
