"""What a model is measured on: the text that its run held out, or one of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .. import data, models
from ..tokenizer import Tokenizer
from . import memory
from .corpus import VALIDATION_STORIES, end_of_text, joined, open_corpus, open_shards
from .recipe import Recipe
from .run import TRAINING, Run

__all__ = ["evaluation_data", "seen_at_once", "validation_stories"]


def seen_at_once(model: models.LanguageModel, context: int | None) -> int | None:
    """The tokens in a row of a measurement: as many as were chosen, else all that the model sees.

    Raises ValueError when it cannot see so many.
    """
    if context is not None and model.context is not None and context > model.context:
        raise ValueError(f"context must be at most {model.context}, which is all that the model sees; got {context}")
    return context or model.context


def evaluation_data(
    folder: str | Path, path: str | None, tokenizer: Tokenizer, context: int | None, batch_size: int
) -> tuple[Iterator[data.Batch], float | None]:
    """What ``minillm eval`` measures on: batches, and the floor where it is known.

    path: a text of the user's own, all of it, each document beginning as the tokenizer has it
    begin; or a folder of shards, at most VALIDATION_TOKENS of their validation part. None: the
    validation part of what the run was trained on. context: tokens a row; None: what the run was
    trained with, else 256.

    Raises ValueError, with the way on, when the run does not say what it was trained on, that text
    is gone or another by now, or the scores of a batch do not fit into memory.
    """
    run = Run.open(folder) if (Path(folder) / TRAINING).exists() else None
    settings = run.settings if run is not None and run.has_recipe else {}
    context = context or settings.get("context") or 256
    memory.check_batch(context, tokenizer.vocab_size)  # a row
    dataset: data.Dataset
    floor = None
    if path is None:
        if run is None or not settings:
            raise ValueError(f"{folder} does not say what it was trained on: give a text with --data")
        recipe = Recipe.from_settings(settings | {"context": context})
        if recipe.data is not None and not Path(recipe.data).exists():
            raise ValueError(f"{recipe.data}, which {folder} was trained on, is not there: give a text with --data")
        corpus = open_corpus(recipe, tokenizer, run.sha256)
        dataset, floor = corpus.dataset, corpus.floor
    elif settings.get("model") == "t5":
        recipe = Recipe.from_settings(settings | {"context": context, "data": path})
        dataset = open_corpus(recipe, tokenizer).dataset
    elif data.holds_shards(path):
        dataset = open_shards(path, context, tokenizer)[1]
    else:
        stream = joined(tokenizer.encode_batch(data.load_texts(path)), end_of_text(tokenizer))
        dataset = data.StreamDataset(np.zeros(context + 1, np.int64), stream, context)
    memory.check_batch(min(batch_size * context, dataset.validation_tokens), tokenizer.vocab_size)
    return dataset.validation(batch_size), floor


def validation_stories(folder: str | Path) -> list[data.Document]:
    """The stories that a run was examined on. Raises ValueError when it did not learn from any."""
    run = Run.open(folder) if (Path(folder) / TRAINING).exists() else None
    settings = run.settings if run is not None and run.has_recipe else {}
    if "seed" not in settings or settings.get("data") is not None:
        raise ValueError(f"{folder} did not learn from made-up stories: of its text no choices are known")
    return data.train_and_validation(0, VALIDATION_STORIES, settings["seed"])[1]
