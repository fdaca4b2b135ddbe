"""Data: what a model reads. Corpora whose entropy is known, text files, batches."""

from .batches import Dataset, DocumentDataset, StreamDataset
from .text import load_texts, split_documents

__all__ = ["Dataset", "DocumentDataset", "StreamDataset", "load_texts", "split_documents"]
