"""Batches: from token ids to the arrays (x, y) that a model trains on.

In a row, ``y[t]`` is the token that follows ``x[t]``: at every position the model is asked for the
next token. Targets of -100 ask nothing (they pad a row). Two kinds of text, one interface
(`Dataset`):

- `StreamDataset`: one long text; a row is a random window of it.
- `DocumentDataset`: many short texts; a row holds whole documents, each from its beginning to its
  end-of-text token. (`BucketedDataset`: one document to a row.)

A batch is a pure function of (seed, step): a training run that was interrupted at step 700
continues at step 700 with the very batch it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..autograd.targets import IGNORE
from .digest import id_digest

Batch = tuple[np.ndarray, ...]  # what the model reads (x, or the ids of encoder and decoder), then the targets
TokenIds = npt.ArrayLike  # (N,) integers: a list, an array, or a memory-mapped file of uint16 or uint32


class Dataset(Protocol):
    """What a trainer needs of its data."""

    @property
    def tokens_per_epoch(self) -> int:
        """The number of targets in one pass over the training data."""

    @property
    def validation_tokens(self) -> int:
        """The number of targets in the validation data: the divisor of its mean loss."""

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return the training batch of a step: int64 arrays, the last one the targets (B, T)."""

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield every validation target exactly once; the last batch may have fewer rows."""


class StreamDataset:
    """Random windows of ``context`` tokens from one long text.

    train_ids, validation_ids: (N,) token ids; a ``np.memmap`` stays on the disk. Training rows
    start anywhere, drawn with replacement; validation rows stand side by side, so that each target
    counts once.

    >>> data = StreamDataset(range(100), range(5), context=4)
    >>> x, y = data.batch(step=0, batch_size=2, seed=1)
    >>> bool((y == x + 1).all())
    True

    Raises ValueError when the training text is shorter than one window of context + 1 tokens.
    """

    def __init__(self, train_ids: TokenIds, validation_ids: TokenIds, context: int) -> None:
        self.context = positive("StreamDataset", "context", context)
        self._train = as_token_ids("StreamDataset", "train_ids", train_ids)
        validation = as_token_ids("StreamDataset", "validation_ids", validation_ids)
        if len(self._train) < context + 1:
            raise ValueError(
                f"StreamDataset: the training text is shorter than one context: it has {len(self._train)} "
                f"tokens, a context of {context} needs at least {context + 1}"
            )
        if len(validation) < 2:
            raise ValueError(f"StreamDataset: validation_ids must hold at least 2 tokens; got {len(validation)}")
        self._validation = validation

    @property
    def tokens_per_epoch(self) -> int:
        """The number of targets in the training text."""
        return len(self._train) - 1

    @property
    def validation_tokens(self) -> int:
        """The number of targets in the validation text."""
        return len(self._validation) - 1

    def digest(self) -> str:
        """SHA-256 of the token ids, see `id_digest`."""
        return id_digest([self._train, self._validation])

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return ``batch_size`` windows, drawn anew for each (seed, step): x and y, (B, T) int64.
        """
        rng = np.random.default_rng((seed, step))
        starts = rng.integers(0, len(self._train) - self.context, size=batch_size)
        windows = self._train[starts[:, None] + np.arange(self.context + 1)].astype(np.int64)  # (B, T + 1)
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield the validation text in rows that stand side by side: x and y, (B, T) int64."""
        targets_per_batch = batch_size * self.context
        for start in range(0, self.validation_tokens, targets_per_batch):
            piece = np.asarray(self._validation[start : start + targets_per_batch + 1])
            yield _inputs_and_targets(windows(piece, self.context), padding_id=0)


class DocumentDataset:
    """Whole documents, several to a row of ``context`` tokens.

    train_docs, validation_docs: one sequence of token ids per document, without end-of-text tokens.
    A document is ``[EOS] d1 .. dn [EOS]``: the first EOS is only an input (it says "a text
    begins"), the last one only a target ("it ends here"), so n tokens make n + 1 targets. In a row
    the EOS that ends one document begins the next:

    >>> data = DocumentDataset([[1, 2, 3], [4, 5]], [[6]], context=7, eos_id=0)
    >>> x, y = data.batch(step=0, batch_size=1, seed=0)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2, 3, 0, 4, 5]], [[1, 2, 3, 0, 4, 5, 0]])

    Documents are packed into rows once; an epoch is a permutation of the rows,
    ``np.random.default_rng((seed, epoch))``. A document that does not fit a row is continued in
    further rows, without sight of what came before: ``train_continued`` and
    ``validation_continued`` count such documents.

    Raises ValueError when the training documents together are shorter than one context.
    """

    def __init__(
        self,
        train_docs: Sequence[TokenIds],
        validation_docs: Sequence[TokenIds],
        context: int,
        eos_id: int,
    ) -> None:
        self.context = positive("DocumentDataset", "context", context)
        self.eos_id = int(eos_id)
        train = [as_token_ids("DocumentDataset", "train_docs", ids) for ids in train_docs]
        validation = [as_token_ids("DocumentDataset", "validation_docs", ids) for ids in validation_docs]
        self.tokens_per_epoch = sum(len(ids) + 1 for ids in train)
        self.validation_tokens = sum(len(ids) + 1 for ids in validation)
        if self.tokens_per_epoch < context:
            raise ValueError(
                f"DocumentDataset: the training text is shorter than one context: its {len(train)} documents "
                f"have {self.tokens_per_epoch} tokens, a context of {context} needs at least as many: "
                "choose a smaller one"
            )
        if not validation:
            raise ValueError("DocumentDataset: validation_docs must hold at least one document; got none")
        self.train_continued = sum(len(ids) + 1 > context for ids in train)
        self.validation_continued = sum(len(ids) + 1 > context for ids in validation)
        self._train_rows = _pack(train, context, self.eos_id)  # (R, T + 1)
        self._validation_rows = _pack(validation, context, self.eos_id)
        self._order = Shuffled(len(self._train_rows))

    def digest(self) -> str:
        """SHA-256 of the token ids, see `id_digest`."""
        return id_digest([self._train_rows, self._validation_rows])

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return the next ``batch_size`` rows of the epoch's order: x and y, (B, T) int64.

        A batch that reaches the end of an epoch goes on with the next one, so all batches have the
        same size.
        """
        chosen = self._order.chosen(step, batch_size, seed)
        return _inputs_and_targets(self._train_rows[chosen], padding_id=self.eos_id)

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield every validation document exactly once: x and y, (B, T) int64."""
        for start in range(0, len(self._validation_rows), batch_size):
            rows = self._validation_rows[start : start + batch_size]
            yield _inputs_and_targets(rows, padding_id=self.eos_id)


class Shuffled:
    """Which of ``count`` rows each step sees: an epoch is a permutation of all, drawn from
    (seed, epoch).
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._permutation: tuple[tuple[int, int], np.ndarray] | None = None  # of the epoch that was asked for last

    def chosen(self, step: int, batch_size: int, seed: int) -> np.ndarray:
        """The rows of a step, (batch_size,); one that reaches the end of an epoch goes on with the
        next.
        """
        epochs, places = np.divmod(np.arange(step * batch_size, (step + 1) * batch_size), self._count)
        chosen = np.empty(batch_size, dtype=np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            chosen[inside] = self._order(seed, epoch)[places[inside]]
        return chosen

    def _order(self, seed: int, epoch: int) -> np.ndarray:
        known = self._permutation  # read once: another thread may ask for another epoch meanwhile
        if known is None or known[0] != (seed, epoch):
            known = self._permutation = ((seed, epoch), np.random.default_rng((seed, epoch)).permutation(self._count))
        return known[1]


def _pack(documents: list[np.ndarray], context: int, eos_id: int) -> np.ndarray:
    """Lay documents into as few rows as a simple rule finds: (R, context + 1), padded with -100.

    Longest first, each into the fullest row that still has room (best fit decreasing). Rows by
    their free places are kept in ``rows_with_room``; bit r of ``open_rooms`` is set when a row with
    r free places exists, so that the smallest sufficient room is the lowest set bit at or above the
    length.
    """
    rows: list[list[np.ndarray]] = []
    rows_with_room: list[list[int]] = [[] for _ in range(context + 1)]
    open_rooms = 0

    def leave_open(row: int, room: int) -> None:
        nonlocal open_rooms
        rows_with_room[room].append(row)
        open_rooms |= 1 << room

    short = []
    for ids in documents:
        if len(ids) + 1 <= context:
            short.append(ids)
            continue
        # A long document fills rows of its own; its rest opens a row, so that it never follows
        # another document.
        for window in windows(np.concatenate(([eos_id], ids, [eos_id])), context):
            window = window[window != IGNORE]
            rows.append([window[:1], window[1:]])
            leave_open(len(rows) - 1, context - (len(window) - 1))

    eos = np.array([eos_id])
    for ids in sorted(short, key=len, reverse=True):
        length = len(ids) + 1
        fitting = open_rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                open_rooms &= ~(1 << room)
        else:
            room, row = context, len(rows)
            rows.append([eos])
        rows[row] += [ids, eos]
        leave_open(row, room - length)

    packed = np.full((len(rows), context + 1), IGNORE, dtype=np.int32)
    for i, pieces in enumerate(rows):
        tokens = np.concatenate(pieces)
        packed[i, : len(tokens)] = tokens
    return packed


def windows(ids: np.ndarray, context: int) -> np.ndarray:
    """Cut ids (N,) into rows (R, context + 1), each begun by the last token of the row before; -100
    pads.
    """
    count = -(-(len(ids) - 1) // context)
    padded = np.full(count * context + 1, IGNORE, dtype=np.int64)
    padded[: len(ids)] = ids
    return padded[np.arange(count)[:, None] * context + np.arange(context + 1)]


def _inputs_and_targets(rows: np.ndarray, padding_id: int) -> Batch:
    """Rows (B, T + 1) padded with -100 -> x padded with ``padding_id``, y with -100: both (B, T)
    int64.
    """
    x = rows[:, :-1].astype(np.int64)
    y = rows[:, 1:].astype(np.int64)
    x[x == IGNORE] = padding_id
    return x, y


def as_token_ids(function: str, name: str, ids: TokenIds) -> np.ndarray:
    """Token ids as an (N,) integer array; an error names the function and the argument."""
    array = np.asanyarray(ids)  # keeps a memory-mapped array on the disk
    if array.size == 0:
        array = array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{function}: {name} must be token ids, (N,) integers; got shape {array.shape} of {array.dtype}"
        )
    if array.dtype.kind == "i" and array.size and array.min() < 0:
        raise ValueError(f"{function}: {name} must not be negative; got {array.min()}")
    return array


def positive(function: str, name: str, value: int) -> int:
    """``value`` as an int, if it is at least 1."""
    if value < 1:
        raise ValueError(f"{function}: {name} must be at least 1; got {value}")
    return int(value)
