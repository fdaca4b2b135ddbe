"""The distinct pieces of a text and how often each occurs. See tokenizer/pieces.py."""

from __future__ import annotations

import numpy as np

from .._jit import jit
from .tables import LONG, first_slot, grown, long_key, long_slot, padded, short_key, short_slot


def unique_pieces(data: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See tokenizer/pieces.py."""
    found = _unique(padded(data), ends, counts)
    starts, stops, totals = found.T
    kept_ends = np.cumsum(stops - starts)
    moved = np.repeat(starts - (kept_ends - (stops - starts)), stops - starts)  # how far back each kept byte comes from
    return data[np.arange(len(moved)) + moved], kept_ends, totals.copy()


@jit
def _grow_words(keys, values):
    """The same words in a table of twice the size."""
    new_keys, new_values = np.zeros(2 * len(keys), np.uint64), np.full(2 * len(keys), -1, np.int64)
    mask = np.uint64(len(new_keys) - 1)
    for slot in range(len(keys)):
        if values[slot] >= 0:
            at = first_slot(keys[slot], values[slot] & 255, mask)
            while new_values[at] >= 0:
                at = (at + np.uint64(1)) & mask
            new_keys[at], new_values[at] = keys[slot], values[slot]
    return new_keys, new_values


@jit
def _unique(data, ends, counts):
    """Where each distinct piece begins and ends first, and its total count: (W, 3)."""
    keys, values = np.zeros(1024, np.uint64), np.full(1024, -1, np.int64)
    found = np.empty((512, 3), np.int64)
    n_found, start = 0, np.int64(0)
    for piece in range(len(ends)):
        end = ends[piece]
        n = min(end - start, LONG)
        if n < LONG:
            key = short_key(data, start, n)
            at = short_slot(key, n, keys, values)
        else:
            key = long_key(data, start, end)
            at = long_slot(key, data, start, end, keys, values, data, found[:, 0], found[:, 1])
        if values[at] < 0:
            keys[at], values[at] = key, n_found << 8 | n
            found[n_found, 0], found[n_found, 1], found[n_found, 2] = start, end, 0
            n_found += 1
        found[values[at] >> 8, 2] += counts[piece]
        if 2 * n_found == len(keys):
            keys, values = _grow_words(keys, values)
            found = grown(found, len(keys) // 2)
        start = end
    return found[:n_found]
