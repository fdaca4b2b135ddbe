"""Each document in a row of its own, together with others of about its length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..autograd.targets import IGNORE
from .batches import Batch, TokenIds, as_token_ids, positive, windows
from .digest import id_digest


class BucketedDataset:
    """One document to a row, and in a batch documents of about the same length.

    train_docs, validation_docs: one sequence of token ids per document, without end-of-text tokens.
    As in `DocumentDataset` a document is ``[EOS] d1 .. dn [EOS]``, n + 1 targets. But no document
    is seen from the next one, so attention need not learn first that what strangers did does not
    matter; and a batch is as wide as its longest document, so little of it is padding:

    >>> data = BucketedDataset([[1, 2, 3], [4, 5], [6, 7], [8]], [[9]], context=4, eos_id=0)
    >>> for x, y in (data.batch(step, batch_size=2, seed=0) for step in range(2)):
    ...     print(x.tolist(), y.tolist())
    [[0, 1, 2, 3], [0, 6, 7, 0]] [[1, 2, 3, 0], [6, 7, 0, -100]]
    [[0, 4, 5], [0, 8, 0]] [[4, 5, 0], [8, 0, -100]]

    A batch holds up to batch_size * context places: many short documents, or a few long ones. An
    epoch is all batches in an order drawn from (seed, epoch), which also shuffles the documents of
    one length. A document that does not fit a row is continued in further rows, without sight of
    what came before: ``train_continued`` and ``validation_continued`` count such documents.

    Raises ValueError when there is no document to validate on, or the training documents together
    are shorter than one context.
    """

    def __init__(
        self, train_docs: Sequence[TokenIds], validation_docs: Sequence[TokenIds], context: int, eos_id: int
    ) -> None:
        self.context, self.eos_id = positive("BucketedDataset", "context", context), int(eos_id)
        self._train, self.train_continued = self._rows("train_docs", train_docs)
        self._validation, self.validation_continued = self._rows("validation_docs", validation_docs)
        self.tokens_per_epoch = sum(len(row) - 1 for row in self._train)
        self.validation_tokens = sum(len(row) - 1 for row in self._validation)
        if self.tokens_per_epoch < context:
            raise ValueError(
                f"BucketedDataset: the training text is shorter than one context: its {len(train_docs)} documents "
                f"have {self.tokens_per_epoch} tokens, a context of {context} needs at least as many: "
                "choose a smaller one"
            )
        self._buckets: dict[int, list[slice]] = {}  # of the training rows, for each batch size
        self._epoch: tuple[tuple[int, int, int], list[np.ndarray]] | None = None  # that was asked for last

    def digest(self) -> str:
        """SHA-256 of the token ids and of where documents end, see `id_digest`."""
        rows = [*self._train, *self._validation]
        return id_digest([np.concatenate(rows), np.array([len(row) for row in rows])])

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return the batch of a step: x and y, (B, T) int64 with B * T <= batch_size * context."""
        if batch_size not in self._buckets:
            self._buckets[batch_size] = _buckets(self._train, batch_size * self.context, fill=True)
        buckets = self._buckets[batch_size]
        epoch, place = divmod(step, len(buckets))
        key, known = (batch_size, seed, epoch), self._epoch
        if known is None or known[0] != key:  # read once: another thread may ask for another epoch meanwhile
            rng = np.random.default_rng((seed, epoch))
            lengths = np.array([len(row) for row in self._train])
            order = np.lexsort((rng.random(len(lengths)), -lengths))
            known = self._epoch = key, [order[buckets[i]] for i in rng.permutation(len(buckets))]
        return self._batch([self._train[i] for i in known[1][place]])

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield every validation document exactly once: x and y, (B, T) int64."""
        for bucket in _buckets(self._validation, batch_size * self.context):
            yield self._batch(self._validation[bucket])

    def _rows(self, name: str, documents: Sequence[TokenIds]) -> tuple[list[np.ndarray], int]:
        """Documents with the token before and after each, as rows of at most context + 1 tokens,
        longest first.
        """
        rows, continued, eos = [], 0, np.array([self.eos_id])
        for document in documents:
            ids = np.concatenate((eos, as_token_ids("BucketedDataset", name, document), eos))
            if len(ids) <= self.context + 1:
                rows.append(ids)
                continue
            continued += 1
            rows += [window[window != IGNORE] for window in windows(ids, self.context)]
        if not rows:
            raise ValueError(f"BucketedDataset: {name} must hold at least one document; got none")
        return sorted(rows, key=len, reverse=True), continued

    def _batch(self, rows: list[np.ndarray]) -> Batch:
        shape = len(rows), max(map(len, rows)) - 1
        x, y = np.full(shape, self.eos_id, np.int64), np.full(shape, IGNORE, np.int64)
        for i, row in enumerate(rows):
            x[i, : len(row) - 1], y[i, : len(row) - 1] = row[:-1], row[1:]
        return x, y


def _buckets(rows: list[np.ndarray], places: int, fill: bool = False) -> list[slice]:
    """Where each batch begins and ends among the rows, longest first.

    fill: what is left for the last batch may be little; take rows of the one before once more.
    """
    lengths = [len(row) - 1 for row in rows]
    buckets, start = [], 0
    while start < len(rows):
        buckets.append(slice(start, min(len(rows), start + places // lengths[start])))
        start = buckets[-1].stop
    if fill:
        start = buckets.pop().start
        while start > 0 and (len(rows) - start + 1) * lengths[start - 1] <= places:
            start -= 1
        buckets.append(slice(start, len(rows)))
    return buckets
