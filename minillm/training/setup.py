"""From a recipe to everything a training needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import models
from ..generation.config import GenerationConfig
from ..tokenizer import Tokenizer
from . import memory
from .build import build_model
from .corpus import Corpus, open_corpus
from .recipe import Recipe
from .start import open_start

__all__ = ["Setup"]


@dataclass(frozen=True)
class Setup:
    """All that a training needs, made after a `Recipe`."""

    recipe: Recipe
    corpus: Corpus
    model: models.LanguageModel
    generation: GenerationConfig | None = None  # of the folder that training starts from, if it says

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        tokenizer: Tokenizer | None = None,
        sha256: str | None = None,
        folder: str | Path | None = None,
        inform: Callable[[str], None] = lambda text: None,
    ) -> Setup:
        """Read or make the text, train the tokenizer (unless the run has one already), build the
        model, or open the one to start with.

        sha256: of the text that the run began with. folder: of a run that goes on; where it holds a
        model, that is opened in place of ``recipe.start``. inform: is told what takes a while.
        Raises ValueError when the text is another by now, and, before any work, when there is not
        enough memory.
        """
        model = generation = None
        if recipe.start is not None:
            dropout = None if "dropout" in recipe.following else recipe.dropout
            start = Path(recipe.start if folder is None else folder)
            loaded = open_start(start, dropout)
            model, tokenizer = loaded.model, tokenizer or loaded.tokenizer
            generation = loaded.generation if (start / "generation_config.json").is_file() else None
        memory.check_recipe(recipe, model)
        inform("writing stories, and learning their tokens" if recipe.data is None else f"reading {recipe.data}")
        corpus = open_corpus(recipe, tokenizer, sha256)
        model = model or build_model(recipe, corpus.tokenizer.vocab_size, corpus.tokenizer.eos_id)
        return cls(recipe, corpus, model, generation)
