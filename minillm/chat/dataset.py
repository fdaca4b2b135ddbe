"""Conversations as batches: a row for each, of which the assistant's tokens are the targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..autograd.targets import IGNORE
from ..data.batches import Batch, Shuffled
from .encode import Encoded

POOL = 16  # batches that are sorted together


class ChatDataset:
    """Rows of one conversation each, for the Trainer.

    train, validation: what `encode` gives. context: how many tokens the model can see; longer
    conversations are left out and counted (`left_out`), for one that is cut would teach to go on
    for ever, or not at all.

    In a row, ``y[t]`` is the token after ``x[t]`` where that is the assistant's, else -100, which
    asks nothing. The rows of a batch are of similar lengths: see `SimilarLengths`.

    >>> data = ChatDataset([Encoded([5, 6, 7, 2], [False, False, True, True])] * 2, [], context=8)
    >>> x, y = data.batch(step=0, batch_size=1, seed=0)
    >>> x.tolist(), y.tolist()
    ([[5, 6, 7]], [[-100, 7, 2]])

    Raises ValueError when there is nothing to learn.
    """

    def __init__(self, train: Sequence[Encoded], validation: Sequence[Encoded], context: int | None) -> None:
        self._train, self._validation = (_fitting(part, context) for part in (train, validation))
        self.left_out = len(train) + len(validation) - len(self._train) - len(self._validation)
        if not self._train:
            raise ValueError(
                f"ChatDataset: no conversation has an answer to learn and fits {context} tokens; got {len(train)}"
            )
        self._order = SimilarLengths([len(encoded.ids) for encoded in self._train])
        self.tokens_per_epoch = sum(sum(encoded.mask[1:]) for encoded in self._train)
        self.validation_tokens = sum(sum(encoded.mask[1:]) for encoded in self._validation)

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return ``batch_size`` conversations of about the same length: x and y, (B, T) int64."""
        chosen = self._order.chosen(step, batch_size, seed)
        return chat_batch([self._train[i] for i in chosen])

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield every validation conversation exactly once."""
        for start in range(0, len(self._validation), batch_size):
            yield chat_batch(self._validation[start : start + batch_size])


class SimilarLengths:
    """Which rows each step sees: of about the same length, for padding costs as much time as text.

    lengths: of all rows. An epoch is a permutation of them, a function of (seed, epoch), of which
    16 batches at a time are sorted by length.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self._lengths, self._order = np.array(lengths), Shuffled(len(lengths))

    def chosen(self, step: int, batch_size: int, seed: int) -> np.ndarray:
        """The rows of a step, (batch_size,)."""
        pool, place = divmod(step, POOL)
        rows = self._order.chosen(pool, POOL * batch_size, seed)
        rows = rows[np.argsort(self._lengths[rows], kind="stable")].reshape(POOL, batch_size)
        return rows[np.random.default_rng((seed, pool, 2)).permutation(POOL)[place]]


def chat_batch(rows: Sequence[Encoded]) -> Batch:
    """Lay conversations into arrays: x (B, T), padded with 0, and y (B, T), with -100."""
    T = max(len(row.ids) for row in rows) - 1
    x, y = np.zeros((len(rows), T), np.int64), np.full((len(rows), T), IGNORE, np.int64)
    for i, (ids, mask) in enumerate(rows):
        x[i, : len(ids) - 1] = ids[:-1]
        y[i, : len(ids) - 1] = np.where(mask[1:], ids[1:], IGNORE)
    return x, y


def _fitting(part: Sequence[Encoded], context: int | None) -> list[Encoded]:
    return [e for e in part if any(e.mask[1:]) and (context is None or len(e.ids) <= context + 1)]
