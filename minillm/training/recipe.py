"""The settings of a training: a person chooses a handful, the rest is what suits them.

A `Recipe` is always complete. It is written into the run folder, so that a run that is taken up
again is the same run.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import data as texts
from .config import SCHEDULES, TrainConfig

__all__ = ["ENCODED", "MODELS", "RECURRENT", "STARTED", "Recipe"]

RECURRENT = ("rnn", "gru", "lstm")
MODELS = ("llama", "gpt2", "t5", *RECURRENT)
ENCODED = "encoded"  # the tokenizer that lies beside shards
STARTED = "started"  # the tokenizer of the folder that training starts from
TOKENIZERS = ("bpe", "char", "unigram", ENCODED, STARTED)
ATTENTION = ("dot", "additive", "none")
SPLITS = ("text", "documents")
ROWS = ("bucketed", "packed")
INTEGERS = (
    *("vocab_size", "layers", "heads", "kv_heads", "width", "context", "batch_size", "steps", "evaluate_every"),
    *("checkpoint_every", "seed"),
)
OF_SOME = {  # settings that only some models have: None for the others
    "heads": ("llama", "gpt2", "t5"),
    "kv_heads": ("llama",),
    "dropout": ("gpt2", "t5"),
    "attention": RECURRENT,
}


@dataclass(frozen=True, init=False)
class Recipe:
    """The settings of a training: what is left out, or None, is filled in with what suits the data
    and the model. None stays where a setting means nothing, or follows from the steps.

    Raises ValueError that names the setting which makes no sense, or is unknown.

    >>> Recipe(steps=50, width=64).layers
    4
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
    heads: Any  # a number; None for recurrent models, which have none: see OF_SOME
    kv_heads: Any  # a number, of a llama: heads of keys and values
    attention: Any  # of recurrent models, how a past state is scored: dot, additive, or none
    width: int
    dropout: Any  # of gpt2 and t5, a number; None with ``start``: as its folder has it
    context: int  # tokens a row; for recurrent models also the window; for t5 the most of a question or an answer
    batch_size: int
    steps: int
    learning_rate: float
    schedule: str  # of the learning rate: cosine, wsd, constant
    warmup: int | None  # steps; None: a twentieth of all, at most 200
    weight_decay: float
    evaluate_every: int | None  # steps; None: a tenth of all
    checkpoint_every: int | None  # steps; None: a tenth of all
    best: bool  # whether the folder gets the weights of the lowest validation loss at the end, not the last ones
    seed: int
    rows: str  # of documents: bucketed, one to a row; or packed, as in runs from before that
    split: str  # what a tenth is held out of: the text; or the documents, in runs from before texts were weighed

    def __init__(self, data: str | os.PathLike[str] | None = None, **chosen: Any) -> None:
        chosen = {name: _plain(value) for name, value in chosen.items() if value is not None}
        known = [field.name for field in dataclasses.fields(self)]
        for name in chosen:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise ValueError(f"Recipe: unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        path = None if data is None else os.fspath(data)
        for name, value in (_usual(path, chosen) | chosen).items():
            object.__setattr__(self, name, value)
        self._check()

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> Recipe:
        """The recipe that a run folder holds, of this version or an older one, which did not say
        how it split, or laid documents into rows, and gave heads to the rnn.
        """
        old = {"split": "documents", "rows": "packed", **settings}
        return cls(**old | ({"heads": None} if old.get("model") in RECURRENT else {}))

    def _check(self) -> None:
        for name, known in (
            *(("model", MODELS), ("tokenizer", TOKENIZERS), ("split", SPLITS), ("rows", ROWS)),
            *(("schedule", SCHEDULES), ("attention", ATTENTION), ("best", (True, False))),
        ):
            value = getattr(self, name)
            if value not in known and not (value is None and name in OF_SOME):
                raise ValueError(f"{name} must be one of {', '.join(map(str, known))}; got {value!r}")
        for name, models in OF_SOME.items():
            if getattr(self, name) is not None and self.model not in models:
                raise ValueError(f"{name} must be left out: a model of the kind {self.model} has no such setting")
        for name in INTEGERS:
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"{name} must be at least {least}; got {value}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {self.dropout}")
        if self.start is None:
            self._check_sizes()
        if self.model == "t5" and self.data is None:
            raise ValueError("a t5 learns from questions and answers: data must be a .jsonl or .tsv file of them")
        self.train_config()  # which refuses what it cannot work with

    def _check_sizes(self) -> None:
        if self.heads is not None and self.width % self.heads:
            raise ValueError(f"width must be divisible by heads; got width {self.width}, heads {self.heads}")
        if self.heads is not None and self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads must be a divisor of heads = {self.heads}; got {self.kv_heads}")
        if self.model == "llama" and self.heads is not None and self.width // self.heads % 2:
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
        """The settings as JSON holds them."""
        return dataclasses.asdict(self)

    def train_config(self) -> TrainConfig:
        """How the trainer is to go about it."""
        tenth = max(1, self.steps // 10)
        if self.schedule == "wsd":  # what learned fastest: see benchmarks/search.py
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
            warmup=self.warmup,
            weight_decay=self.weight_decay,
            seed=self.seed,
            evaluate_every=self.evaluate_every or tenth,
            sample_every=2 * tenth,
            checkpoint_every=self.checkpoint_every or tenth,
        )


def _usual(path: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting as it is where nobody chose it."""
    model, stories, rows = chosen.get("model", "llama"), path is None, chosen.get("rows", "bucketed")
    start, recurrent, heads = chosen.get("start"), model in RECURRENT, chosen.get("heads", 4)
    of_some = {"heads": heads, "kv_heads": heads, "attention": "dot", "dropout": None if start else 0.0}
    encoded = path is not None and chosen.get("tokenizer") != ENCODED and texts.holds_shards(path)
    if encoded and start is None and ("tokenizer" in chosen or "vocab_size" in chosen):
        raise ValueError(
            f"{path} was encoded already, with the tokenizer that lies there: leave tokenizer and vocab_size out"
        )
    return {
        "data": path,
        "start": None,
        "model": model,
        "tokenizer": ENCODED if encoded else "bpe",
        "vocab_size": 1024,
        "layers": 2 if recurrent or model == "t5" else 4,
        "width": 256 if recurrent else 128,
        "context": 256 if stories else 128,
        "batch_size": 8 if stories else 16,
        "steps": 2000 if not stories else 700 if model == "llama" else 1200,
        "learning_rate": 5e-4 if start else 2e-3,
        "schedule": "wsd" if stories and rows == "bucketed" else "cosine",
        "warmup": None,
        "weight_decay": 0.1,
        "evaluate_every": None,
        "checkpoint_every": None,
        "best": False,
        "seed": 0,
        "rows": rows,
        "split": "text",
    } | {name: value if model in OF_SOME[name] else None for name, value in of_some.items()}


def _plain(value: Any) -> Any:
    """A number of NumPy as Python's."""
    return value.item() if isinstance(value, np.generic) else value
