"""How good is a model? The mean surprise per token, and how far it is from the best that any model
could do.

The loss is -log of the probability that the model gave to the token that really came, in nats,
averaged over all tokens. Three other numbers say the same in other words:

- perplexity, e^loss: the model hesitates as if between so many equally likely tokens;
- bits per byte: how small the text would become if the model compressed it; it can be compared
  between tokenizers;
- the distance to the floor, where the text's own entropy is known: what is left to learn.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import functional as F
from ..autograd.targets import IGNORE
from ..nn.module import Module, this_thread
from ..tensor import Tensor, no_grad

if TYPE_CHECKING:
    from ..data import Batch

__all__ = ["Evaluation", "Loss", "answer_loss", "evaluate", "evaluating", "next_token_loss"]

Loss = Callable[[Any, "Batch"], Tensor]  # (model, batch) -> the mean over the batch's targets


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    >>> Evaluation(loss=math.log(4), tokens=300, seconds=0.5, floor=math.log(2), bytes=1200).to_dict()
    ... # doctest: +NORMALIZE_WHITESPACE
    {'loss': 1.3862943611198906, 'perplexity': 4.0, 'bits_per_byte': 0.5, 'floor': 0.6931471805599453,
     'above_floor': 0.6931471805599453, 'tokens': 300, 'tokens_per_s': 600.0}
    """  # noqa: W505

    loss: float  # nats per token
    tokens: int  # how many targets were counted
    seconds: float
    floor: float | None = None  # nats per token that no model can beat on this text
    bytes: int | None = None  # of the text that the targets stand for
    in_nats: bool = True  # False: the loss is another function, of which perplexity says nothing

    @property
    def perplexity(self) -> float:
        """e^loss."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """loss * tokens / (log 2 * bytes); None where the number of bytes is not known."""
        return self.loss * self.tokens / (math.log(2) * self.bytes) if self.bytes else None

    @property
    def above_floor(self) -> float | None:
        """loss - floor, nats per token; None where no floor is known."""
        return None if self.floor is None else self.loss - self.floor

    @property
    def tokens_per_s(self) -> float:
        """Targets per second."""
        return self.tokens / max(self.seconds, 1e-9)

    def to_dict(self) -> dict[str, float | int | None]:
        """Every figure by its name."""
        of_nats = ("perplexity", "bits_per_byte") if self.in_nats else ()
        names = ("loss", *of_nats, "floor", "above_floor", "tokens", "tokens_per_s")
        return {name: getattr(self, name) for name in names}

    def table(self) -> str:
        """A line for each figure: its name and its value.

        >>> print(Evaluation(loss=math.log(4), tokens=3000, seconds=0.5, bytes=12000).table())
        loss           1.3863
        perplexity     4.00
        bits_per_byte  0.5000
        tokens         3,000
        tokens_per_s   6,000
        """
        forms = {"perplexity": ",.2f", "tokens": ",", "tokens_per_s": ",.0f"}
        figures = {name: value for name, value in self.to_dict().items() if value is not None}
        return "\n".join(f"{name:<14} {value:{forms.get(name, '.4f')}}" for name, value in figures.items())

    def __str__(self) -> str:
        text = f"loss {self.loss:.4f}" + (" nats per token" if self.in_nats else "")
        if self.above_floor is not None:
            text += f", {self.above_floor:.4f} above the floor of {self.floor:.4f}"
        if self.in_nats:
            text += f"; perplexity {self.perplexity:,.2f}"
        if self.bits_per_byte is not None:
            text += f"; {self.bits_per_byte:.4f} bits per byte"
        what = "tokens" if self.in_nats else "targets"
        return f"{text}; {self.tokens:,} {what} at {self.tokens_per_s:,.0f} a second"


@np.errstate(under="ignore")  # a probability too small for a float is as good as 0
def evaluate(
    model: Any,
    batches: Iterable[Batch],
    *,
    tokenizer: Any = None,
    floor: float | None = None,
    loss: Loss | None = None,
) -> Evaluation:
    """Measure a model on batches (x, y): the mean loss over every target that is not -100.

    The mean is that of all targets together, so it does not depend on how they were cut into
    batches. With a ``tokenizer`` the bytes that the targets stand for are counted too (special
    tokens stand for none), which gives bits per byte. ``floor``: the entropy of these very texts,
    nats per token, where it is known. ``loss``: a function of (model, batch), the mean over the
    batch's targets, in the place of `next_token_loss`. No gradients are recorded, and dropout is
    off meanwhile. Raises ValueError when no target counts.
    """
    measure = loss or next_token_loss
    of_tokens = measure in OF_TOKENS
    begun = time.perf_counter()
    sum_of_losses, tokens, occurrences = 0.0, 0, Counter[int]()
    with evaluating(model), no_grad():
        for batch in batches:
            y = batch[-1]
            targets = y[y != IGNORE]
            if targets.size:
                sum_of_losses += measure(model, batch).item() * targets.size
                tokens += targets.size
                occurrences.update(targets.tolist() if tokenizer and of_tokens else ())
    if not tokens:
        raise ValueError("evaluate: the batches hold no target to predict")
    seconds = time.perf_counter() - begun
    counted = _bytes_of(occurrences, tokenizer) if tokenizer and of_tokens else None
    return Evaluation(sum_of_losses / tokens, tokens, seconds, floor, counted, of_tokens)


def next_token_loss(model: Any, batch: Batch) -> Tensor:
    """The mean loss of one batch: at each position, -log p(the token that comes next | those
    before).

    batch: x (B, T) and y (B, T), y[b, t] the token that follows x[b, t], or -100 where nothing is
    asked. A model with an encoder gets the encoder's ids before: (ids, x, y).

    Raises ValueError for a batch of (x, y) that is given to a model with an encoder.
    """
    *inputs, targets = batch
    if getattr(model, "is_encoder_decoder", False) and len(inputs) != 2:
        raise ValueError(
            f"{type(model).__name__} reads a question and writes an answer, it does not continue a plain text: "
            "it needs batches (ids, decoder_ids, targets), as data.PairDataset makes them"
        )
    logits = model(*inputs)  # (B, T, V)
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def answer_loss(model: Any, batch: Batch) -> Tensor:
    """`next_token_loss`, by scoring only the N positions at which something is asked: in
    conversations they are few, and with a large vocabulary the scores are much of the work.

    model: a language model of `models`, whose ``forward`` is the scores of its states.
    """
    *inputs, targets = batch
    asked = targets != IGNORE  # (B, T)
    states = model.states(*inputs)[asked]  # (N, C)
    return F.cross_entropy(model.scores(states), targets[asked])


OF_TOKENS = (next_token_loss, answer_loss)  # losses that are nats per token


@contextlib.contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model in evaluation mode (no dropout) inside, for this thread alone: another goes on
    training it.
    """
    if not isinstance(model, Module):  # a stand-in with the same small interface has one switch for all threads
        was_training = model.training
        model.eval()
        try:
            yield
        finally:
            if was_training:
                model.train()
        return
    before = this_thread.evaluated
    this_thread.evaluated = before | {id(module) for module in model.modules()}
    try:
        yield
    finally:
        this_thread.evaluated = before


def _bytes_of(occurrences: Mapping[int, int], tokenizer: Any) -> int:
    """How many bytes of text so many occurrences of each token stand for; special tokens are no
    text.
    """
    special = set(tokenizer.special_tokens.values())
    return sum(n * len(tokenizer.token_bytes(id)) for id, n in occurrences.items() if id not in special)
