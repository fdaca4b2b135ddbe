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
from .config import TrainConfig

__all__ = ["ENCODED", "Recipe"]

MODELS = ("llama", "gpt2", "rnn")
ENCODED = "encoded"  # the tokenizer that lies beside shards
TOKENIZERS = ("bpe", "char", ENCODED)
SPLITS = ("text", "documents")
ROWS = ("bucketed", "packed")
INTEGERS = ("vocab_size", "layers", "heads", "width", "context", "batch_size", "steps", "seed")


@dataclass(frozen=True, init=False)
class Recipe:
    """The settings of a training: what is left out, or None, is filled in with what suits the data
    and the model.

    Raises ValueError that names the setting which makes no sense, or is unknown.

    >>> Recipe(steps=50, width=64).layers
    4
    >>> Recipe(width=100, heads=3)
    Traceback (most recent call last):
        ...
    ValueError: width must be divisible by heads; got width 100, heads 3
    """

    data: str | None  # a text file, a folder of .txt files or of shards; None: the stories that minillm makes up
    model: str  # llama, gpt2, or rnn (recurrent cells with attention over a window)
    tokenizer: str  # bpe or char, learned from the text; encoded: the one that encoded the shards
    vocab_size: int  # that the bpe tokenizer learns
    layers: int
    heads: int
    width: int
    context: int  # tokens a row; for the rnn also the window of its attention
    batch_size: int
    steps: int
    learning_rate: float
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
        how it split, or laid documents into rows.
        """
        return cls(**{"split": "documents", "rows": "packed", **settings})

    def _check(self) -> None:
        for name, known in (("model", MODELS), ("tokenizer", TOKENIZERS), ("split", SPLITS), ("rows", ROWS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        for name in INTEGERS:
            value, least = getattr(self, name), 0 if name == "seed" else 1
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")
        if self.width % self.heads:
            raise ValueError(f"width must be divisible by heads; got width {self.width}, heads {self.heads}")
        if self.model == "llama" and self.width // self.heads % 2:
            raise ValueError(f"the width of a head must be even for the llama model; got {self.width} / {self.heads}")
        if self.tokenizer == "bpe" and self.vocab_size < 257:
            raise ValueError(
                "vocab_size must be at least 257 for the bpe tokenizer: 256 bytes and <|endoftext|>; "
                f"got {self.vocab_size}"
            )
        self.train_config()  # which refuses what it cannot work with

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
        falling: dict[str, Any] = {"final_fraction": 0.1}
        if self.rows == "bucketed" and self.data is None:  # what learned fastest: see benchmarks/search.py
            falling = {"schedule": "wsd", "decay": 0.6, "final_fraction": 0.0}
        elif self.data is None:
            falling = {"final_fraction": 0.03}
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            betas=(0.9, 0.95 if self.data is None else 0.99),
            **falling,
            seed=self.seed,
            evaluate_every=tenth,
            sample_every=2 * tenth,
            checkpoint_every=tenth,
        )


def _usual(path: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting as it is where nobody chose it."""
    model, stories = chosen.get("model", "llama"), path is None
    encoded = path is not None and chosen.get("tokenizer") != ENCODED and texts.holds_shards(path)
    if encoded and ("tokenizer" in chosen or "vocab_size" in chosen):
        raise ValueError(
            f"{path} was encoded already, with the tokenizer that lies there: leave tokenizer and vocab_size out"
        )
    return {
        "data": path,
        "model": model,
        "tokenizer": ENCODED if encoded else "bpe",
        "vocab_size": 1024,
        "layers": 2 if model == "rnn" else 4,
        "heads": 4,
        "width": 256 if model == "rnn" else 128,
        "context": 256 if stories else 128,
        "batch_size": 8 if stories else 16,
        "steps": 2000 if not stories else 580 if model == "llama" else 1200,
        "learning_rate": 3e-3 if stories and model == "llama" else 2e-3,
        "seed": 0,
        "rows": "bucketed",
        "split": "text",
    }


def _plain(value: Any) -> Any:
    """A number of NumPy as Python's."""
    return value.item() if isinstance(value, np.generic) else value
