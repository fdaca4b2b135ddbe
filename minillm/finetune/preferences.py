"""Preferences: of two answers to one prompt, which is better?

A prompt x, an answer y_w that somebody preferred, and one y_l that was not. The probability that
the first wins is a matter of two rewards (Bradley and Terry 1952):

    p(y_w beats y_l) = e^r_w / (e^r_w + e^r_l) = sigmoid(r_w - r_l)

Learning is to make what happened likely, -log sigmoid(r_w - r_l): a cross-entropy with two classes.
The two methods differ in what the reward is. Neither needs a model of rewards, or to sample.

DPO (Rafailov et al. 2023, "Direct Preference Optimization", equation 7): how much more likely the
answer has become than it was under the reference, the model at the beginning:

    r(y) = beta (log p(y | x) - log p_ref(y | x))

The smaller beta, the farther the model may move away for the same reward. Only the difference of
the two rewards counts: both answers may become less likely, if the rejected one does so faster. A
second term holds the preferred one (Pang et al. 2024, "Iterative Reasoning Preference
Optimization", equation 1), its mean surprise, times a weight:

    loss = -log sigmoid(r_w - r_l) - weight mean of log p(token of y_w)

ORPO (Hong et al. 2024, "Monolithic Preference Optimization without Reference Model", equations 3
to 7): the log odds of the answer, its probability that of a typical token. No reference holds the
model back; the preferred answer is learned as in supervised fine-tuning beside it:

    p(y | x) = exp(mean of log p(token)),   r(y) = log(p / (1 - p))
    loss = -log p(y_w | x) - beta log sigmoid(r_w - r_l)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..autograd.targets import IGNORE
from ..chat.dataset import SimilarLengths, chat_batch
from ..chat.encode import Encoded
from ..data.batches import Batch
from ..generation import GenerationConfig, generate_batch
from ..tensor import Tensor, no_grad
from ..tokenizer import Tokenizer
from ..training.evaluate import Loss, evaluating

METHODS = ("dpo", "orpo")


class Pair(NamedTuple):
    """Two answers to one prompt as ids, prompt included; the mask says which are the answer's."""

    chosen: Encoded
    rejected: Encoded


# ---- the losses ----------------------------------------------------------------------------------


def dpo_loss(log_p: Tensor, reference: np.ndarray, beta: float) -> Tensor:
    """-log sigmoid(r_w - r_l), the mean of all pairs; r = beta (log p - log p_ref).

    log_p, reference: (P, 2), log p(answer | prompt), the preferred one first.
    """
    return _chosen_wins(beta * (log_p - reference))


def orpo_loss(log_p: Tensor, beta: float) -> Tensor:
    """-log p_w - beta log sigmoid(r_w - r_l), the mean of all pairs; r = log p - log(1 - p).

    log_p: (P, 2), the mean of log p(token) over each answer, the preferred one first.
    """
    log_p = F.minimum(log_p, -1e-6)  # the odds of what is certain are infinite
    odds = log_p - F.log1p(-F.exp(log_p))
    return beta * _chosen_wins(odds) - log_p[:, 0].mean()


def _chosen_wins(rewards: Tensor) -> Tensor:
    """-log p(the first of the two wins), the mean over the pairs (P, 2)."""
    return F.softplus(rewards[:, 1] - rewards[:, 0]).mean()  # softplus(-a) = -log sigmoid(a)


def preference_loss(method: str, beta: float = 0.1, chosen_weight: float = 0.0) -> Loss:
    """The loss of a `PreferenceDataset`'s batch, for the Trainer.

    method: "dpo" or "orpo". chosen_weight: of the preferred answer's own surprise beside DPO's
    loss; ORPO always has it. Raises ValueError for another method, or a weight below 0.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if not chosen_weight >= 0:
        raise ValueError(f"chosen_weight must be at least 0; got {chosen_weight}")

    def loss(model: Any, batch: Batch) -> Tensor:
        x, y, reference, _ = batch
        log_p = log_probabilities(model, x, y)  # (P, 2)
        of_a_token = log_p / np.maximum((y != IGNORE).sum(axis=-1), 1).astype(log_p.dtype)
        if method == "orpo":
            return orpo_loss(of_a_token, beta)
        loss = dpo_loss(log_p, reference.astype(log_p.dtype), beta)
        return loss - chosen_weight * of_a_token[:, 0].mean() if chosen_weight else loss

    return loss


def log_probabilities(model: Any, x: np.ndarray, y: np.ndarray) -> Tensor:
    """log p(answer | prompt) in nats, the sum over a row's targets: x, y (..., T) -> (...)."""
    rows, T = x.shape[:-1], x.shape[-1]
    logits = model(x.reshape(-1, T))  # (B, T, V)
    nats = F.cross_entropy(logits, y.reshape(-1, T), reduction="none")  # (B, T), 0 where nothing is asked
    return -nats.sum(axis=-1).reshape(rows)


# ---- batches -------------------------------------------------------------------------------------


class PreferenceDataset:
    """Pairs of answers, for the Trainer with `preference_loss`.

    train, validation: pairs of which both answers are learned from. reference: the model at the
    beginning, which is asked here, once, how likely it finds them. context: how many tokens the
    model can see; pairs that are longer are left out and counted (`left_out`).

    A batch of P pairs is x and y (P, 2, T), the preferred answer first, reference (P, 2), and a
    target for each pair, (P,): the index of the preferred one, 0. So the Trainer, which weighs by
    targets, gives each pair the same weight, however long its answers are.

    Raises ValueError when there is no pair to learn from, or none to validate on.
    """

    def __init__(
        self, train: Sequence[Pair], validation: Sequence[Pair], reference: Any, context: int | None = None
    ) -> None:
        fits = [[pair for pair in part if _fits(pair, context)] for part in (train, validation)]
        self.left_out = len(train) + len(validation) - len(fits[0]) - len(fits[1])
        for name, part, given in (("train", fits[0], train), ("validation", fits[1], validation)):
            if not part:
                raise ValueError(f"PreferenceDataset: no pair in {name} fits {context} tokens; got {len(given)}")
        self._train, self._validation = fits
        self._order = SimilarLengths([_length(pair) for pair in self._train])
        self._references = [_reference(reference, part) for part in fits]
        self.tokens_per_epoch, self.validation_tokens = len(fits[0]), len(fits[1])  # targets: one a pair

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Return ``batch_size`` pairs of about the same length."""
        chosen = self._order.chosen(step, batch_size, seed)
        return (*_pair_batch([self._train[i] for i in chosen]), self._references[0][chosen], np.zeros(len(chosen), int))

    def validation(self, batch_size: int) -> Iterator[Batch]:
        """Yield every validation pair exactly once."""
        for start in range(0, len(self._validation), batch_size):
            part = slice(start, start + batch_size)
            x, y = _pair_batch(self._validation[part])
            yield x, y, self._references[1][part], np.zeros(len(x), int)


def _pair_batch(pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """x and y, (P, 2, T)."""
    x, y = chat_batch([encoded for pair in pairs for encoded in pair])
    return x.reshape(len(pairs), 2, -1), y.reshape(len(pairs), 2, -1)


def _fits(pair: Pair, context: int | None) -> bool:
    return all(any(encoded.mask[1:]) for encoded in pair) and (context is None or _length(pair) <= context + 1)


def _length(pair: Pair) -> int:
    return max(len(encoded.ids) for encoded in pair)


def _reference(model: Any, pairs: Sequence[Pair], rows: int = 16) -> np.ndarray:
    """log p of both answers of each pair, (N, 2)."""
    found = np.zeros((len(pairs), 2))
    order = np.argsort([_length(pair) for pair in pairs], kind="stable")
    with evaluating(model), no_grad():
        for start in range(0, len(pairs), rows):
            part = order[start : start + rows]
            found[part] = log_probabilities(model, *_pair_batch([pairs[i] for i in part])).data
    return found


# ---- what has changed ----------------------------------------------------------------------------


def margins(model: Any, dataset: PreferenceDataset, batch_size: int = 16) -> np.ndarray:
    """For each validation pair, (N,), how much more likely than under the reference the preferred
    answer has become, and the other one less: log p_w - log p_l - (log p_ref,w - log p_ref,l), in
    nats. Times beta, that is the margin between DPO's rewards.
    """
    found = []
    with evaluating(model), no_grad():
        for x, y, reference, _ in dataset.validation(batch_size):
            ratios = log_probabilities(model, x, y).data - reference  # (P, 2)
            found.append(ratios[:, 0] - ratios[:, 1])
    return np.concatenate(found)


def kl_divergence(
    model: Any, reference: Any, tokenizer: Tokenizer, prompts: Sequence[Sequence[int]], seed: int = 0
) -> float:
    """KL(p || p_ref), in nats per answer: how far the model has moved away from the reference.

    The model answers each prompt by sampling; at each token of an answer the two distributions over
    the vocabulary are compared exactly. Their sum over an answer, on average, is the divergence
    between the distributions of whole answers.
    """
    config = GenerationConfig(temperature=1, max_new_tokens=48, seed=seed)
    answers = generate_batch(model, tokenizer, list(prompts), config)
    total = 0.0
    with evaluating(model), evaluating(reference), no_grad():
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = np.array([[*prompt, *answer.ids]])
            log_p, log_ref = (
                F.log_softmax(which(ids[:, :-1])[0, len(prompt) - 1 :]).data.astype(np.float64)  # (N, V)
                for which in (model, reference)
            )
            total += float((np.exp(log_p) * (log_p - log_ref)).sum())
    return total / len(prompts)
