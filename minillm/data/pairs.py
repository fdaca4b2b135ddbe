"""Batches for a model that reads with one stack and writes with another: questions and answers.

An encoder reads the question, a decoder writes the answer. Of an answer a1 .. an, whose last token
is the end of text, the decoder sees at each position what stands before it, and is asked for what
comes next:

    ids          q1 q2 .. qm          (B, S)   padded with ``pad_id``, which the encoder does not look at
    decoder_ids  <start> a1 .. an-1   (B, T)   padded with ``pad_id``
    targets      a1 a2 .. an          (B, T)   padded with -100, which asks nothing
"""  # noqa: W505

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..autograd.targets import IGNORE
from .batches import Batch, Shuffled, as_token_ids

Ids = Sequence[int] | np.ndarray
IdPair = tuple[Ids, Ids]

POOL = 16  # batches that are sorted together


class PairDataset:
    """Questions and their answers as token ids, each as the tokenizer gives it: its end of text
    included.

    >>> data = PairDataset([([7, 8, 1], [5, 1]), ([9, 1], [6, 6, 1])], [([9, 9, 1], [4, 1])])
    >>> ids, decoder_ids, targets = next(data.validation(batch_size=1))
    >>> ids.tolist(), decoder_ids.tolist(), targets.tolist()
    ([[9, 9, 1]], [[0, 4]], [[4, 1]])

    pad_id, start_id: ``pad_token_id`` and ``decoder_start_token_id`` of the model's configuration,
    in T5 both 0. An epoch is a permutation of the pairs, a function of (seed, epoch). Padding costs
    as much time as text: so the pairs of 16 batches are sorted by their length before they are cut
    into batches, which come in random order.

    Raises ValueError when there are no pairs, or a question or an answer is empty.
    """

    def __init__(
        self, train_pairs: Sequence[IdPair], validation_pairs: Sequence[IdPair], pad_id: int = 0, start_id: int = 0
    ) -> None:
        self._train = _checked("train_pairs", train_pairs)
        self._validation = _checked("validation_pairs", validation_pairs)
        self._pad_id, self._start_id = pad_id, start_id
        self._lengths = np.array([len(question) + len(answer) for question, answer in self._train])
        self._order = Shuffled(len(self._train))
        self.tokens_per_epoch = sum(len(answer) for _, answer in self._train)
        self.validation_tokens = sum(len(answer) for _, answer in self._validation)

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return ``batch_size`` pairs of about the same length: ids, decoder_ids and targets."""
        pool, place = divmod(step, POOL)
        rows = self._order.chosen(pool, POOL * batch_size, seed)
        rows = rows[np.argsort(self._lengths[rows], kind="stable")].reshape(POOL, batch_size)
        chosen = rows[np.random.default_rng((seed, pool, 2)).permutation(POOL)[place]]
        return pair_batch([self._train[i] for i in chosen], self._pad_id, self._start_id)

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield every validation pair exactly once."""
        for start in range(0, len(self._validation), batch_size):
            yield pair_batch(self._validation[start : start + batch_size], self._pad_id, self._start_id)


def pair_batch(pairs: Sequence[IdPair], pad_id: int = 0, start_id: int = 0) -> Batch:
    """Lay pairs of ids into arrays: ids (B, S), decoder_ids (B, T) and targets (B, T), all int64.
    """
    ids = np.full((len(pairs), max(len(question) for question, _ in pairs)), pad_id, np.int64)
    targets = np.full((len(pairs), max(len(answer) for _, answer in pairs)), IGNORE, np.int64)
    for row, (question, answer) in enumerate(pairs):
        ids[row, : len(question)] = question
        targets[row, : len(answer)] = answer
    moved = np.where(targets == IGNORE, pad_id, targets)[:, :-1]
    decoder_ids = np.concatenate([np.full((len(pairs), 1), start_id), moved], axis=1)
    return ids, decoder_ids, targets


def _checked(name: str, pairs: Sequence[IdPair]) -> list[tuple[np.ndarray, np.ndarray]]:
    made = [
        (as_token_ids("PairDataset", name, question), as_token_ids("PairDataset", name, answer))
        for question, answer in pairs
    ]
    if not made:
        raise ValueError(f"PairDataset: {name} must hold at least one pair; got none")
    for i, (question, answer) in enumerate(made):
        if not (len(question) and len(answer)):
            raise ValueError(f"PairDataset: {name} must have a question and an answer in each pair; pair {i} lacks one")
    return made
