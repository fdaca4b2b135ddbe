"""From a handful of settings to everything a training needs: text, tokenizer, model, how long, how fast.

A `Recipe` is what a person may choose; whatever is left at None is filled in from what was chosen, in ``completed``.
The result is written into the run folder, so that a run that is taken up again is the same run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, models
from .run import Run
from ..tokenizer import BPETokenizer, CharTokenizer, Tokenizer, load
from .trainer import TrainConfig

__all__ = ["Ingredients", "Recipe"]

MODELS = ("llama", "gpt2", "rnn")
TOKENIZERS = ("bpe", "char")
VALIDATION_STORIES = 400
VALIDATION_TOKENS = 100_000  # of a corpus in shards, which may hold millions

# What suits the two kinds of text, where nothing was asked for.
STORIES = {"vocab_size": 1024, "context": 256, "batch_size": 8, "steps": 1200, "learning_rate": 2e-3}
TEXT = {"vocab_size": 1024, "context": 128, "batch_size": 16, "steps": 2000, "learning_rate": 2e-3}


@dataclass(frozen=True)
class Recipe:
    """The settings of a training. Raises ValueError that names the setting which makes no sense.

    >>> Recipe(width=100, heads=3).completed()
    Traceback (most recent call last):
        ...
    ValueError: width must be divisible by heads; got width 100, heads 3
    """

    data: str | None = None  # a text file, a folder of .txt files or of shards; None: the stories that minillm makes up
    model: str = "llama"  # llama, gpt2, or rnn (recurrent cells with attention over a window)
    tokenizer: str | None = None  # bpe or char; shards keep the one that encoded them, and leave both at None
    vocab_size: int | None = None
    layers: int | None = None
    heads: int | None = None
    width: int | None = None
    context: int | None = None  # tokens a row; for the rnn also the window of its attention
    batch_size: int | None = None
    steps: int | None = None
    learning_rate: float | None = None
    seed: int = 0

    def completed(self) -> Recipe:
        """The same recipe with every setting filled in, checked."""
        usual = STORIES if self.data is None else TEXT
        recurrent = self.model == "rnn"
        filled: dict[str, Any] = {name: value for name, value in usual.items() if getattr(self, name) is None}
        if self.layers is None:
            filled["layers"] = 2 if recurrent else 4
        if self.heads is None:
            filled["heads"] = 4
        if self.width is None:
            filled["width"] = 256 if recurrent else 128
        encoded = self.data is not None and data.holds_shards(self.data)
        if encoded and (self.tokenizer is not None or self.vocab_size is not None):
            raise ValueError(
                f"{self.data} was encoded already, with the tokenizer that lies there: "
                "leave tokenizer and vocab_size out"
            )
        if encoded:
            del filled["vocab_size"]
        elif self.tokenizer is None:
            filled["tokenizer"] = "bpe"
        recipe = dataclasses.replace(self, **filled)
        for name, known in (("model", MODELS), ("tokenizer", TOKENIZERS)):
            if getattr(recipe, name) not in known and not (encoded and name == "tokenizer"):
                raise ValueError(f"{name} must be one of {', '.join(known)}; got {getattr(recipe, name)!r}")
        for name in ("layers", "heads", "width", "context", "batch_size", "steps"):
            if getattr(recipe, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(recipe, name)}")
        assert recipe.heads and recipe.width
        if recipe.width % recipe.heads:
            raise ValueError(f"width must be divisible by heads; got width {recipe.width}, heads {recipe.heads}")
        if recipe.model == "llama" and recipe.width // recipe.heads % 2:
            raise ValueError(
                f"the width of a head must be even for the llama model; got {recipe.width} / {recipe.heads}"
            )
        if recipe.tokenizer == "bpe" and recipe.vocab_size is not None and recipe.vocab_size < 257:
            raise ValueError(
                "vocab_size must be at least 257 for the bpe tokenizer: 256 bytes and <|endoftext|>; "
                f"got {recipe.vocab_size}"
            )
        recipe.train_config()  # which refuses what it cannot work with
        return recipe

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        return dataclasses.asdict(self)

    def train_config(self) -> TrainConfig:
        """How the trainer is to go about it."""
        assert self.steps and self.batch_size and self.learning_rate is not None
        tenth = max(1, self.steps // 10)
        return TrainConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            betas=(0.9, 0.95 if self.data is None else 0.99),
            final_fraction=0.03 if self.data is None else 0.1,
            seed=self.seed,
            evaluate_every=tenth,
            sample_every=2 * tenth,
            checkpoint_every=tenth,
        )


@dataclass(frozen=True)
class Ingredients:
    """All that a training needs, made after a `Recipe`."""

    recipe: Recipe
    tokenizer: Tokenizer
    dataset: data.Dataset
    model: models.LanguageModel
    floor: float | None  # nats per token that no model can beat on the validation documents, where it is known
    about: str  # what the data is, in a few words

    @classmethod
    def prepare(cls, recipe: Recipe, tokenizer: Tokenizer | None = None) -> Ingredients:
        """Read or make the text, train the tokenizer (unless the run has one already), build the model."""
        recipe = recipe.completed()
        if recipe.data is None:
            tokenizer, dataset, floor, about = _stories(recipe, tokenizer)
        else:
            tokenizer, dataset, about = _texts(recipe, tokenizer)
            floor = None
        return cls(recipe, tokenizer, dataset, build_model(recipe, tokenizer), floor, about)


def _stories(recipe: Recipe, tokenizer: Tokenizer | None) -> tuple[Tokenizer, data.Dataset, float, str]:
    """Made-up stories, no story twice, and the exact entropy of those kept for validation."""
    assert recipe.steps and recipe.batch_size and recipe.context
    # a story is about 118 tokens long, and the ends of rows stay empty: a little more than the steps will read
    count = max(500, int(1.1 * recipe.steps * recipe.batch_size * recipe.context / 100))
    train, validation = data.train_and_validation(count, VALIDATION_STORIES, recipe.seed)
    tokenizer = tokenizer or _train_tokenizer(recipe, [document.text for document in train[:5000]])
    train_ids = tokenizer.encode_batch([document.text for document in train])
    validation_ids = tokenizer.encode_batch([document.text for document in validation])
    eos = _eos(tokenizer)
    assert recipe.context is not None
    dataset = data.DocumentDataset(train_ids, validation_ids, recipe.context, eos)
    floor = data.floor(validation, [len(ids) for ids in validation_ids])
    return tokenizer, dataset, floor, f"{count:,} stories made up by minillm (seed {recipe.seed})"


def _texts(recipe: Recipe, tokenizer: Tokenizer | None) -> tuple[Tokenizer, data.Dataset, str]:
    """Texts of the user's own: shards, one long stream, or documents where there are many short ones."""
    assert recipe.data is not None and recipe.context is not None
    if data.holds_shards(recipe.data):
        return _shards(recipe.data, recipe.context, tokenizer)
    documents = data.load_texts(recipe.data)
    train, validation = data.split_documents(documents, seed=recipe.seed)
    tokenizer = tokenizer or _train_tokenizer(recipe, train if recipe.tokenizer == "bpe" else documents)
    train_ids, validation_ids = tokenizer.encode_batch(train), tokenizer.encode_batch(validation)
    about = f"{Path(recipe.data).name}: {len(documents):,} document{'s' * (len(documents) > 1)}"
    typical = float(np.median([len(ids) + 1 for ids in train_ids]))
    dataset: data.Dataset
    if typical <= recipe.context:
        dataset = data.DocumentDataset(train_ids, validation_ids, recipe.context, _eos(tokenizer))
    else:
        ids = [_joined(part, _eos(tokenizer)) for part in (train_ids, validation_ids)]
        dataset = data.StreamDataset(ids[0], ids[1], recipe.context)
    return tokenizer, dataset, about


def _shards(folder: str, context: int, tokenizer: Tokenizer | None) -> tuple[Tokenizer, data.Dataset, str]:
    """A corpus that ``minillm encode`` made, which stays on the disk."""
    tokenizer = tokenizer or load(Path(folder) / "tokenizer.json")
    train, validation = (data.open_shards(folder, name, tokenizer) for name in ("train", "validation"))
    documents = sum(map(len, train)) + sum(map(len, validation))
    about = f"{Path(folder).name}: {documents:,} document{'s' * (documents > 1)}, encoded"
    return tokenizer, data.ShardDataset(train, validation, context, VALIDATION_TOKENS), about


def _joined(documents: Sequence[Sequence[int]], eos: int) -> np.ndarray:
    """One stream of ids; where several documents meet, the end-of-text token stands between."""
    parts = [np.asarray(documents[0])]
    for ids in documents[1:]:
        parts += [np.asarray([eos]), np.asarray(ids)]
    return np.concatenate(parts)


def _train_tokenizer(recipe: Recipe, texts: Sequence[str]) -> Tokenizer:
    if recipe.tokenizer == "char":
        return CharTokenizer.train(texts)
    assert recipe.vocab_size is not None
    return BPETokenizer.train(texts, recipe.vocab_size)


def _eos(tokenizer: Tokenizer) -> int:
    if tokenizer.eos_id is None:
        raise ValueError("the tokenizer has no end-of-text token, and a model could never learn to stop")
    return tokenizer.eos_id


def build_model(recipe: Recipe, tokenizer: Tokenizer) -> models.LanguageModel:
    """A model of the recipe's kind and sizes, with random weights drawn from its seed."""
    assert recipe.layers and recipe.heads and recipe.width and recipe.context
    rng = np.random.default_rng((recipe.seed, 0))
    V, eos = tokenizer.vocab_size, tokenizer.eos_id
    if recipe.model == "gpt2":
        return models.GPT2(
            models.GPT2Config(
                vocab_size=V,
                n_positions=recipe.context,
                n_embd=recipe.width,
                n_layer=recipe.layers,
                n_head=recipe.heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=eos,
                eos_token_id=eos,
            ),
            rng,
        )
    if recipe.model == "rnn":
        return models.RecurrentLM(
            models.RecurrentLMConfig(
                vocab_size=V, hidden_size=recipe.width, num_layers=recipe.layers, window=recipe.context
            ),
            rng,
        )
    return models.Llama(
        models.LlamaConfig(
            vocab_size=V,
            hidden_size=recipe.width,
            intermediate_size=-(-recipe.width * 8 // 3 // 32) * 32,  # two thirds of 4 C, for three matrices not two
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=recipe.context,
            rms_norm_eps=1e-5,
            initializer_range=recipe.width**-0.5,  # a sum of C terms of that size keeps the size of its inputs
            tie_word_embeddings=True,
            bos_token_id=eos,
            eos_token_id=eos,
        ),
        rng,
    )


def evaluation_data(
    folder: str | Path, path: str | None, tokenizer: Tokenizer, context: int | None, batch_size: int
) -> tuple[Iterator[data.Batch], float | None]:
    """What ``minillm eval`` measures on: batches, and the floor where it is known.

    path: a text of the user's own, all of it; or a folder of shards, at most VALIDATION_TOKENS of their validation
    part. None: the validation part of what the run was trained on.
    context: tokens a row; None: what the run was trained with, else 256.
    """
    run = Run.open(folder) if (Path(folder) / "training.json").exists() else None
    recipe = Recipe(**run.settings) if run else None
    context = context or (recipe.context if recipe else None) or 256
    if path is None:
        if recipe is None:
            raise ValueError(f"{folder} does not say what it was trained on: give a text with --data")
        recipe = dataclasses.replace(recipe, context=context)
        dataset, floor = (
            _stories(recipe, tokenizer)[1:3] if recipe.data is None else (_texts(recipe, tokenizer)[1], None)
        )
        return dataset.validation(batch_size), floor
    if data.holds_shards(path):
        return _shards(path, context, tokenizer)[1].validation(batch_size), None
    ids = tokenizer.encode_batch(data.load_texts(path))
    whole = data.StreamDataset(np.zeros(context + 1, np.int64), _joined(ids, _eos(tokenizer)), context)
    return whole.validation(batch_size), None
