"""The settings of a training: a person chooses a handful, the rest is what suits them.

A `Recipe` is always complete. It is written into the run folder, so that a run that is taken up
again is the same run.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from .. import data as texts
from .config import OPTIMIZERS, SCHEDULES, TrainConfig, usual_warmup

__all__ = ["ENCODED", "MODELS", "RECURRENT", "STARTED", "Recipe"]

RECURRENT = ("rnn", "gru", "lstm")
MODELS = ("llama", "gpt2", "t5", *RECURRENT)
ENCODED = "encoded"  # the tokenizer that lies beside shards
STARTED = "started"  # the tokenizer of the folder that training starts from
TOKENIZERS = ("bpe", "char", "unigram", ENCODED, STARTED)
ATTENTION = ("dot", "additive", "none")
SPLITS = ("text", "documents")
ROWS = ("bucketed", "packed")
CHOICES: dict[str, tuple[Any, ...]] = {
    "model": MODELS,
    "tokenizer": TOKENIZERS,
    "schedule": SCHEDULES,
    "optimizer": OPTIMIZERS,
    "attention": ATTENTION,
    "split": SPLITS,
    "rows": ROWS,
    "best": (True, False),
}
INTEGERS = (
    *("vocab_size", "layers", "heads", "kv_heads", "width", "context", "batch_size", "steps", "evaluate_every"),
    *("checkpoint_every", "seed"),
)
OF_SOME = {  # settings that can be chosen for some models only
    "heads": ("llama", "gpt2", "t5"),
    "kv_heads": ("llama",),
    "dropout": ("gpt2", "t5"),
    "attention": RECURRENT,
}
OF_STEPS = ("warmup", "evaluate_every", "checkpoint_every")  # settings that follow from the steps


@dataclass(frozen=True, init=False)
class Recipe:
    """The settings of a training: what is left out, or None, is filled in with what suits the data
    and the model.

    Raises ValueError that names the setting which makes no sense, or is unknown.

    >>> Recipe(steps=50, width=64).layers
    2
    >>> Recipe(width=100, heads=3)
    Traceback (most recent call last):
        ...
    ValueError: width must be divisible by heads; got width 100, heads 3
    """

    data: str | None  # a text file, a folder of .txt files or of shards, pairs; None: stories that minillm makes up
    start: str | None  # the model folder whose weights and tokenizer it begins with: see `start.started_recipe`
    model: str  # llama, gpt2, t5 (learns from pairs), or cells with attention over a window: rnn or gru, lstm
    tokenizer: str  # bpe, char or unigram, learned from the text; encoded: of the shards; started: of ``start``
    vocab_size: int  # that the bpe or unigram tokenizer learns
    layers: int
    heads: int  # of attention; recurrent models look back with one
    kv_heads: int  # heads of keys and values: as many, but a llama can have fewer
    attention: Literal["dot", "additive", "none"]  # how a past state is scored; recurrent models can choose
    width: int
    dropout: float  # of gpt2 and t5; a model to start with keeps its own, unless one was chosen
    context: int  # tokens a row; for recurrent models also the window; for t5 the most of a question or an answer
    batch_size: int
    steps: int
    learning_rate: float
    schedule: str  # of the learning rate: cosine, wsd, constant
    warmup: int  # steps: usually a twentieth of all, at most 200
    optimizer: str  # adamw; or muon for the hidden matrices, and adamw for the rest
    weight_decay: float
    evaluate_every: int  # steps: usually a tenth of all
    checkpoint_every: int  # steps: usually a tenth of all
    best: bool  # whether the folder gets the weights of the lowest validation loss at the end, not the last ones
    seed: int
    rows: str  # of documents: bucketed, one to a row; or packed, as in runs from before that
    split: str  # what a tenth is held out of: the text; or the documents, in runs from before texts were weighed
    following: frozenset[str] = field(init=False, repr=False)  # settings not chosen, which follow from steps or model

    def __init__(self, data: str | os.PathLike[str] | None = None, **chosen: Any) -> None:
        chosen = {name: _plain(value) for name, value in chosen.items() if value is not None}
        path = None if data is None else os.fspath(data)
        _check_each(chosen)
        for name, value in (_usual(path, chosen) | chosen).items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "following", frozenset((*OF_STEPS, *self._not_its_own())) - chosen.keys())
        self._check()

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Recipe:
        """The recipe that a run folder holds, of this version or an older one, which did not say
        how it split, or laid documents into rows, knew one optimiser, and gave heads to the rnn.
        """
        old = {"split": "documents", "rows": "packed", "optimizer": "adamw", **settings}
        return cls(**old | ({"heads": None} if old.get("model") in RECURRENT else {}))

    def _not_its_own(self) -> list[str]:
        """The settings that are not the recipe's to choose, but the model's or its folder's."""
        names = [name for name, models in OF_SOME.items() if self.model not in models]
        return names if self.start is None else [*names, "dropout"]

    def _check(self) -> None:
        """What settings must be to each other."""
        for name, models in OF_SOME.items():
            if self.model not in models and name not in self.following:
                raise ValueError(f"{name} must be left out: a model of the kind {self.model} has no such setting")
        if self.start is None:
            self._check_sizes()
        if self.model == "t5" and self.data is None:
            raise ValueError("a t5 learns from questions and answers: data must be a .jsonl or .tsv file of them")
        self.train_config()  # which refuses what it cannot work with

    def _check_sizes(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width must be divisible by heads; got width {self.width}, heads {self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must be a divisor of heads = {self.heads}; got {self.kv_heads}")
        if self.model == "llama" and self.width // self.heads % 2:
            raise ValueError(f"the width of a head must be even for the llama model; got {self.width} / {self.heads}")
        specials = "<pad> and </s>" if self.model == "t5" else "<|endoftext|>"
        least = 258 if self.model == "t5" else 257
        if self.tokenizer == "bpe" and self.vocab_size < least:
            raise ValueError(
                f"vocab_size must be at least {least} for the bpe tokenizer: 256 bytes and {specials}; "
                f"got {self.vocab_size}"
            )

    def completed(self) -> Recipe:
        """The recipe itself: there are no incomplete ones."""
        return self

    def replace(self, **changes: Any) -> Recipe:
        """The same recipe with some settings changed."""
        return Recipe(**self.to_dict() | changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them; what follows from the others is left out, and follows
        again from what they will be.
        """
        names = [field.name for field in dataclasses.fields(self) if field.init]
        return {name: getattr(self, name) for name in names if name not in self.following}

    def train_config(self) -> TrainConfig:
        """How the trainer is to go about it."""
        if self.schedule == "wsd":
            falling: dict[str, Any] = {"decay": 0.6, "final_fraction": 0.0}
        else:
            falling = {"final_fraction": 0.03 if self.data is None else 0.1}
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            betas=(0.9, 0.95 if self.data is None else 0.99),
            schedule=self.schedule,
            **falling,
            warmup=None if "warmup" in self.following else self.warmup,
            optimizer=self.optimizer,
            weight_decay=self.weight_decay,
            seed=self.seed,
            evaluate_every=self.evaluate_every,
            sample_every=2 * _tenth(self.steps),
            checkpoint_every=self.checkpoint_every,
        )


def _check_each(chosen: Mapping[str, Any]) -> None:
    """What each setting must be by itself."""
    known = [field.name for field in dataclasses.fields(Recipe) if field.init]
    for name, value in chosen.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ValueError(f"Recipe: unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name} must be one of {', '.join(map(str, CHOICES[name]))}; got {value!r}")
        least = 0 if name == "seed" else 1
        if name in INTEGERS and (type(value) is not int or value < least):
            raise ValueError(f"{name} must be at least {least}; got {value}")
        if name == "dropout" and not (isinstance(value, int | float) and 0 <= value < 1):
            raise ValueError(f"dropout must be at least 0 and below 1; got {value}")


def _usual(path: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting as it is where nobody chose it."""
    model, stories, rows = chosen.get("model", "llama"), path is None, chosen.get("rows", "bucketed")
    recurrent = model in RECURRENT
    # what learned the stories soonest: see benchmarks/search.py
    searched = stories and model == "llama" and rows == "bucketed" and "start" not in chosen
    optimizer = chosen.get("optimizer", "muon" if searched else "adamw")
    heads = chosen.get("heads", 1 if recurrent else 6 if searched and "width" not in chosen else 4)
    steps = chosen.get("steps", 2000 if not stories else 520 if model == "llama" else 1200)
    encoded = path is not None and chosen.get("tokenizer") != ENCODED and texts.holds_shards(path)
    if encoded and "start" not in chosen and ("tokenizer" in chosen or "vocab_size" in chosen):
        raise ValueError(
            f"{path} was encoded already, with the tokenizer that lies there: leave tokenizer and vocab_size out"
        )
    return {
        "data": path,
        "start": None,
        "model": model,
        "tokenizer": ENCODED if encoded else "bpe",
        "vocab_size": 1024,
        "layers": 2 if recurrent or model == "t5" or searched else 4,
        "heads": heads,
        "kv_heads": heads,
        "attention": "dot",
        "width": 256 if recurrent else 192 if searched else 128,
        "dropout": 0.0,
        "context": 256 if stories else 128,
        "batch_size": 8 if stories else 16,
        "steps": steps,
        "learning_rate": 5e-4 if "start" in chosen else 3e-3 if optimizer == "muon" else 2e-3,
        "schedule": "wsd" if stories and rows == "bucketed" else "cosine",
        "warmup": usual_warmup(steps),
        "optimizer": optimizer,
        "weight_decay": 0.1,
        "evaluate_every": _tenth(steps),
        "checkpoint_every": _tenth(steps),
        "best": False,
        "seed": 0,
        "rows": rows,
        "split": "text",
    }


def _tenth(steps: int) -> int:
    return max(1, steps // 10)


def _plain(value: Any) -> Any:
    """A number of NumPy as Python's."""
    return value.item() if isinstance(value, np.generic) else value
