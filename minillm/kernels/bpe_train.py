"""Learning a byte-pair vocabulary: counting the distinct pieces of a text, then joining their most frequent pairs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import pairwise

import numpy as np

__all__ = ["learn_merges_numpy", "unique_pieces_numpy"]


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
