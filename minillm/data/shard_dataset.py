"""Batches from shards: the trainer reads the rows it needs, and the ids stay on the disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..autograd.targets import IGNORE
from .batches import Batch
from .digest import id_digest
from .shards import Shard


class ShardDataset:
    """Random windows of `context` tokens from the shards of a corpus, for the trainer; the ids stay
    on the disk.

    A batch is a pure function of (seed, step). Validation rows stand side by side, so that each
    target counts once; where they hold more than `most_validation` tokens, only every n-th row is
    read, or a large corpus would be measured for hours.

    Raises ValueError when no training shard has room for a window, or the validation shards hold no
    target.
    """

    def __init__(
        self,
        train: Sequence[Shard],
        validation: Sequence[Shard],
        context: int,
        most_validation: int | None = None,
    ) -> None:
        self.context = context
        self._train = [shard for shard in train if len(shard.tokens) > context]
        self._validation = [shard for shard in validation if len(shard.tokens) > 1]
        if not self._train:
            raise ValueError(f"ShardDataset: no training shard is longer than one context of {context} tokens")
        if not self._validation:
            raise ValueError("ShardDataset: the validation shards must hold at least 2 tokens")
        self.tokens_per_epoch = sum(len(shard.tokens) - 1 for shard in self._train)
        # how many windows begin in this shard or one before it
        self._windows = np.cumsum([len(shard.tokens) - context for shard in self._train])
        targets = np.array([len(shard.tokens) - 1 for shard in self._validation])
        rows = np.cumsum(-(-targets // context))  # how many rows begin in this shard or one before it
        every = 1 if most_validation is None else -(-int(rows[-1]) * context // most_validation)
        chosen = np.arange(0, rows[-1], every)
        self._shards = np.searchsorted(rows, chosen, side="right")  # (R,) where each validation row comes from ...
        self._starts = (chosen - np.concatenate([[0], rows])[self._shards]) * context  # ... and begins there
        self.validation_tokens = int(np.minimum(context, targets[self._shards] - self._starts).sum())

    def digest(self) -> str:
        """SHA-256 of the token ids and of where documents end, see `id_digest`."""
        return id_digest([part for shard in (*self._train, *self._validation) for part in (shard.tokens, shard.ends)])

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return `batch_size` windows, drawn anew for each (seed, step): x and y, (B, T) int64.

        Raises ValueError for an id that is not in the vocabulary.
        """
        drawn = np.random.default_rng((seed, step)).integers(0, self._windows[-1], size=batch_size)
        shards = np.searchsorted(self._windows, drawn, side="right")
        starts = drawn - np.concatenate([[0], self._windows])[shards]
        rows = [self._train[s].read(at, at + self.context + 1) for s, at in zip(shards, starts, strict=True)]
        windows = np.stack(rows).astype(np.int64)  # (B, T + 1)
        return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield each validation target exactly once; rows that are too short are filled up with
        targets of -100.

        Raises ValueError for an id that is not in the vocabulary.
        """
        for first in range(0, len(self._starts), batch_size):
            starts = self._starts[first : first + batch_size]
            rows = np.full((len(starts), self.context + 1), IGNORE, np.int64)  # (B, T + 1)
            for row, shard, start in zip(rows, self._shards[first : first + batch_size], starts, strict=True):
                ids = self._validation[shard].read(start, start + self.context + 1)
                row[: len(ids)] = ids
            yield np.maximum(rows[:, :-1], 0), np.ascontiguousarray(rows[:, 1:])
