"""Beam search: looking for the most likely text, instead of drawing one.

The most likely token now can lead to an unlikely text. So W beginnings of texts, the beams, are
continued side by side. At each step all their continuations by one token compete, and the W most
likely go on. One that ends leaves the race and waits among the finished, where

    score = log p(text) / length^length_penalty

lets texts of different lengths be compared: log p falls with each token, so without the division
(length_penalty 0) the shortest would win. The search ends when no beam can become better than the
worst of W finished texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .config import GenerationConfig
from .processors import ALL_FORBIDDEN, Penalty, log_sum_exp
from .result import Row, Trace, check_finite

if TYPE_CHECKING:
    from ..models import LanguageModel
    from ..models.base import Cache

__all__ = ["beam_search"]


@dataclass
class Beam:
    """The beginning of a text, or a whole one."""

    ids: list[int]
    logprob: float  # of the whole, after the penalties
    trace: Trace
    score: float = 0.0  # once it is finished


def beam_search(
    model: LanguageModel,
    logits: np.ndarray,
    cache: Cache,
    config: GenerationConfig,
    penalties: Sequence[Penalty],
    new_row: Callable[..., Row],
    is_cancelled: Callable[[], bool],
) -> list[Row]:
    """Search for the ``config.n`` best texts after a prompt that the model has read: best first.

    logits: (1, V), what it said after the prompt, in ``cache``. penalties: the steps that change
    the log-probabilities. new_row: makes the empty row for the text of some rank; it is also asked
    what ends a text.

    The rules are those of ``transformers``: only the W best continuations of a step can finish;
    early_stopping True ends with W finished texts, False when the best beam's score, at its present
    length, is no better than theirs, and "never" when it could not become better up to the greatest
    length.
    """
    W = config.num_beams
    empty = new_row()
    stop_ids = [id for id in empty.ending.ids if id < logits.shape[1]]
    # each beam has at most one continuation for each way to end: so many are enough to find W that
    # go on
    count = W * (1 + max(1, len(stop_ids)))
    beams, finished = [Beam([], 0.0, Trace())], list[Beam]()
    while beams:
        if is_cancelled():
            finished = _ranked(finished + beams, config)
            break
        normalizers = log_sum_exp(logits)  # (W,), or (1,) at first
        check_finite(normalizers.tolist(), len(beams[0].ids))
        scores = logits - normalizers[:, None]  # (W, V)
        past = np.array([empty.prompt.ids + beam.ids for beam in beams])
        for penalize in penalties:
            scores = penalize(scores, past)
        going, parents = list[Beam](), list[int]()
        for rank, (parent, id, logprob) in enumerate(_best(scores, [beam.logprob for beam in beams], count)):
            old = beams[parent]
            ends = _ends(old.ids + [id], empty, new_row)
            if (ends and rank >= W) or (not ends and len(going) == W):
                continue
            beam = Beam(old.ids + [id], logprob, old.trace.copy())
            beam.trace.add(id, logits[parent], float(normalizers[parent]), stop_ids, config.logprobs)
            if ends:
                finished.append(beam)
            else:
                going.append(beam)
                parents.append(parent)
        beams, finished = going, _ranked(finished, config)
        if not beams or (len(finished) == W and _is_decided(beams[0], finished[-1], config, empty.limit[0])):
            break
        cache = cache.reorder(np.array(parents))
        logits = model.next_logits(np.array([beam.ids[-1:] for beam in beams]), cache)
    if not finished:
        raise ValueError(ALL_FORBIDDEN)
    return [_written(beam, new_row(rank)) for rank, beam in enumerate(finished[: config.n])]


def _best(scores: np.ndarray, logprobs: list[float], count: int) -> Iterator[tuple[int, int, float]]:
    """The ``count`` most likely continuations of all beams, best first: (beam, token,
    log-probability of the whole).

    scores: (W, V) log-probabilities of the next token, with -inf for what is forbidden.
    """
    totals = (scores + np.array(logprobs)[:, None]).ravel()  # (W * V,)
    count = min(count, len(totals))
    best = np.argpartition(-totals, count - 1)[:count]
    for place in best[(-totals[best]).argsort(kind="stable")].tolist():
        if totals[place] > -np.inf:
            yield *divmod(place, scores.shape[1]), float(totals[place])


def _ends(ids: list[int], empty: Row, new_row: Callable[..., Row]) -> bool:
    """Whether a text ends with its last token."""
    if ids[-1] in empty.ending.ids or len(ids) >= empty.limit[0]:
        return True
    if not empty.ending.strings and empty.ending.criterion is None:
        return False
    row = new_row()
    for id in ids:
        row.push(id)
    return row.finish_reason is not None


def _written(beam: Beam, row: Row) -> Row:
    """Write the text of a beam into an empty row."""
    for id in beam.ids:
        row.push(id)
    if row.finish_reason is None:
        row.finish("cancelled")
    row.trace, row.score = beam.trace, beam.score
    return row


def _ranked(beams: list[Beam], config: GenerationConfig) -> list[Beam]:
    """The best ``num_beams`` texts, best first, with their scores."""
    for beam in beams:
        beam.score = beam.logprob / max(1, len(beam.ids)) ** config.length_penalty
    return sorted(beams, key=lambda beam: beam.score, reverse=True)[: config.num_beams]


def _is_decided(best: Beam, worst: Beam, config: GenerationConfig, most: int) -> bool:
    """Whether the best beam that goes on is not expected to overtake the worst of W finished texts.
    """
    if config.early_stopping is True:
        return True
    length = most if config.early_stopping == "never" and config.length_penalty > 0 else len(best.ids)
    return best.logprob / length**config.length_penalty <= worst.score
