"""Whether a text is still the one that a training began with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

BLOCK = 1 << 16  # numbers
MOST_BLOCKS = 256


def text_digest(documents: Sequence[str]) -> str:
    """SHA-256 of documents, whatever their files are called, in hexadecimal."""
    digest = hashlib.sha256()
    for document in documents:
        data = document.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def id_digest(arrays: Iterable[np.ndarray]) -> str:
    """SHA-256 of arrays of integers, of whatever width, in hexadecimal.

    Of an array with more than 256 blocks of 65,536 numbers, which may lie on a disk, so many blocks
    at equal distances are looked at, the first and the last among them, and its length.
    """
    digest = hashlib.sha256()
    for array in arrays:
        flat = array.reshape(-1)
        digest.update(len(flat).to_bytes(8, "little"))
        starts = np.arange(0, len(flat), BLOCK)
        if len(starts) > MOST_BLOCKS:
            starts = starts[np.linspace(0, len(starts) - 1, MOST_BLOCKS).astype(int)]
        for start in starts.tolist():
            digest.update(flat[start : start + BLOCK].astype("<i8").tobytes())
    return digest.hexdigest()
