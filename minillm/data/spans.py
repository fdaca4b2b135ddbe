"""Span corruption: how T5 learns from text that nobody has labelled (Raffel et al. 2020, section
3.1.4).

    text     Thank you for inviting me to your party last week .
    input    Thank you <extra_id_0> me to your party <extra_id_1> week .
    target   <extra_id_0> for inviting <extra_id_1> last <extra_id_2>

Some words are taken out, and the model has to say which. Each gap is marked by a sentinel of its
own, and the target is the gaps alone, each behind its sentinel: the other way round, what is
visible has become the gap. So a target is much shorter than the text, and cheap to write. A share
of 15 % is hidden, in spans of 3 tokens on average.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .batches import Batch, Shuffled, TokenIds, as_token_ids
from .pairs import pair_batch

DENSITY = 0.15
MEAN_LENGTH = 3.0


def random_spans(
    length: int, rng: np.random.Generator, density: float = DENSITY, mean_length: float = MEAN_LENGTH
) -> np.ndarray:
    """Choose which tokens of a text to hide: (length,) booleans.

    round(density x length) tokens, at least one and never all, in spans of ``mean_length`` on
    average, no two side by side; all ways to do so are equally likely. (T5's own program hides the
    end of every text, which does not matter where texts have 512 tokens. In short ones it would be
    nearly all that is ever asked.)

    >>> "".join("-x"[hidden] for hidden in random_spans(40, np.random.default_rng(0)).astype(int))
    '----------------------xx------xxxx------'

    Raises ValueError for a text shorter than 2 tokens, a density outside (0, 1), or a mean length
    below 1.
    """
    hidden, spans = _how_many(length, density, mean_length)
    runs = np.empty(2 * spans + 1, np.int64)
    runs[0::2] = _random_lengths(length - hidden + 2, spans + 1, rng)
    runs[[0, -1]] -= 1  # the first and the last visible run may be empty
    runs[1::2] = _random_lengths(hidden, spans, rng)
    return np.repeat(np.arange(2 * spans + 1) % 2 == 1, runs)


def _how_many(length: int, density: float, mean_length: float) -> tuple[int, int]:
    """How many tokens of a text are hidden, and in how many spans."""
    if length < 2:
        raise ValueError(f"random_spans: length must be at least 2; got {length}")
    if not 0 < density < 1 or not mean_length >= 1:
        raise ValueError(
            f"random_spans: density must be between 0 and 1, mean_length at least 1; got {density} and {mean_length}"
        )
    hidden = min(max(round(length * density), 1), length - 1)
    return hidden, min(max(round(hidden / mean_length), 1), length - hidden)


def _random_lengths(total: int, parts: int, rng: np.random.Generator) -> np.ndarray:
    """Cut ``total`` into ``parts`` lengths of at least 1, all ways equally likely: (parts,)."""
    cuts = [0, *sorted(rng.choice(total - 1, parts - 1, replace=False) + 1), total]
    return np.array(cuts[1:]) - cuts[:-1]


def hide_spans(ids: TokenIds, hidden: np.ndarray, sentinels: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Replace each run of hidden tokens by the next sentinel: the input, and the target that says
    what was there.

    ids: (N,) token ids. hidden: (N,) booleans. Where a text ends visible, the target ends with one
    more sentinel.

    >>> hidden = np.array([False, True, True, False, True, False])
    >>> [part.tolist() for part in hide_spans([1, 2, 3, 4, 5, 6], hidden, sentinels=[99, 98, 97])]
    [[1, 99, 4, 98, 6], [99, 2, 3, 98, 5, 97]]

    Raises ValueError when there are more gaps than sentinels.
    """
    marks = iter(sentinels)
    inputs: list[int] = []
    target: list[int] = []
    try:
        was_hidden = False
        for id, is_hidden in zip(as_token_ids("hide_spans", "ids", ids).tolist(), hidden.tolist(), strict=True):
            if is_hidden and not was_hidden:  # a gap begins
                mark = next(marks)
                inputs.append(mark)
                target.append(mark)
            (target if is_hidden else inputs).append(id)
            was_hidden = is_hidden
        if not was_hidden:
            target.append(next(marks))
    except StopIteration:
        raise ValueError(f"hide_spans: the text has more gaps than there are sentinels, {len(sentinels)}") from None
    return np.array(inputs, np.int64), np.array(target, np.int64)


def fill_spans(inputs: TokenIds, target: TokenIds, sentinels: Sequence[int]) -> np.ndarray:
    """Put what a target says into the gaps of an input: ``hide_spans``'s inverse, for targets that
    a model wrote.

    A gap of which the target says nothing stays empty; what the target says of no gap is left out.

    >>> fill_spans([1, 99, 4, 98, 6], [99, 2, 3, 98, 5, 97], sentinels=[99, 98, 97]).tolist()
    [1, 2, 3, 4, 5, 6]
    """
    marks = {int(id) for id in sentinels}
    found: dict[int, list[int]] = {}
    gap: list[int] = []  # what comes before the first sentinel is of no gap
    for id in as_token_ids("fill_spans", "target", target).tolist():
        if id in marks:
            gap = found.setdefault(id, [])
        else:
            gap.append(id)
    text: list[int] = []
    for id in as_token_ids("fill_spans", "inputs", inputs).tolist():
        text += found.get(id, []) if id in marks else [id]
    return np.array(text, np.int64)


class SpanCorruptionDataset:
    """Texts with gaps, new gaps each time a text comes round, and what was in them.

    train_docs, validation_docs: one sequence of token ids per text, without end-of-text tokens;
    ``eos_id`` is put behind inputs and targets. sentinels: ids of ``<extra_id_0>``,
    ``<extra_id_1>``, ... pad_id, start_id: as in `PairDataset`, whose batches these are. An epoch
    is a permutation of the texts, a function of (seed, epoch); the gaps of a batch are a function
    of (seed, step), those of the validation texts are always the same.

    Raises ValueError when there are no texts, or one has less than 2 tokens.
    """

    def __init__(
        self,
        train_docs: Sequence[TokenIds],
        validation_docs: Sequence[TokenIds],
        sentinels: Sequence[int],
        eos_id: int,
        pad_id: int = 0,
        start_id: int = 0,
        density: float = DENSITY,
        mean_length: float = MEAN_LENGTH,
    ) -> None:
        self._train = [as_token_ids("SpanCorruptionDataset", "train_docs", ids) for ids in train_docs]
        validation = [as_token_ids("SpanCorruptionDataset", "validation_docs", ids) for ids in validation_docs]
        if not (self._train and validation):
            raise ValueError("SpanCorruptionDataset: train_docs and validation_docs must hold at least one text each")
        self._sentinels, self._eos_id, self._pad_id, self._start_id = sentinels, eos_id, pad_id, start_id
        self._density, self._mean_length = density, mean_length
        self._order = Shuffled(len(self._train))
        self._validation = [self.corrupt(ids, np.random.default_rng((0, i))) for i, ids in enumerate(validation)]
        counts = [_how_many(len(ids), density, mean_length) for ids in self._train]
        # sentinels and the end are targets too; where a text ends in a gap, there is one sentinel
        # less
        self.tokens_per_epoch = sum(hidden + spans + 2 for hidden, spans in counts)
        self.validation_tokens = sum(len(target) for _, target in self._validation)

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return the next ``batch_size`` texts of the epoch's order with gaps: ids, decoder_ids and
        targets.
        """
        rng = np.random.default_rng((seed, step, 2))
        pairs = [self.corrupt(self._train[i], rng) for i in self._order.chosen(step, batch_size, seed)]
        return pair_batch(pairs, self._pad_id, self._start_id)

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield every validation text exactly once."""
        for start in range(0, len(self._validation), batch_size):
            yield pair_batch(self._validation[start : start + batch_size], self._pad_id, self._start_id)

    def corrupt(self, ids: TokenIds, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A text with gaps, and what was in them, both with their end."""
        ids = as_token_ids("SpanCorruptionDataset", "ids", ids)
        hidden = random_spans(len(ids), rng, self._density, self._mean_length)
        inputs, target = hide_spans(ids, hidden, self._sentinels)
        end = [self._eos_id]
        return np.concatenate([inputs, end]), np.concatenate([target, end])
