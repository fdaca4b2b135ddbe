"""Byte-pair encoding: from pieces of bytes to tokens.

A piece starts as its single bytes. A *merge* joins two adjacent tokens into a new one; merges have ranks, and the
lowest rank goes first. The twin looks through the whole piece for each merge. The kernel does the same for short
pieces, keeps the candidates of long ones in a heap (so that a million equal letters take time n log n, not n^2), and
first asks whether the piece as a whole is one token, which most are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ._jit import jit, kernel, prange

__all__ = ["MergeTable", "encode_pieces", "encode_pieces_numpy", "join_pairs"]

_PART = 2048  # pieces that one thread takes at a time
_SHORT = 64  # bytes; a longer piece goes through the heap
LONG = 9  # the length that a word table notes for every word above eight bytes
_NONE = np.int64(1 << 62)  # the value of a pair that no merge joins: larger than any rank
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)  # keep the first n of eight bytes
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: multiplying by it spreads neighbours apart
U = np.uint64


class MergeTable:
    """The merges of a vocabulary, arranged for look-up.

    byte_ids: the ids of the 256 single bytes (-1: the vocabulary lacks it). merges: (left, right, new) ids.
    ranks: the order of the merges, by default their position; equal ranks only where they make the same token, and the
    leftmost goes first. whole: pieces that are one token whatever the merges say.
    """

    def __init__(
        self,
        byte_ids: Sequence[int],
        merges: Sequence[tuple[int, int, int]],
        ranks: Sequence[int] | None = None,
        whole: Mapping[bytes, int] | None = None,
    ) -> None:
        self.byte_ids = np.array(byte_ids, np.int32)
        order = range(len(merges)) if ranks is None else ranks
        self.merges = {(left, right): (rank, new) for (left, right, new), rank in zip(merges, order, strict=True)}
        self.whole = dict(whole or {})

    @cached_property
    def tables(self) -> tuple[PairTable, WordTable]:
        """The same as hash tables for the kernel: its pairs, and the words that its merges make one token of."""
        pairs = np.array([*self.merges], np.int64).reshape(-1, 2)
        values = np.array([*self.merges.values()], np.int64).reshape(-1, 2)
        pair_table = _pair_table(pairs[:, 0] << 32 | pairs[:, 1], values[:, 0] << 32 | values[:, 1])
        made = {id: bytes([byte]) for byte, id in enumerate(self.byte_ids.tolist()) if id >= 0}
        for (left, right), (_, new) in self.merges.items():
            if left in made and right in made:
                made[new] = made[left] + made[right]
        # subtle: a hand-made vocabulary can hold a token that its own merges never reach; so each is encoded once
        data = np.frombuffer(b"".join(made.values()), np.uint8)
        ends = np.cumsum([len(word) for word in made.values()], dtype=np.int64)
        ids, lengths = _encode(data, ends, self.byte_ids, pair_table, WordTable.of({}))
        single = ids[(np.cumsum(lengths) - lengths)[lengths == 1]]
        return pair_table, WordTable.of({made[id]: id for id in single.tolist()} | self.whole)


def encode_pieces_numpy(data: np.ndarray, ends: np.ndarray, table: MergeTable) -> tuple[np.ndarray, np.ndarray]:
    """Turn pieces of bytes into tokens.

    data: (N,) uint8; ends: (P,) int64, where each piece ends -> ids (M,) int32, and lengths (P,) int32, how many of
    them each piece became. For each piece: repeat {find the adjacent pair of lowest rank, the leftmost if there are
    several, and join it} until no pair has a rank. A byte that the vocabulary lacks gives -1.
    """
    text, byte_ids, known = data.tobytes(), table.byte_ids.tolist(), {}
    ids: list[int] = []
    lengths, start = [], 0
    for end in ends.tolist():
        piece = text[start:end]
        if piece not in known:
            whole = table.whole.get(piece)
            known[piece] = join_pairs([byte_ids[b] for b in piece], table)[-1] if whole is None else [whole]
        ids += known[piece]
        lengths.append(len(known[piece]))
        start = end
    return np.array(ids, np.int32), np.array(lengths, np.int32)


def join_pairs(ids: list[int], table: MergeTable) -> list[list[int]]:
    """Apply the merges to one piece, given as the ids of its bytes; returns the piece after 0, 1, 2 ... merges."""
    steps, unranked = [ids], (float("inf"), -1)
    while True:
        ranked = [table.merges.get(pair, unranked) for pair in pairwise(ids)]
        rank, new = min(ranked, default=unranked)
        if new < 0:
            return steps
        at = ranked.index((rank, new))
        ids = [*ids[:at], new, *ids[at + 2 :]]
        steps.append(ids)


# ---- hash tables: open addressing, linear probing, at most half full -------------------------------------------------


class PairTable(NamedTuple):
    """Pairs of ids and what becomes of them; a power of two of slots."""

    keys: np.ndarray  # (S,) int64, left << 32 | right; -1 in a free slot
    values: np.ndarray  # (S,) int64, rank << 32 | new


class WordTable(NamedTuple):
    """Byte strings and their ids; a power of two of slots.

    Up to eight bytes are compared as one number. The key of a longer word only sorts out nearly all others: its bytes
    are compared too.
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
        ids = np.array([*words.values()], np.int64)
        starts, ends = np.zeros((2, max(words.values(), default=-1) + 1), np.int64)
        ends[ids] = np.cumsum([len(word) for word in words])
        starts[ids] = ends[ids] - [len(word) for word in words]
        size = _slots_for(len(words))
        table = cls(np.zeros(size, np.uint64), np.full(size, -1, np.int64), data, starts, ends)
        _place_words(ids, *table)
        return table


def padded(data: np.ndarray) -> np.ndarray:
    """The bytes and eight zeros after them, so that eight bytes can be read wherever a word begins."""
    return np.concatenate([data, np.zeros(8, np.uint8)])


def _slots_for(n: int) -> int:
    return 1 << (2 * n + 1).bit_length()


@jit
def pair_slot(key, keys):
    """The slot that holds a pair, or the free one where it belongs."""
    mask = U(len(keys) - 1)
    at = (U(key) * _SPREAD) >> U(32) & mask
    while keys[at] >= 0 and keys[at] != key:
        at = (at + U(1)) & mask
    return at


@jit
def short_key(data, start, n):
    """The n <= 8 bytes from `start` on as one number."""
    i = U(start)  # subtle: unsigned, so that LLVM sees eight neighbours and reads them at once
    low = U(data[i]) | U(data[i + U(1)]) << U(8) | U(data[i + U(2)]) << U(16) | U(data[i + U(3)]) << U(24)
    high = U(data[i + U(4)]) | U(data[i + U(5)]) << U(8) | U(data[i + U(6)]) << U(16) | U(data[i + U(7)]) << U(24)
    return (low | high << U(32)) & _MASKS[n]


@jit
def short_slot(key, n, keys, values):
    """The slot that holds a word of n <= 8 bytes, or the free one where it belongs."""
    mask = U(len(keys) - 1)
    at = (key * _SPREAD + U(n) * _SPREAD) >> U(32) & mask
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
    at = key >> U(32) & mask
    while values[at] >= 0:
        if keys[at] == key and values[at] & 255 == LONG:
            first, last = starts[values[at] >> 8], ends[values[at] >> 8]
            if last - first == end - start and np.array_equal(data[start:end], words[first:last]):
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
def _place_pairs(table_keys, table_values, keys, values):
    for i in range(len(keys)):
        at = pair_slot(keys[i], table_keys)
        table_keys[at] = keys[i]
        table_values[at] = values[i]


def _pair_table(keys: np.ndarray, values: np.ndarray) -> PairTable:
    size = _slots_for(len(keys))
    table = PairTable(np.full(size, -1, np.int64), np.full(size, _NONE, np.int64))
    _place_pairs(table.keys, table.values, keys, values)
    return table


# ---- merging ---------------------------------------------------------------------------------------------------------


@jit
def _value(left, right, keys, values):
    """Rank and result of joining two tokens: _NONE in a free slot of the table, so also where there is no merge."""
    return values[pair_slot((np.int64(left) << 32) | np.int64(right), keys)]


@jit
def _merge_short(ids, joins, n, keys, values):
    """Merge ids[:n] in place, looking through all pairs for each merge; returns how many tokens are left."""
    for i in range(n - 1):
        joins[i] = _value(ids[i], ids[i + 1], keys, values)
    while n > 1:
        best = 0
        for i in range(1, n - 1):
            if joins[i] < joins[best]:
                best = i
        if joins[best] == _NONE:
            break
        ids[best] = joins[best] & 0xFFFFFFFF
        n -= 1
        for i in range(best + 1, n):
            ids[i] = ids[i + 1]
            joins[i - 1] = joins[i]
        if best > 0:
            joins[best - 1] = _value(ids[best - 1], ids[best], keys, values)
        if best < n - 1:
            joins[best] = _value(ids[best], ids[best + 1], keys, values)
    return n


@jit
def _sift_up(heap, i):
    entry = heap[i]
    while i > 0 and heap[(i - 1) >> 1] > entry:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = entry


@jit
def _sift_down(heap, i, size):
    entry = heap[i]
    child = 2 * i + 1
    while child < size:
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[i] = heap[child]
        i, child = child, 2 * child + 1
    heap[i] = entry


@jit
def _merge_long(ids, keys, values):
    """Merge all of `ids` in place with a heap of candidates and links between the living tokens; returns how many."""
    n = len(ids)
    after = np.arange(1, n + 1)  # the next living token of each, n at the end
    before = np.arange(-1, n - 1)
    joins = np.full(n, _NONE)  # of the pair that begins at each token
    heap = np.empty(3 * n, np.int64)  # rank << 32 | position: lowest rank first, then leftmost
    size = 0
    for i in range(n - 1):
        joins[i] = _value(ids[i], ids[i + 1], keys, values)
        if joins[i] != _NONE:
            heap[size] = (joins[i] >> 32 << 32) | i
            size += 1
    for i in range(size // 2 - 1, -1, -1):
        _sift_down(heap, i, size)
    while size > 0:
        entry = heap[0]
        size -= 1
        heap[0] = heap[size]
        _sift_down(heap, 0, size)
        i = entry & 0xFFFFFFFF
        if joins[i] >> 32 != entry >> 32:  # a token of this pair was joined to another one before
            continue
        gone = after[i]
        ids[i] = joins[i] & 0xFFFFFFFF
        joins[gone] = _NONE
        after[i] = after[gone]
        if after[i] < n:
            before[after[i]] = i
        for left in (before[i], i):
            if left >= 0 and after[left] < n:
                joins[left] = _value(ids[left], ids[after[left]], keys, values)
                if joins[left] != _NONE:
                    heap[size] = (joins[left] >> 32 << 32) | left
                    _sift_up(heap, size)
                    size += 1
            elif left >= 0:
                joins[left] = _NONE
    count, i = 0, 0
    while i < n:
        ids[count] = ids[i]
        count += 1
        i = after[i]
    return count


@jit
def _encode_part(data, start, ends, byte_ids, pairs, words, out, lengths):
    """Encode the pieces data[start:ends[0]], data[ends[0]:ends[1]] ...; returns how many ids were written to `out`."""
    count = 0
    pair_keys, pair_values = pairs  # subtle: taken out of the tuples, which would count each use
    keys, values, word_data, word_starts, word_ends = words
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
            n = _merge_short(ids, joins, n, pair_keys, pair_values)
            for i in range(n):
                out[count + i] = ids[i]
        else:
            long = out[count : count + n]
            for i in range(n):
                long[i] = byte_ids[data[start + i]]
            n = _merge_long(long, pair_keys, pair_values)
        lengths[piece] = n
        count += n
        start = end
    return count


@jit(parallel=True)
def _encode_parts(data, ends, byte_ids, pairs, words, out, lengths, counts):
    """Each part writes its ids where its bytes begin: there are never more ids than bytes."""
    for part in prange(len(counts)):
        first, last = part * _PART, min((part + 1) * _PART, len(ends))
        start = ends[first - 1] if first > 0 else 0
        counts[part] = _encode_part(
            data, start, ends[first:last], byte_ids, pairs, words, out[start:], lengths[first:last]
        )


def _encode(
    data: np.ndarray, ends: np.ndarray, byte_ids: np.ndarray, pairs: PairTable, words: WordTable
) -> tuple[np.ndarray, np.ndarray]:
    out, lengths = np.empty(len(data), np.int32), np.empty(len(ends), np.int32)
    data = padded(data)
    if len(ends) <= _PART:
        return out[: _encode_part(data, 0, ends, byte_ids, pairs, words, out, lengths)].copy(), lengths
    counts = np.empty(-(-len(ends) // _PART), np.int64)
    _encode_parts(data, ends, byte_ids, pairs, words, out, lengths, counts)
    starts = [0, *ends[_PART - 1 : -1 : _PART].tolist()]
    return np.concatenate([out[at : at + n] for at, n in zip(starts, counts.tolist(), strict=True)]), lengths


@kernel(twin=encode_pieces_numpy)
def encode_pieces(data: np.ndarray, ends: np.ndarray, table: MergeTable) -> tuple[np.ndarray, np.ndarray]:
    return _encode(data, ends, table.byte_ids, *table.tables)
