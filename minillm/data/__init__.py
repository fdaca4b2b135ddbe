"""Data: what a model reads. Stories whose entropy is known, text files, and batches of either.

In reading order: grammar.py (a writer that knows the probability of its text), stories.py (what it
writes), story_corpus.py (many stories, and their floor), text.py (files), split.py (what is held
out), batches.py (from token ids to the arrays a model trains on), bucketed.py (the same, a document
to a row). For texts too large to hold:
shards.py (token ids on the disk), encode.py (from texts to shards), shard_dataset.py (batches from
shards). For a model with an encoder and a decoder: pairs.py (questions and answers), pair_files.py
(files of them), spans.py (texts with gaps), tasks.py and french.py (tasks that a small model
learns). For a model that chats: chat_grammar.py and chat_corpus.py (conversations with exact
answers).
"""

from .batches import Batch, Dataset, DocumentDataset, StreamDataset
from .bucketed import BucketedDataset
from .chat_corpus import Chat, chat_floor, chats
from .chat_grammar import ChatGrammar
from .encode import corpus_parts, encode_files
from .grammar import Choice, Document, Grammar, Pen
from .pair_files import load_pairs, split_pairs
from .pairs import IdPair, PairDataset
from .shard_dataset import ShardDataset
from .shards import Shard, ShardWriter, holds_shards, open_shards
from .spans import SpanCorruptionDataset, fill_spans, hide_spans, random_spans
from .split import split_by_count, split_documents
from .stories import StoryGrammar
from .story_corpus import corpus, floor, train_and_validation
from .tasks import TASKS, Pair, Task
from .text import load_texts, text_files

__all__ = [
    "TASKS",
    "Batch",
    "BucketedDataset",
    "Chat",
    "ChatGrammar",
    "Choice",
    "Dataset",
    "Document",
    "DocumentDataset",
    "Grammar",
    "IdPair",
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
    "chat_floor",
    "chats",
    "corpus",
    "corpus_parts",
    "encode_files",
    "fill_spans",
    "floor",
    "hide_spans",
    "holds_shards",
    "load_pairs",
    "load_texts",
    "open_shards",
    "random_spans",
    "split_by_count",
    "split_documents",
    "split_pairs",
    "text_files",
    "train_and_validation",
]


def __getattr__(name: str) -> None:
    """A sentence for somebody who looks here for what torch's module of that name has."""
    from ..autograd.torch_words import DATA, sentence

    raise AttributeError(sentence("minillm.data", name, DATA))
