"""Byte-pair encoding: from pieces of bytes to tokens. See tokenizer/bpe.py.

Short pieces are looked through for each merge. The candidates of long ones are kept in a heap, so
that a million equal letters take time n log n, not n^2. Most pieces are one token as a whole: that
is asked first.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from .._jit import jit
from .tables import (
    NONE,
    WordTable,
    long_key,
    long_slot,
    padded,
    pair_slot,
    place_pairs,
    short_key,
    short_slot,
    slots_for,
)

PARALLEL = False  # a text is worked on by one thread; several Python threads share a long one

if TYPE_CHECKING:
    from ...tokenizer.bpe import Merges

_SHORT = 64  # bytes; a longer piece goes through the heap


def encode_pieces(data: np.ndarray, ends: np.ndarray, merges: Merges) -> tuple[np.ndarray, np.ndarray]:
    """See tokenizer/bpe.py."""
    if merges not in _TABLES:
        _TABLES[merges] = _tables(merges)
    pairs, words = _TABLES[merges]
    out, lengths = np.empty(len(data), np.int32), np.empty(len(ends), np.int32)
    count = _encode(padded(data), ends, merges.byte_ids, pairs, words, out, lengths)
    return out[:count].copy(), lengths


_TABLES: WeakKeyDictionary[Merges, tuple[np.ndarray, WordTable]] = WeakKeyDictionary()


def _tables(merges: Merges) -> tuple[np.ndarray, WordTable]:
    """Hash tables of the pairs, and of the words that the merges make one token of."""
    pairs, values = _as_array(merges.pairs), _as_array(merges.pairs.values())
    pair_table = np.full((slots_for(len(pairs)), 2), -1, np.int64)
    pair_table[:, 1] = NONE
    place_pairs(pair_table, pairs[:, 0] << 32 | pairs[:, 1], values[:, 0] << 32 | values[:, 1])
    made = {id: bytes([byte]) for byte, id in enumerate(merges.byte_ids.tolist()) if id >= 0}
    for (left, right), (_, new) in merges.pairs.items():
        if left in made and right in made:
            made[new] = made[left] + made[right]
    # subtle: a hand-made vocabulary can hold a token that its own merges never reach; so each is
    # encoded once
    data = padded(np.frombuffer(b"".join(made.values()), np.uint8))
    ends = np.cumsum([len(word) for word in made.values()], dtype=np.int64)
    ids, lengths = np.empty(len(data), np.int32), np.empty(len(ends), np.int32)
    _encode(data, ends, merges.byte_ids, pair_table, WordTable.of({}), ids, lengths)
    single = ids[(np.cumsum(lengths) - lengths)[lengths == 1]]
    return pair_table, WordTable.of({made[id]: id for id in single.tolist()} | merges.whole)


def _as_array(pairs: Collection[tuple[int, int]]) -> np.ndarray:
    """(N, 2) int64; three times as fast as np.array, which looks at the type of every number."""
    return np.fromiter(chain.from_iterable(pairs), np.int64, 2 * len(pairs)).reshape(-1, 2)


@jit
def _value(left, right, pairs):
    """Rank and result of joining two tokens: NONE in a free row of the table, so also where there
    is no merge.
    """
    return pairs[pair_slot(np.int64(left) << 32 | np.int64(right), pairs), 1]


@jit
def _merge_short(ids, joins, n, pairs):
    """Merge ids[:n] in place, looking through all pairs for each merge; returns how many tokens are
    left.
    """
    for i in range(n - 1):
        joins[i] = _value(ids[i], ids[i + 1], pairs)
    while n > 1:
        best = 0
        for i in range(1, n - 1):
            if joins[i] < joins[best]:
                best = i
        if joins[best] == NONE:
            break
        ids[best] = joins[best] & 0xFFFFFFFF
        n -= 1
        for i in range(best + 1, n):
            ids[i] = ids[i + 1]
            joins[i - 1] = joins[i]
        if best > 0:
            joins[best - 1] = _value(ids[best - 1], ids[best], pairs)
        if best < n - 1:
            joins[best] = _value(ids[best], ids[best + 1], pairs)
    return n


@jit
def _sift_up(heap, i):
    """Move entry i to its place. Each entry has four children, which share a cache line: half as
    many levels as two.
    """
    entry = heap[i]
    while i > 0 and heap[(i - 1) >> 2] > entry:
        heap[i] = heap[(i - 1) >> 2]
        i = (i - 1) >> 2
    heap[i] = entry


@jit
def _sift_down(heap, size):
    """Move the top entry to its place."""
    entry = heap[0]
    i, child = 0, 1
    while child < size:
        for other in range(child + 1, min(child + 4, size)):
            if heap[other] < heap[child]:
                child = other
        if heap[child] >= entry:
            break
        heap[i] = heap[child]
        i, child = child, 4 * child + 1
    heap[i] = entry


@jit
def _merge_long(ids, pairs):
    """Merge all of `ids` in place with a heap of candidates and links between the living tokens;
    returns how many.
    """
    n = len(ids)
    after, before = np.empty(n, np.int32), np.empty(n, np.int32)  # the living tokens on both sides; n, -1: none
    joins = np.empty(n, np.int64)  # rank and result of the pair that begins at each token
    heap = np.empty(3 * n, np.int64)  # rank << 32 | position: lowest rank first, then leftmost
    size = np.int64(0)
    for i in range(n):
        after[i], before[i] = i + 1, i - 1
        joins[i] = _value(ids[i], ids[i + 1], pairs) if i + 1 < n else NONE
        if joins[i] != NONE:
            heap[size] = joins[i] >> 32 << 32 | i
            _sift_up(heap, size)
            size += 1
    while size > 0:
        entry = heap[0]
        size -= 1
        heap[0] = heap[size]
        _sift_down(heap, size)
        i = entry & 0xFFFFFFFF
        if joins[i] >> 32 != entry >> 32:  # a token of this pair was joined to another one before
            continue
        ids[i] = joins[i] & 0xFFFFFFFF
        joins[after[i]] = NONE
        after[i] = after[after[i]]
        if after[i] < n:
            before[after[i]] = i
        for left in (np.int64(before[i]), i):
            if left >= 0:
                joins[left] = _value(ids[left], ids[after[left]], pairs) if after[left] < n else NONE
                if joins[left] != NONE:
                    heap[size] = joins[left] >> 32 << 32 | left
                    _sift_up(heap, size)
                    size += 1
    count, i = 0, 0
    while i < n:
        ids[count] = ids[i]
        count += 1
        i = after[i]
    return count


@jit
def _encode(data, ends, byte_ids, pairs, words, out, lengths):
    """Encode the pieces data[:ends[0]], data[ends[0]:ends[1]] ...; returns how many ids were
    written to `out`.
    """
    count, start = 0, np.int64(0)  # subtle: to Numba a plain 0 is a type of its own, and all below is compiled twice
    keys, values, word_data, word_starts, word_ends = words  # subtle: a use inside the tuple would be counted
    ids, joins = np.empty(_SHORT, np.int32), np.empty(_SHORT, np.int64)
    for piece in range(len(ends)):
        end = ends[piece]
        n = end - start
        if n <= 8:
            word = values[short_slot(short_key(data, start, n), n, keys, values)]
        else:
            key = long_key(data, start, end)
            word = values[long_slot(key, data, start, end, keys, values, word_data, word_starts, word_ends)]
        if word >= 0:
            out[count] = word >> 8
            n = 1
        elif n <= _SHORT:
            for i in range(n):
                ids[i] = byte_ids[data[start + i]]
            n = _merge_short(ids, joins, n, pairs)
            for i in range(n):
                out[count + i] = ids[i]
        else:
            long = out[count : count + n]
            for i in range(n):
                long[i] = byte_ids[data[start + i]]
            n = _merge_long(long, pairs)
        lengths[piece] = n
        count += n
        start = end
    return count
