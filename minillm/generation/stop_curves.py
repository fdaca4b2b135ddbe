"""Why a text stopped where it did: the probability of each way to stop, token by token."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..training.evaluate import evaluating
from .config import GenerationConfig
from .processors import log_sum_exp
from .prompt import read_batch, read_prompt
from .stopping import ending, stop_probability

if TYPE_CHECKING:
    from ..models import LanguageModel
    from ..tokenizer import Tokenizer

__all__ = ["stop_curves", "stopping_ids"]


def stopping_ids(tokenizer: Tokenizer, config: GenerationConfig) -> dict[str, list[int]]:
    """The tokens that end a text, by the reason that they are: "eos" and "end_of_turn", where there
    are any.
    """
    found: dict[str, list[int]] = {}
    for id, reason in ending(tokenizer, config, None).ids.items():
        found.setdefault(reason, []).append(id)
    return found


def stop_curves(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    ids: Sequence[int],
    groups: Mapping[str, Sequence[int]],
    config: GenerationConfig | None = None,
) -> dict[str, np.ndarray]:
    """How likely a model is to stop at each token of a text, whoever wrote it: for each group of
    ids the sum of their probabilities, (N,) float64.

    prompt: what stands before the text, read as `generate` reads it. ids: the N tokens of the text;
    what is given for the first is said before it was read. The probabilities are those of the
    model's own distribution, before temperature and the other parameters: softmax of its logits.
    """
    read = read_prompt("stop_curves", model, tokenizer, prompt, config or GenerationConfig())
    pad_id = model.config.pad_token_id if read.encoder_ids is not None else 0
    curves = {name: np.zeros(len(ids)) for name in groups}
    with evaluating(model) if model.training else contextlib.nullcontext():
        logits, cache = read_batch(model, [read], len(ids), pad_id)
        for position in range(len(ids)):
            if position:
                logits = model.next_logits(np.array([[ids[position - 1]]]), cache)
            normalizer, scored = float(log_sum_exp(logits)[0]), logits.shape[1]
            for name, group in groups.items():
                curves[name][position] = stop_probability(logits[0], normalizer, [i for i in group if i < scored])
    return curves
