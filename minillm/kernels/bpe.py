"""Byte-pair encoding: from pieces of bytes to tokens, and back.

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

from ._jit import jit, kernel

__all__ = ["MergeTable", "encode_pieces", "encode_pieces_numpy", "join_pairs", "join_tokens", "join_tokens_numpy"]

_SHORT = 64  # bytes; a longer piece goes through the heap
LONG = np.int64(9)  # the length that a word table notes for every word above eight bytes
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
    def tables(self) -> tuple[np.ndarray, WordTable]:
        """The same as hash tables for the kernel: its pairs, and the words that its merges make one token of."""
        pairs = np.array([*self.merges], np.int64).reshape(-1, 2)
        values = np.array([*self.merges.values()], np.int64).reshape(-1, 2)
        pair_table = np.full((slots_for(len(pairs)), 2), -1, np.int64)
        pair_table[:, 1] = _NONE
        _place_pairs(pair_table, pairs[:, 0] << 32 | pairs[:, 1], values[:, 0] << 32 | values[:, 1])
        made = {id: bytes([byte]) for byte, id in enumerate(self.byte_ids.tolist()) if id >= 0}
        for (left, right), (_, new) in self.merges.items():
            if left in made and right in made:
                made[new] = made[left] + made[right]
        # subtle: a hand-made vocabulary can hold a token that its own merges never reach; so each is encoded once
        data = padded(np.frombuffer(b"".join(made.values()), np.uint8))
        ends = np.cumsum([len(word) for word in made.values()], dtype=np.int64)
        ids, lengths = np.empty(len(data), np.int32), np.empty(len(ends), np.int32)
        _encode(data, ends, self.byte_ids, pair_table, WordTable.of({}), ids, lengths)
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
        size = slots_for(len(words))
        table = cls(np.zeros(size, np.uint64), np.full(size, -1, np.int64), data, starts, ends)
        _place_words(ids, *table)
        return table


def padded(data: np.ndarray) -> np.ndarray:
    """The bytes and eight zeros after them, so that eight bytes can be read wherever a word begins."""
    return np.concatenate([data, np.zeros(8, np.uint8)])


def slots_for(n: int) -> int:
    """How many slots a table for n entries has: a power of two, at least twice as many."""
    return 1 << (2 * n + 1).bit_length()


@jit
def pair_slot(key, table):
    """The row of the table that holds a pair, or the free one where it belongs; column 0 holds the keys."""
    mask = U(len(table) - 1)
    at = (U(key) * _SPREAD) >> U(32) & mask
    while table[at, 0] >= 0 and table[at, 0] != key:
        at = (at + U(1)) & mask
    return at


@jit
def _place_pairs(table, keys, values):
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


# ---- merging ---------------------------------------------------------------------------------------------------------


@jit
def _value(left, right, pairs):
    """Rank and result of joining two tokens: _NONE in a free row of the table, so also where there is no merge."""
    return pairs[pair_slot(np.int64(left) << 32 | np.int64(right), pairs), 1]


@jit
def _merge_short(ids, joins, n, pairs):
    """Merge ids[:n] in place, looking through all pairs for each merge; returns how many tokens are left."""
    for i in range(n - 1):
        joins[i] = _value(ids[i], ids[i + 1], pairs)
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
            joins[best - 1] = _value(ids[best - 1], ids[best], pairs)
        if best < n - 1:
            joins[best] = _value(ids[best], ids[best + 1], pairs)
    return n


@jit
def _sift_up(heap, i):
    """Move entry i to its place. Each entry has four children, which share a cache line: half as many levels as two."""
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
    """Merge all of `ids` in place with a heap of candidates and links between the living tokens; returns how many."""
    n = len(ids)
    after, before = np.empty(n, np.int32), np.empty(n, np.int32)  # the living tokens on both sides; n, -1: none
    joins = np.empty(n, np.int64)  # rank and result of the pair that begins at each token
    heap = np.empty(3 * n, np.int64)  # rank << 32 | position: lowest rank first, then leftmost
    size = np.int64(0)
    for i in range(n):
        after[i], before[i] = i + 1, i - 1
        joins[i] = _value(ids[i], ids[i + 1], pairs) if i + 1 < n else _NONE
        if joins[i] != _NONE:
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
        joins[after[i]] = _NONE
        after[i] = after[after[i]]
        if after[i] < n:
            before[after[i]] = i
        for left in (np.int64(before[i]), i):
            if left >= 0:
                joins[left] = _value(ids[left], ids[after[left]], pairs) if after[left] < n else _NONE
                if joins[left] != _NONE:
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
    """Encode the pieces data[:ends[0]], data[ends[0]:ends[1]] ...; returns how many ids were written to `out`."""
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


@kernel(twin=encode_pieces_numpy)
def encode_pieces(data: np.ndarray, ends: np.ndarray, table: MergeTable) -> tuple[np.ndarray, np.ndarray]:
    """Turn pieces of bytes into tokens; see `encode_pieces_numpy`."""
    pairs, words = table.tables
    out, lengths = np.empty(len(data), np.int32), np.empty(len(ends), np.int32)
    count = _encode(padded(data), ends, table.byte_ids, pairs, words, out, lengths)
    return out[:count].copy(), lengths


# ---- back to bytes ---------------------------------------------------------------------------------------------------


def join_tokens_numpy(ids: np.ndarray, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """The bytes of all tokens, one after the other.

    ids: (N,) int64; data: (M + 8,) uint8, the bytes of the vocabulary, padded; starts, ends: (V,) int64, where those of
    each token begin and end, the end at -1 for an id that is not used -> (L,) uint8; None when an id is no token.
    """
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(starts):
        return None
    lengths = ends[ids] - starts[ids]
    if (lengths < 0).any():
        return None
    offsets = np.cumsum(lengths) - lengths  # where the bytes of each id go
    return data[np.arange(lengths.sum()) + np.repeat(starts[ids] - offsets, lengths)]


@jit
def _joined_length(ids, starts, ends):
    """How many bytes the tokens have together; -1 when an id is no token."""
    length = np.int64(0)
    for id in ids:
        if id < 0 or id >= len(starts) or ends[id] < starts[id]:
            return np.int64(-1)
        length += ends[id] - starts[id]
    return length


@jit
def _join_tokens(ids, data, starts, ends, out):
    """Write the bytes of the tokens into `out`, which has room for eight more than there are."""
    at = U(0)
    for id in ids:
        # subtle: always eight bytes, which LLVM moves at once; the next token is written over what was too much
        start = U(starts[id])
        n = U(ends[id]) - start
        for i in range(8):
            out[at + U(i)] = data[start + U(i)]
        for i in range(U(8), n):
            out[at + i] = data[start + i]
        at += n


@kernel(twin=join_tokens_numpy)
def join_tokens(ids: np.ndarray, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """The bytes of all tokens, one after the other; see `join_tokens_numpy`."""
    length = _joined_length(ids, starts, ends)
    if length < 0:
        return None
    out = np.empty(length + 8, np.uint8)
    _join_tokens(ids, data, starts, ends, out)
    return out[:length]
