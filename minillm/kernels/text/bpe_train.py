"""Learning a byte-pair vocabulary. See tokenizer/bpe.py.

All pieces lie in one row of cells, a cell per byte, with an edge between two pieces. A token of
several bytes stands in its first cell; its last cell holds minus its length, so that the token
before any cell is found at once. The cells where a pair begins are a linked list, so that a merge
goes from one occurrence to the next and never looks at anything else. The pairs are in a hash
table, and the most frequent one is on top of a heap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._jit import jit
from .tables import grown, pair_slot

PARALLEL = False  # a text is worked on by one thread; several Python threads share a long one

_AT_A_TIME = 64  # merges between two calls of `progress`
_EDGE = np.int32(-(1 << 31))  # what stands in the cell between two pieces
_TOKEN, _PIECE, _AFTER, _BEFORE = range(4)  # columns of the cells, int32: what stands there, whose it is, list links
_KEY, _COUNT, _HEAD = range(3)  # columns of the table of pairs, int64: left << 32 | right, frequency, first cell


def learn_merges(
    ids: np.ndarray,
    ends: np.ndarray,
    counts: np.ndarray,
    first_id: int,
    n_merges: int,
    min_frequency: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """See tokenizer/bpe.py."""
    cells = np.empty((len(ids) + len(ends) + 1, 4), np.int32)
    sizes = np.ones(first_id + n_merges, np.int64)  # bytes of each token
    pairs, n_pairs = _first_pairs(ids, ends, counts, sizes, cells)
    heap = _first_heap(pairs, n_pairs)
    learned, done, until, size = np.empty((n_merges, 2), np.int32), 0, 0, n_pairs
    while done == until < n_merges:
        until = min(until + _AT_A_TIME, n_merges)
        done, pairs, n_pairs, heap, size = _learn(
            learned, done, until, first_id, min_frequency, sizes, counts, cells, pairs, n_pairs, heap, size
        )
        if progress:
            progress(done, n_merges)
    return learned[:done].copy()


@jit
def _token_before(cell, cells):
    """Where the token before this cell begins; -1 at the beginning of a piece."""
    last = cells[cell - 1, _TOKEN]
    if last == _EDGE:
        return -1
    return cell - 1 if last >= 0 else cell + last


@jit
def _pair_at(cell, cells, sizes):
    """The key of the pair that begins at this cell; -1 for none."""
    if cell < 0 or cells[cell, _TOKEN] == _EDGE:
        return -1
    left = np.int64(cells[cell, _TOKEN])
    right = np.int64(cells[cell + sizes[left], _TOKEN])
    return -1 if right == _EDGE else left << 32 | right


@jit
def _add(cell, key, count, cells, pairs):
    """Note that a pair begins at this cell; returns True for a pair that was never seen."""
    at = pair_slot(key, pairs)
    fresh = pairs[at, _KEY] < 0
    if fresh:
        pairs[at, _KEY], pairs[at, _COUNT], pairs[at, _HEAD] = key, 0, -1
    pairs[at, _COUNT] += count
    first = pairs[at, _HEAD]
    cells[cell, _AFTER], cells[cell, _BEFORE] = first, -1
    if first >= 0:
        cells[first, _BEFORE] = cell
    pairs[at, _HEAD] = cell
    return fresh


@jit
def _drop(cell, key, count, cells, pairs):
    """Note that a pair begins no longer at this cell."""
    at = pair_slot(key, pairs)
    pairs[at, _COUNT] -= count
    after, before = cells[cell, _AFTER], cells[cell, _BEFORE]
    if before >= 0:
        cells[before, _AFTER] = after
    else:
        pairs[at, _HEAD] = after
    if after >= 0:
        cells[after, _BEFORE] = before


@jit
def _join(cell, new, sizes, counts, cells, pairs, fresh, n_fresh):
    """Join the pair that begins at this cell. Writes keys of pairs never seen into `fresh`; returns
    how many it has.
    """
    count = counts[cells[cell, _PIECE]]
    previous = _token_before(cell, cells)
    middle = cell + sizes[cells[cell, _TOKEN]]
    for at in (previous, cell, middle):
        key = _pair_at(at, cells, sizes)
        if key >= 0:
            _drop(at, key, count, cells, pairs)
    cells[cell, _TOKEN] = new
    cells[cell + sizes[new] - 1, _TOKEN] = -sizes[new]
    for at in (previous, cell):
        key = _pair_at(at, cells, sizes)
        if key >= 0 and _add(at, key, count, cells, pairs):
            fresh[n_fresh] = key
            n_fresh += 1
    return n_fresh


@jit
def _join_everywhere(key, new, sizes, counts, cells, pairs, fresh):
    """Join one pair wherever it stands; returns how many keys of pairs never seen it wrote into
    `fresh`.
    """
    n_fresh = np.int64(0)
    at = pair_slot(key, pairs)
    while pairs[at, _HEAD] >= 0:
        cell = pairs[at, _HEAD]
        if key >> 32 == key & 0xFFFFFFFF:  # subtle: pairs of equal tokens overlap; a run is joined from its left end
            previous = _token_before(cell, cells)
            while _pair_at(previous, cells, sizes) == key:
                cell = previous
                previous = _token_before(cell, cells)
        while _pair_at(cell, cells, sizes) == key:
            n_fresh = _join(cell, new, sizes, counts, cells, pairs, fresh, n_fresh)
            cell += sizes[new]
    return n_fresh


@jit
def _goes_first(heap, i, j):
    """Whether entry i comes before entry j: the larger count, among equals the lower pair."""
    return heap[i, 1] > heap[j, 1] or (heap[i, 1] == heap[j, 1] and heap[i, 0] < heap[j, 0])


@jit
def _swap(heap, i, j):
    for column in range(2):
        heap[i, column], heap[j, column] = heap[j, column], heap[i, column]


@jit
def _push(heap, size, key, count):
    heap[size, 0], heap[size, 1] = key, count
    while size > 0 and _goes_first(heap, size, (size - 1) >> 1):
        _swap(heap, size, (size - 1) >> 1)
        size = (size - 1) >> 1


@jit
def _sift_down(heap, size):
    """Move the top entry down to its place."""
    i, child = np.int64(0), np.int64(1)
    while child < size:
        if child + 1 < size and _goes_first(heap, child + 1, child):
            child += 1
        if not _goes_first(heap, child, i):
            break
        _swap(heap, i, child)
        i, child = child, 2 * child + 1


@jit
def _with_room(pairs, n_pairs):
    """The table of pairs, at most half full with `n_pairs`: itself or a larger one."""
    size = len(pairs)
    while size < 2 * n_pairs:
        size *= 2
    if size == len(pairs):
        return pairs
    grown = np.full((size, 3), -1, np.int64)
    for row in range(len(pairs)):
        if pairs[row, _KEY] >= 0:
            at = pair_slot(pairs[row, _KEY], grown)
            for column in range(3):
                grown[at, column] = pairs[row, column]
    return grown


@jit
def _first_pairs(ids, ends, counts, sizes, cells):
    """Lay the pieces out as single bytes and count their pairs; returns the table of pairs and how
    many it holds.
    """
    cells[0, _TOKEN] = _EDGE
    cell, start = 1, 0
    for piece in range(len(ends)):
        for i in range(start, ends[piece]):
            cells[cell, _TOKEN], cells[cell, _PIECE] = ids[i], piece
            cell += 1
        cells[cell, _TOKEN] = _EDGE
        cell += 1
        start = ends[piece]
    pairs, n_pairs = np.full((1024, 3), -1, np.int64), 0
    for cell in range(len(cells) - 2, 0, -1):  # backwards, so that the lists run forwards
        key = _pair_at(cell, cells, sizes)
        if key >= 0:
            n_pairs += _add(cell, key, counts[cells[cell, _PIECE]], cells, pairs)
            pairs = _with_room(pairs, n_pairs + 1)
    return pairs, n_pairs


@jit
def _first_heap(pairs, n_pairs):
    heap, size = np.empty((n_pairs, 2), np.int64), np.int64(0)
    for row in range(len(pairs)):
        if pairs[row, _KEY] >= 0:
            _push(heap, size, pairs[row, _KEY], pairs[row, _COUNT])
            size += 1
    return heap


@jit
def _learn(learned, done, until, first_id, min_frequency, sizes, counts, cells, pairs, n_pairs, heap, size):
    """Learn merges number `done` to `until`; returns how many there are, and the table and the heap
    as they are now.
    """
    fresh = np.empty(2 * len(sizes) + 2, np.int64)  # a new token has at most every token on each of its sides
    while done < until and size > 0:
        key = heap[0, 0]
        count = pairs[pair_slot(key, pairs), _COUNT]
        if count != heap[0, 1]:  # it lost occurrences since: it goes down to its present place
            heap[0, 1] = count
            _sift_down(heap, size)
            continue
        if count < min_frequency:
            break
        room = min(2 * count, len(fresh))
        pairs = _with_room(pairs, n_pairs + room)
        if size + room > len(heap):
            heap = grown(heap, 2 * (size + room))
        new = first_id + done
        sizes[new] = sizes[key >> 32] + sizes[key & 0xFFFFFFFF]
        n_fresh = _join_everywhere(key, new, sizes, counts, cells, pairs, fresh)
        for i in range(n_fresh):
            _push(heap, size + i, fresh[i], pairs[pair_slot(fresh[i], pairs), _COUNT])
        n_pairs += n_fresh
        size += n_fresh
        learned[done, 0], learned[done, 1] = key >> 32, key & 0xFFFFFFFF
        done += 1
    return done, pairs, n_pairs, heap, size
