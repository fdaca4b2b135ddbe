"""How to train, and how a training ended."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

from .. import optim
from ..autograd.torch_words import torch_arguments
from ..models.base import LanguageModel
from .evaluate import Evaluation

__all__ = ["TrainConfig", "TrainResult", "usual_warmup"]

SCHEDULES = ("cosine", "wsd", "constant")
OPTIMIZERS = ("adamw", "muon")
POSITIVE = (
    *("steps", "batch_size", "accumulate", "context", "log_every", "evaluate_every", "sample_every"),
    *("checkpoint_every", "keep_checkpoints"),
)


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Raises ValueError that names the field which makes no sense.

    >>> TrainConfig(steps=0)
    Traceback (most recent call last):
        ...
    ValueError: TrainConfig: steps must be at least 1; got 0
    """

    steps: int = 1000
    batch_size: int = 16  # rows per step
    accumulate: int = 1  # parts in which a batch is computed: less memory, more time, the same gradient
    context: int | None = None  # tokens per row where plain ids are given; None: all that the model sees
    learning_rate: float = 1e-3  # at its highest
    final_fraction: float = 0.1  # of the learning rate, left at the end
    schedule: str = "cosine"  # or "wsd", "constant"
    decay: float = 0.2  # the share of the steps, at the end, in which the learning rate of "wsd" falls
    warmup: int | None = None  # steps; None: a twentieth of all, at most 200
    optimizer: str = "adamw"  # or "muon", for the hidden matrices of a language model
    weight_decay: float = 0.1  # of matrices
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = 1.0  # the longest gradient; None: any
    seed: int = 0  # of the order of the data, and of dropout
    log_every: int = 10  # steps between two lines of the log
    evaluate_every: int = 100
    sample_every: int = 200
    checkpoint_every: int = 200
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        """Bring every number into Python's own type, and check it."""
        for name in POSITIVE:
            if not (name == "context" and self.context is None):
                self._set_integer(name, least=1, expected="at least 1")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"TrainConfig: accumulate must be at most batch_size = {self.batch_size}; got {self.accumulate}"
            )
        self._set_integer("seed", least=0, expected="an integer >= 0")
        if self.warmup is not None:
            self._set_integer("warmup", least=0, most=self.steps, expected=f"from 0 to steps = {self.steps}")
        for name, most in (("learning_rate", math.inf), ("clip", math.inf), ("final_fraction", 1.0), ("decay", 1.0)):
            if not (name == "clip" and self.clip is None):
                self._set_number(name, most)
        self._set_number("weight_decay", math.inf)
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise ValueError(f"TrainConfig: betas must be two numbers; got {self.betas!r}")
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        if self.schedule not in SCHEDULES:
            raise ValueError(f"TrainConfig: schedule must be one of {', '.join(SCHEDULES)}; got {self.schedule!r}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"TrainConfig: optimizer must be one of {', '.join(OPTIMIZERS)}; got {self.optimizer!r}")

    def _set_integer(self, name: str, least: int, expected: str, most: float = math.inf) -> None:
        value: Any = getattr(self, name)
        is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)  # NumPy's integers too
        if not is_integer or not least <= value <= most:
            raise ValueError(f"TrainConfig: {name} must be {expected}; got {value!r}")
        object.__setattr__(self, name, int(value))

    def _set_number(self, name: str, most: float) -> None:
        value: Any = getattr(self, name)
        if not isinstance(value, numbers.Real) or not (0 <= float(value) <= most and math.isfinite(value)):
            raise ValueError(f"TrainConfig: {name} must be a number from 0 to {most:g}; got {value}")
        object.__setattr__(self, name, float(value))

    def optimizers(self, model: Any) -> dict[str, optim.Optimizer]:
        """What changes the model's parameters: AdamW; with "muon" that for the hidden matrices, and
        AdamW for all else. Raises ValueError for a model that is no `LanguageModel`, with "muon".
        """
        if self.optimizer == "muon" and not isinstance(model, LanguageModel):
            raise ValueError(
                "TrainConfig: optimizer 'muon' is for the language models of minillm.models, which know their hidden "
                f"matrices; got {type(model).__name__}: use 'adamw'"
            )
        matrices = model.hidden_matrices() if self.optimizer == "muon" else []
        hidden, rate = {id(p) for p in matrices}, self.learning_rate
        others = [p for p in model.parameters() if p.requires_grad and id(p) not in hidden]
        found: dict[str, optim.Optimizer] = {}
        if others or not matrices:
            groups = optim.decay_groups(others, self.weight_decay)
            found["optimizer"] = optim.AdamW(groups, rate, betas=self.betas)
        if matrices:
            found["muon"] = optim.Muon(matrices, rate, self.weight_decay)
        return found

    def learning_rates(self) -> optim.Schedule:
        """The learning rate of each step, as a function."""
        warmup = usual_warmup(self.steps) if self.warmup is None else self.warmup
        if self.schedule == "constant":
            return optim.constant(self.learning_rate, steps=self.steps, warmup=warmup)
        final = self.final_fraction * self.learning_rate
        if self.schedule == "wsd":
            return optim.wsd(self.learning_rate, steps=self.steps, warmup=warmup, decay=self.decay, final=final)
        return optim.warmup_cosine(self.learning_rate, steps=self.steps, warmup=warmup, final=final)


def usual_warmup(steps: int) -> int:
    """Steps of warm-up where nobody chose: a twentieth of all, at most 200."""
    return min(200, steps // 20)


TrainConfig.__init__ = torch_arguments(TrainConfig.__init__)  # type: ignore[method-assign]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int
    steps: int
    stopped: str  # "finished", or why it ended before
    loss: float  # of the last logged steps, nats per token
    evaluation: Evaluation | None  # the last one on the validation data
    tokens: int  # targets learned from
    seconds: float
    sample: str | None = None  # the last text that the model wrote
    resume_command: str | None = None  # what to type to go on, where it ended before all steps were done

    @property
    def val_loss(self) -> float | None:
        """The last validation loss, nats per token."""
        return self.evaluation.loss if self.evaluation else None

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        if self.stopped == "finished":
            text = f"finished {self.steps:,} step{'s' * (self.steps != 1)} in {minutes}:{seconds:02}"
        else:
            text = f"stopped after step {self.step:,} of {self.steps:,} ({self.stopped})"
        if self.evaluation is not None:
            text += f": validation loss {self.evaluation.loss:.4f} nats per token"
            if self.evaluation.floor is not None:
                text += f", {self.evaluation.above_floor:.4f} above the floor of {self.evaluation.floor:.4f}"
        return text + (f"\ngo on with: {self.resume_command}" if self.resume_command else "")
