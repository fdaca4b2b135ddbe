"""Hash tables of pairs and of byte strings: open addressing, linear probing, at most half full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .._jit import jit

NONE = np.int64(1 << 62)  # the value of a pair that no merge joins: larger than any rank
LONG = np.int64(9)  # the length that a word table notes for every word above eight bytes
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # keep the first n of eight bytes
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiplying by it spreads neighbours apart
U = np.uint64


class WordTable(NamedTuple):
    """Byte strings and their ids; a power of two of slots.

    Up to eight bytes are compared as one number. The key of a longer word only sorts out nearly all
    others: its bytes are compared too.
    """

    keys: np.ndarray  # (S,) uint64, the bytes of a short word, a hash of a long one
    values: np.ndarray  # (S,) int64, id << 8 | length (LONG for all above 8); -1 in a free slot
    data: np.ndarray  # (N + 8,) uint8, the words one after the other
    starts: np.ndarray  # (V,) int64, where the word of each id begins in `data` ...
    ends: np.ndarray  # (V,) int64, ... and ends

    @classmethod
    def of(cls, words: Mapping[bytes, int]) -> WordTable:
        """The table of a dictionary."""
        data = padded(np.frombuffer(b"".join(words), np.uint8))
        ids = np.fromiter(words.values(), np.int64, len(words))
        lengths = np.fromiter(map(len, words), np.int64, len(words))
        starts, ends = np.zeros((2, ids.max(initial=-1) + 1), np.int64)
        ends[ids] = np.cumsum(lengths)
        starts[ids] = ends[ids] - lengths
        size = slots_for(len(words))
        table = cls(np.zeros(size, np.uint64), np.full(size, -1, np.int64), data, starts, ends)
        _place_words(ids, *table)
        return table


def padded(data: np.ndarray) -> np.ndarray:
    """The bytes and eight zeros after them, so that eight bytes can be read wherever a word
    begins.
    """
    return np.concatenate([data, np.zeros(8, np.uint8)])


def slots_for(n: int) -> int:
    """How many slots a table for n entries has: a power of two, at least twice as many."""
    return 1 << (2 * n + 1).bit_length()


@jit
def pair_slot(key, table):
    """The row of the table that holds a pair, or the free one where it belongs; column 0 holds the
    keys.
    """
    mask = U(len(table) - 1)
    at = (U(key) * _SPREAD) >> U(32) & mask
    while table[at, 0] >= 0 and table[at, 0] != key:
        at = (at + U(1)) & mask
    return at


@jit
def place_pairs(table, keys, values):
    """Put pairs into a table that has room for them."""
    for i in range(len(keys)):
        at = pair_slot(keys[i], table)
        table[at, 0], table[at, 1] = keys[i], values[i]


@jit
def short_key(data, start, n):
    """The n <= 8 bytes from `start` on as one number."""
    i = U(start)  # subtle: unsigned, so that LLVM sees eight neighbours and reads them at once
    low = U(data[i]) | U(data[i + U(1)]) << U(8) | U(data[i + U(2)]) << U(16) | U(data[i + U(3)]) << U(24)
    high = U(data[i + U(4)]) | U(data[i + U(5)]) << U(8) | U(data[i + U(6)]) << U(16) | U(data[i + U(7)]) << U(24)
    return (low | high << U(32)) & _MASKS[n]


@jit
def first_slot(key, n, mask):
    """The slot from which the search for a word begins; n: its length, or LONG."""
    return (key + U(n)) * _SPREAD >> U(32) & mask


@jit
def short_slot(key, n, keys, values):
    """The slot that holds a word of n <= 8 bytes, or the free one where it belongs."""
    mask = U(len(keys) - 1)
    at = first_slot(key, n, mask)
    while values[at] >= 0 and not (keys[at] == key and values[at] & 255 == n):
        at = (at + U(1)) & mask
    return at


@jit
def long_key(data, start, end):
    """A hash of a word of more than eight bytes."""
    key = U(end - start)
    for i in range(start, end):
        key = (key ^ U(data[i])) * _SPREAD
        key ^= key >> U(29)
    return key


@jit
def long_slot(key, data, start, end, keys, values, words, starts, ends):
    """The slot that holds a word of more than eight bytes, or the free one where it belongs."""
    mask = U(len(keys) - 1)
    at = first_slot(key, LONG, mask)
    while values[at] >= 0:
        if keys[at] == key and values[at] & 255 == LONG:
            first, last = starts[values[at] >> 8], ends[values[at] >> 8]
            i = start
            while i < end and last - first == end - start and data[i] == words[first + i - start]:
                i += 1
            if i == end:
                break
        at = (at + U(1)) & mask
    return at


@jit
def _place_words(ids, keys, values, data, starts, ends):
    for id in ids:
        start, end = starts[id], ends[id]
        n = end - start
        key = short_key(data, start, n) if n <= 8 else long_key(data, start, end)
        if n <= 8:
            at = short_slot(key, n, keys, values)
        else:
            at = long_slot(key, data, start, end, keys, values, data, starts, ends)
        keys[at] = key
        values[at] = id << 8 | min(n, LONG)


@jit
def grown(rows, size):
    """The same rows in an array that has `size` of them."""
    more = np.empty((size, rows.shape[1]), np.int64)
    for row in range(len(rows)):  # subtle: a slice assignment would be compiled with all its error messages
        for column in range(rows.shape[1]):
            more[row, column] = rows[row, column]
    return more
