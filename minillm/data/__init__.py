"""Data: what a model reads. Stories whose entropy is known, text files, and batches of either.

In reading order: grammar.py (a writer that knows the probability of its text), stories.py (what it writes),
collection.py (many stories, and their floor), text.py (files), batches.py (from token ids to the arrays a
model trains on).
"""

from .batches import Batch, Dataset, DocumentDataset, StreamDataset
from .collection import corpus, floor, train_and_validation
from .grammar import Choice, Document, Grammar, Pen
from .stories import StoryGrammar
from .text import load_texts, split_documents

__all__ = [
    "Batch",
    "Choice",
    "Dataset",
    "Document",
    "DocumentDataset",
    "Grammar",
    "Pen",
    "StoryGrammar",
    "StreamDataset",
    "corpus",
    "floor",
    "load_texts",
    "split_documents",
    "train_and_validation",
]
