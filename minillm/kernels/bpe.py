"""Byte-pair encoding: counting pieces, learning merges, applying them.

A piece starts as its single bytes. A *merge* joins two adjacent tokens into a new one; merges have ranks, and the
lowest rank goes first.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np

__all__ = ["MergeTable", "encode_pieces_numpy", "learn_merges_numpy", "unique_pieces_numpy"]


class MergeTable:
    """The merges of a vocabulary, arranged for look-up.

    byte_ids: the ids of the 256 single bytes (-1: the vocabulary lacks it). merges: (left, right, new) ids.
    ranks: the order of the merges, by default their position; equal ranks go to the leftmost. whole: pieces that are
    one token whatever the merges say.
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
        self.merges = {
            (left, right): (rank, new) for (left, right, new), rank in zip(merges, order, strict=True)
        }
        self.whole = dict(whole or {})


def encode_pieces_numpy(data: np.ndarray, ends: np.ndarray, table: MergeTable) -> tuple[np.ndarray, np.ndarray]:
    """Turn pieces of bytes into tokens.

    data: (N,) uint8; ends: (P,) int64, where each piece ends -> ids (M,) int32, and lengths (P,) int32, how many of
    them each piece became. For each piece: repeat {find the adjacent pair of lowest rank, the leftmost if there are
    several, and join it} until no pair has a rank.
    """
    text, byte_ids, known = data.tobytes(), table.byte_ids.tolist(), {}
    ids: list[int] = []
    lengths, start = [], 0
    for end in ends.tolist():
        piece = text[start:end]
        if piece not in known:
            whole = table.whole.get(piece)
            known[piece] = join_pairs([byte_ids[b] for b in piece], table) if whole is None else [whole]
        ids += known[piece]
        lengths.append(len(known[piece]))
        start = end
    return np.array(ids, np.int32), np.array(lengths, np.int32)


def join_pairs(ids: list[int], table: MergeTable) -> list[int]:
    """Apply the merges to one piece, given as the ids of its bytes."""
    unranked = (len(table.merges), -1)
    while len(ids) > 1:
        ranks = [table.merges.get(pair, unranked) for pair in pairwise(ids)]
        rank, new = min(ranks, key=lambda entry: entry[0])
        if new < 0:
            break
        at = next(i for i, entry in enumerate(ranks) if entry[0] == rank)
        ids = [*ids[:at], ranks[at][1], *ids[at + 2 :]]
    return ids


def unique_pieces_numpy(
    data: np.ndarray, ends: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep each distinct piece once, in the order of first appearance, and add up its counts.

    data: (N,) uint8; ends: (P,) int64; counts: (P,) int64 -> the same three for the distinct pieces.
    """
    text, totals, start = data.tobytes(), Counter[bytes](), 0
    for end, count in zip(ends.tolist(), counts.tolist(), strict=True):
        totals[text[start:end]] += count
        start = end
    kept = np.frombuffer(b"".join(totals), np.uint8)
    return kept, np.cumsum([len(piece) for piece in totals], dtype=np.int64), np.array([*totals.values()], np.int64)


def learn_merges_numpy(
    data: np.ndarray,
    ends: np.ndarray,
    counts: np.ndarray,
    byte_ids: np.ndarray,
    first_id: int,
    n_merges: int,
    min_frequency: int,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Learn merges: n times join the pair that is most frequent now, the lowest pair of ids among equals.

    data, ends, counts: the distinct pieces and how often each occurs; byte_ids: (256,) int32. The k-th merge makes the
    id first_id + k. Ends early when no pair is left that occurs min_frequency times. Returns pairs, (<= n, 2) int32.

    Only the pieces that hold the joined pair change, so only their pairs are counted anew (Sennrich et al. 2016).
    """
    text, ids, start = data.tobytes(), byte_ids.tolist(), 0
    words: list[list[int]] = []
    for end in ends.tolist():
        words.append([ids[b] for b in text[start:end]])
        start = end
    frequency: Counter[tuple[int, int]] = Counter()
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)  # pair -> the words that hold it
    for at, (word, count) in enumerate(zip(words, counts.tolist(), strict=True)):
        for pair in pairwise(word):
            frequency[pair] += count
            places[pair].add(at)
    heap = [(-count, pair) for pair, count in frequency.items()]
    heapify(heap)
    learned: list[tuple[int, int]] = []
    while heap and len(learned) < n_merges:
        seen, pair = heappop(heap)
        if frequency[pair] != -seen:  # subtle: counted before the last changes; it goes back with its present count
            if frequency[pair] > 0:
                heappush(heap, (-frequency[pair], pair))
            continue
        if frequency[pair] < min_frequency:
            break
        changes: Counter[tuple[int, int]] = Counter()
        for at in places.pop(pair):
            joined = _join(words[at], pair, first_id + len(learned))
            for old in pairwise(words[at]):
                changes[old] -= int(counts[at])
            for new in pairwise(joined):
                changes[new] += int(counts[at])
                places[new].add(at)
            words[at] = joined
        for changed, difference in changes.items():
            frequency[changed] += difference
            if difference > 0:
                heappush(heap, (-frequency[changed], changed))
        learned.append(pair)
        if progress:
            progress(len(learned), n_merges)
    return np.array(learned, np.int32).reshape(-1, 2)


def _join(word: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """The word with every occurrence of the pair, from left to right, replaced by the new id."""
    joined, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            joined.append(new)
            i += 2
        else:
            joined.append(word[i])
            i += 1
    return joined
