"""From scores to a token: every parameter of generation is a small step on an array of logits.

A step takes logits (B, V), one row for each text, and returns new ones; a token that is out of the
question has -inf. The penalties also look at the past (B, T), the ids of each text so
far, with -1 where a shorter text is padded on the left. They run in this order, and a step that is
off is not in the list:

    penalties -> bias -> temperature -> top-k -> top-p -> min-p -> typical -> draw
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from .config import GenerationConfig
from .large_vocabulary import BLOCK, draw_by_blocks, likely_enough

__all__ = [
    "add_bias",
    "apply_temperature",
    "draw",
    "draw_index",
    "filters",
    "forbid",
    "forbid_repeated_ngrams",
    "keep_min_p",
    "keep_top_k",
    "keep_top_p",
    "keep_typical",
    "log_sum_exp",
    "most_likely",
    "penalize_frequency",
    "penalize_repetition",
    "penalties",
]

tiny_is_zero = np.errstate(under="ignore")  # a probability too small for a float is as good as 0, under np.seterr too

Penalty = Callable[[np.ndarray, np.ndarray], np.ndarray]  # logits (B, V), past (B, T) -> logits (B, V)
Filter = Callable[[np.ndarray], np.ndarray]  # logits (B, V) -> logits (B, V)


ALL_FORBIDDEN = "generate: every token is forbidden; relax no_repeat_ngram_size or min_new_tokens in the configuration"


def penalties(
    config: GenerationConfig, prompt_length: int, stop_ids: Sequence[int], scored: int, known: int
) -> list[Penalty]:
    """The steps, in order, that look at the past, and the bias after them.

    prompt_length: how many columns of the past are prompt. stop_ids: the tokens that min_new_tokens
    holds back. scored: how many tokens the model scores, V; known: how many the tokenizer has, when
    less the others are forbidden.

    Raises ValueError for a logit_bias of a token that the model does not have.
    """
    steps: list[Penalty] = []
    if known < scored:
        steps.append(lambda logits, past: forbid(logits, slice(known, None)))
    if config.repetition_penalty != 1:
        steps.append(partial(penalize_repetition, penalty=config.repetition_penalty))
    if config.frequency_penalty or config.presence_penalty:
        frequency, presence = config.frequency_penalty, config.presence_penalty
        steps.append(lambda logits, past: penalize_frequency(logits, past[:, prompt_length:], frequency, presence))
    if config.no_repeat_ngram_size:
        steps.append(partial(forbid_repeated_ngrams, size=config.no_repeat_ngram_size))
    if config.min_new_tokens and stop_ids:
        enough = prompt_length + config.min_new_tokens
        steps.append(lambda logits, past: logits if past.shape[1] >= enough else forbid(logits, stop_ids))
    if config.logit_bias:
        if (worst := max(config.logit_bias)) >= scored:
            raise ValueError(f"generate: logit_bias has token id {worst}; the model's are in [0, {scored})")
        steps.append(lambda logits, past: add_bias(logits, config.logit_bias))
    return steps


def filters(config: GenerationConfig) -> list[Filter]:
    """The steps, in order, that look at the scores alone; none at temperature 0, where the most
    likely token is taken.
    """
    steps: list[Filter] = []
    if config.temperature == 0:
        return steps
    if config.temperature != 1:
        steps.append(partial(apply_temperature, temperature=config.temperature))
    if config.top_k:
        steps.append(partial(keep_top_k, k=config.top_k))
    if config.top_p < 1:
        steps.append(partial(keep_top_p, p=config.top_p))
    if config.min_p > 0:
        steps.append(partial(keep_min_p, p=config.min_p))
    if config.typical_p < 1:
        steps.append(partial(keep_typical, p=config.typical_p))
    return steps


# ---- penalties -----------------------------------------------------------------------------------


@tiny_is_zero
def penalize_repetition(logits: np.ndarray, past: np.ndarray, penalty: float) -> np.ndarray:
    """Make every token of the past less likely, once, however often it came: (B, V), (B, T) ->
    (B, V).

    l / penalty where l > 0, else l * penalty (Keskar et al. 2019, CTRL,
    https://arxiv.org/abs/1909.05858).
    """
    rows = np.arange(len(logits))[:, None]
    seen = np.where(past < 0, past[:, -1:], past)  # a token twice does no harm below, a padding would
    scores = logits[rows, seen]  # (B, T)
    logits = logits.copy()
    logits[rows, seen] = np.where(scores > 0, scores / penalty, scores * penalty)
    return logits


@tiny_is_zero
def penalize_frequency(logits: np.ndarray, drawn: np.ndarray, frequency: float, presence: float) -> np.ndarray:
    """Lower the logit of a token by ``frequency`` for each time it was drawn, and once by
    ``presence``.

    drawn: (B, T), without the prompt.  l -= frequency * count + presence * min(count, 1)
    """
    counts = np.zeros_like(logits)  # (B, V)
    np.add.at(counts, (np.arange(len(logits))[:, None], drawn), 1)
    return logits - (frequency * counts + presence * np.minimum(counts, 1))


def forbid_repeated_ngrams(logits: np.ndarray, past: np.ndarray, size: int) -> np.ndarray:
    """Forbid each token that would complete a sequence of ``size`` tokens which is already in the
    past.

    With size 3 and the past ``a b c a b``, c is forbidden: ``a b c`` came before.
    """
    if past.shape[1] < size:
        return logits
    ngrams = np.lib.stride_tricks.sliding_window_view(past, size, axis=1)  # (B, T - size + 1, size)
    last = past[:, past.shape[1] - size + 1 :]  # (B, size - 1): the beginning of the sequence that comes next
    rows, places = (ngrams[:, :, :-1] == last[:, None]).all(axis=2).nonzero()
    tokens = ngrams[rows, places, -1]
    logits = logits.copy()
    logits[rows[tokens >= 0], tokens[tokens >= 0]] = -np.inf
    return logits


def forbid(logits: np.ndarray, ids: Sequence[int] | slice) -> np.ndarray:
    """Put some tokens out of the question."""
    logits = logits.copy()
    logits[:, ids] = -np.inf
    return logits


def add_bias(logits: np.ndarray, bias: Mapping[int, float]) -> np.ndarray:
    """Add to the logits of some tokens: {id: bias}."""
    logits = logits.copy()
    logits[:, list(bias)] += np.array(list(bias.values()), logits.dtype)
    return logits


# ---- filters -------------------------------------------------------------------------------------


@tiny_is_zero
def apply_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """l / temperature: towards 0 the most likely token takes all, towards infinity all become
    equally likely.
    """
    return logits / temperature


def keep_top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Keep the k most likely tokens, and those that are as likely as the last of them (Fan et al.
    2018).
    """
    V = logits.shape[1]
    if k >= V:
        return logits
    least = np.partition(logits, V - k, axis=1)[:, V - k, None]  # (B, 1)
    return np.where(logits < least, -np.inf, logits)


@tiny_is_zero
def keep_top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Keep the fewest most likely tokens whose probabilities reach p together (Holtzman et al.
    2020).

    https://arxiv.org/abs/1904.09751
    """
    probs = _probabilities(logits)
    least = np.empty((len(logits), 1), logits.dtype)
    for i, row in enumerate(probs):
        likely = np.sort(likely_enough(row, p))[::-1]  # the most likely first
        count = int(likely.cumsum().searchsorted(p))  # so many are below p together; the next one reaches it
        least[i] = likely[min(count, len(likely) - 1)]
    return np.where(probs < least, -np.inf, logits)


@np.errstate(under="ignore", divide="ignore")
def keep_min_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Keep the tokens that are at least p times as likely as the most likely one (Nguyen et al.
    2024).

    e^l >= p e^max  <=>  l >= max + log p.  https://arxiv.org/abs/2407.01082
    """
    least = np.maximum.reduce(logits, axis=1, keepdims=True) + np.log(p, dtype=logits.dtype)
    return np.where(logits < least, -np.inf, logits)


@tiny_is_zero
def keep_typical(logits: np.ndarray, p: float) -> np.ndarray:
    """Keep the tokens whose surprise is nearest to the expected one, until they reach p (Meister et
    al. 2023).

    The surprise of a token is -log q, the expected one is the entropy H = -sum q log q, and tokens
    are taken by rising |-log q - H|. What is too likely goes as well as what is too unlikely.
    https://arxiv.org/abs/2202.00666
    """
    surprise = log_sum_exp(logits)[:, None] - logits  # (B, V)
    probs = np.exp(-surprise)
    entropy = np.add.reduce(probs * np.where(probs > 0, surprise, 0), axis=1, keepdims=True)  # 0 log 0 = 0
    distance = np.abs(surprise - entropy)
    furthest = np.empty((len(logits), 1), logits.dtype)
    for i, row in enumerate(distance):
        nearest = row.argsort()
        count = int(probs[i, nearest].cumsum().searchsorted(p))
        furthest[i] = row[nearest[min(count, len(row) - 1)]]
    return np.where(distance > furthest, -np.inf, logits)


# ---- probabilities -------------------------------------------------------------------------------


@tiny_is_zero
def log_sum_exp(logits: np.ndarray) -> np.ndarray:
    """log sum_j e^{l_j} of each row, (B, V) -> (B,): log-probabilities are logits minus this."""
    highest = np.maximum.reduce(logits, axis=1)  # subtracted, so that exp cannot overflow
    return highest + np.log(np.add.reduce(np.exp(logits - highest[:, None]), axis=1))


def _probabilities(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - np.maximum.reduce(logits, axis=1, keepdims=True))
    return weights / np.add.reduce(weights, axis=1, keepdims=True)


def most_likely(logits: np.ndarray, _: object = None) -> np.ndarray:
    """The token with the highest score in each row, the first of several: (B, V) -> (B,)."""
    ids = logits.argmax(axis=1)
    if logits[np.arange(len(ids)), ids].min() == -np.inf:
        raise ValueError(ALL_FORBIDDEN)
    return ids


@tiny_is_zero
def draw(logits: np.ndarray, rngs: Sequence[np.random.Generator]) -> np.ndarray:
    """Draw one token for each row, with probability e^l / sum e^l: (B, V) -> (B,).

    Each row has a random generator of its own, so that a text does not depend on the other texts of
    the batch.
    """
    highest = np.maximum.reduce(logits, axis=1, keepdims=True)
    if highest.min() == -np.inf:
        raise ValueError(ALL_FORBIDDEN)
    weights = np.exp(logits - highest)  # (B, V)
    if weights.shape[1] > BLOCK:
        return np.array([draw_by_blocks(row, rng, draw_index) for row, rng in zip(weights, rngs, strict=True)])
    return np.array([draw_index(row, rng.random()) for row, rng in zip(weights, rngs, strict=True)])


def draw_index(weights: np.ndarray, u: float) -> int:
    """The index in whose stretch a point falls, at the fraction u of a line made of stretches of
    these lengths.

    With u uniform in [0, 1), each index comes with a probability in proportion to its weight: (V,)
    -> index.
    """
    ends = np.cumsum(weights, dtype=np.float64)
    # u <= 1 - 2^-53, so that the point stays below the last end after rounding too; side="right"
    # never gives a stretch of length 0
    return int(np.searchsorted(ends, u * ends[-1], side="right"))
