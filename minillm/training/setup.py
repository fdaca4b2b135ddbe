"""From a recipe to everything a training needs: text, tokenizer, batches, model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import data, models
from ..data.digest import text_digest
from ..nn import init
from ..tokenizer import BPETokenizer, CharTokenizer, Tokenizer, UnigramTokenizer, load
from ..tokenizer.specials import END_OF_TEXT
from . import memory
from .recipe import ENCODED, RECURRENT, Recipe
from .run import TRAINING, Run
from .start import open_start

__all__ = ["Setup", "build_model", "evaluation_data", "seen_at_once", "validation_stories"]

VALIDATION_STORIES = 400
VALIDATION_TOKENS = 100_000  # of a corpus in shards, which may hold millions


@dataclass(frozen=True)
class Setup:
    """All that a training needs, made after a `Recipe`."""

    recipe: Recipe
    tokenizer: Tokenizer
    dataset: data.Dataset
    model: models.LanguageModel
    floor: float | None  # nats per token that no model can beat on the validation documents, where it is known
    about: str  # what the data is, in a few words
    sha256: str | None = None  # of the text, where it is the user's own
    prompt: str = ""  # of a sample: nothing, or a question that was held out

    @classmethod
    def prepare(
        cls,
        recipe: Recipe,
        tokenizer: Tokenizer | None = None,
        sha256: str | None = None,
        folder: str | Path | None = None,
    ) -> Setup:
        """Read or make the text, train the tokenizer (unless the run has one already), build the
        model, or open the one to start with.

        sha256: of the text that the run began with. folder: of a run that goes on; where it holds a
        model, that is opened in place of ``recipe.start``. Raises ValueError when the text is
        another by now, and, before any work, when there is not enough memory.
        """
        model = None
        if recipe.start is not None:
            dropout = None if "dropout" in recipe.following else recipe.dropout
            loaded = open_start(recipe.start if folder is None else folder, dropout)
            model, tokenizer = loaded.model, tokenizer or loaded.tokenizer
        memory.check_recipe(recipe, _build, _stories_for(recipe), model)
        floor, prompt = None, ""
        if recipe.data is None:
            tokenizer, dataset, floor, about = _stories(recipe, tokenizer)
        elif recipe.model == "t5":
            tokenizer, dataset, about, sha256, prompt = _pairs(recipe, recipe.data, tokenizer, sha256)
        else:
            tokenizer, dataset, about, sha256 = _texts(recipe, recipe.data, tokenizer, sha256)
        model = model or build_model(recipe, tokenizer)
        return cls(recipe, tokenizer, dataset, model, floor, about, sha256, prompt)


def resumed_recipe(run: Run, steps: int | None = None, data: str | None = None) -> Recipe:
    """The recipe of a run that goes on, perhaps to other steps, or with its text at another place.

    Raises ValueError or FileNotFoundError, with the way on, before any work: when the run was not
    started by the command line, its checkpoints are gone, all those steps are done, or its text is
    not there.
    """
    if not run.has_recipe or not {"data", "model", "steps"} <= run.settings.keys():
        python = f"trainer = Trainer(..., run=Run.open({str(run.path)!r})); trainer.resume(); trainer.run()"
        raise ValueError(f"{run.path} was trained by a Python program, whose model and data only it can make: {python}")
    done = run.saved_step() or 0
    if steps is not None and steps <= done:
        raise ValueError(f"{run.path} has done {done} steps already; --steps must be above that; got {steps}")
    recipe = Recipe.from_settings(run.settings)
    if data is not None:
        if recipe.data is None:
            raise ValueError(f"{run.path} learns from made-up stories; leave --data out")
        recipe = recipe.replace(data=str(Path(data).resolve()))
    if recipe.data is not None and not Path(recipe.data).exists():
        command = f"{run.resume_command} --data PATH"
        raise FileNotFoundError(f"{recipe.data}, the text of the run, is not there; where it has moved: {command}")
    return recipe if steps is None else recipe.replace(steps=steps)


def _stories(recipe: Recipe, tokenizer: Tokenizer | None) -> tuple[Tokenizer, data.Dataset, float, str]:
    """Made-up stories, no story twice, and the exact entropy of those kept for validation."""
    count = _stories_for(recipe)
    train, validation = data.train_and_validation(count, VALIDATION_STORIES, recipe.seed)
    tokenizer = tokenizer or _train_tokenizer(recipe, [document.text for document in train[:5000]])
    train_ids, validation_ids = (
        tokenizer.encode_batch([document.text for document in part], add_special_tokens=False)
        for part in (train, validation)
    )
    eos = _eos(tokenizer)
    dataset = _documents(recipe, train_ids, validation_ids, eos)
    floor = data.floor(validation, [len(ids) for ids in validation_ids])
    return tokenizer, dataset, floor, f"{count:,} stories made up by minillm (seed {recipe.seed})"


def _stories_for(recipe: Recipe) -> int:
    """A little more than the steps will read: a story is about 120 tokens long, and the ends of
    packed rows stay empty.
    """
    places = recipe.steps * recipe.batch_size * recipe.context
    return max(500, int(places / 115 if recipe.rows == "bucketed" else 1.1 * places / 100))


def _texts(
    recipe: Recipe, path: str, tokenizer: Tokenizer | None, expected: str | None = None
) -> tuple[Tokenizer, data.Dataset, str, str]:
    """Texts of the user's own: shards, one long stream, or documents where there are many short
    ones; last, the SHA-256 of the text, which is the expected one where one is expected.
    """
    if recipe.tokenizer == ENCODED:
        tokenizer, shards, about = _shards(path, recipe.context, tokenizer)
        sha256 = shards.digest()
        _check_unchanged(path, sha256, expected)
        return tokenizer, shards, about, sha256
    documents = data.load_texts(path)
    sha256 = text_digest(documents)
    _check_unchanged(path, sha256, expected)
    split = data.split_documents if recipe.split == "text" else data.split_by_count
    train, validation = split(documents, seed=recipe.seed)
    tokenizer = tokenizer or _train_tokenizer(recipe, documents if recipe.tokenizer == "char" else train)
    train_ids, validation_ids = (
        tokenizer.encode_batch(part, add_special_tokens=False) for part in (train, validation)
    )
    about = f"{Path(path).name}: {len(documents):,} document{'s' * (len(documents) > 1)}"
    typical = float(np.median([len(ids) + 1 for ids in train_ids]))
    dataset: data.Dataset
    if typical <= recipe.context:
        dataset = _documents(recipe, train_ids, validation_ids, _eos(tokenizer))
    else:
        ids = [_joined(part, _eos(tokenizer)) for part in (train_ids, validation_ids)]
        dataset = data.StreamDataset(ids[0], ids[1], recipe.context)
    return tokenizer, dataset, about, sha256


def _pairs(
    recipe: Recipe, path: str, tokenizer: Tokenizer | None, expected: str | None = None
) -> tuple[Tokenizer, data.PairDataset, str, str, str]:
    """Questions and answers; last, the SHA-256 of their texts, and a question that was held out."""
    pairs = data.load_pairs(path)
    sha256 = text_digest([text for pair in pairs for text in pair])
    _check_unchanged(path, sha256, expected)
    parts = data.split_pairs(pairs, recipe.seed)
    learned = pairs if recipe.tokenizer == "char" else parts[0]
    tokenizer = tokenizer or _train_tokenizer(recipe, [text for pair in learned for text in pair])
    eos = _eos(tokenizer)
    found: list[list[data.IdPair]] = []
    for part in parts:
        questions = tokenizer.encode_batch([pair.question for pair in part])
        answers = [[*ids, *([] if list(ids[-1:]) == [eos] else [eos])] for ids in
                   tokenizer.encode_batch([pair.answer for pair in part])]  # fmt: skip
        both = zip(questions, answers, strict=True)
        found.append([pair for pair in both if max(map(len, pair)) <= recipe.context])
    left_out = len(pairs) - sum(map(len, found))
    if not all(found):
        raise ValueError(
            f"{path}: {left_out:,} of {len(pairs):,} pairs are longer than the context of {recipe.context} tokens, and "
            "none is left to learn from or to hold out"
        )
    longer = f" ({left_out:,} longer than {recipe.context} tokens left out)" if left_out else ""
    about = f"{Path(path).name}: {len(pairs):,} questions with answers{longer}"
    return tokenizer, data.PairDataset(found[0], found[1]), about, sha256, parts[1][0].question


def _documents(recipe: Recipe, train: Sequence, validation: Sequence, eos: int) -> data.Dataset:
    make = data.BucketedDataset if recipe.rows == "bucketed" else data.DocumentDataset
    return make(train, validation, recipe.context, eos)


def _check_unchanged(path: str, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ValueError(
            f"{path}: the text is no longer the one that the run was trained on (its SHA-256 differs), so that a part "
            "of what was learned from could be measured on: put the old text back (train --resume --data PATH where it "
            "is elsewhere), train a new run on the new one, or measure on a text of its own (eval --data PATH)"
        )


def _shards(folder: str, context: int, tokenizer: Tokenizer | None) -> tuple[Tokenizer, data.ShardDataset, str]:
    """A corpus that ``minillm encode`` made, which stays on the disk."""
    file = Path(folder) / "tokenizer.json"
    tokenizer = tokenizer or load(file)
    encoder = load(file) if file.is_file() else tokenizer
    if not tokenizer.cuts_as(encoder):
        encoder = tokenizer  # whose shards these are not, as they will say themselves
    train, validation = (data.open_shards(folder, name, encoder) for name in ("train", "validation"))
    documents = sum(map(len, train)) + sum(map(len, validation))
    about = f"{Path(folder).name}: {documents:,} document{'s' * (documents > 1)}, encoded"
    return tokenizer, data.ShardDataset(train, validation, context, VALIDATION_TOKENS), about


def _joined(documents: Sequence[Sequence[int]], eos: int) -> np.ndarray:
    """One stream of ids; where several documents meet, the end-of-text token stands between.

    Where encoding has begun each with it, or ended it so, it stands there once.
    """
    parts = [np.asarray(documents[0])]
    for last, ids in itertools.pairwise(documents):
        if list(last[-1:]) != [eos] and list(ids[:1]) != [eos]:
            parts.append(np.asarray([eos]))
        parts.append(np.asarray(ids))
    return np.concatenate(parts)


def _train_tokenizer(recipe: Recipe, texts: Sequence[str]) -> Tokenizer:
    specials = ("<pad>", "</s>") if recipe.model == "t5" else (END_OF_TEXT,)
    if recipe.tokenizer == "char":
        return CharTokenizer.train(texts, specials)
    if recipe.tokenizer == "unigram":
        return UnigramTokenizer.train(texts, recipe.vocab_size, specials)
    return BPETokenizer.train(texts, recipe.vocab_size, specials)


def _eos(tokenizer: Tokenizer) -> int:
    if tokenizer.eos_id is None:
        raise ValueError("the tokenizer has no end-of-text token, and a model could never learn to stop")
    return tokenizer.eos_id


def build_model(recipe: Recipe, tokenizer: Tokenizer) -> models.LanguageModel:
    """A model of the recipe's kind and sizes, with random weights drawn from its seed."""
    return _build(recipe, tokenizer.vocab_size, tokenizer.eos_id)


def _build(recipe: Recipe, V: int, eos: int | None = 0) -> models.LanguageModel:
    rng = np.random.default_rng((recipe.seed, 0))
    if recipe.model == "gpt2":
        return models.GPT2(
            models.GPT2Config(
                vocab_size=V,
                n_positions=recipe.context,
                n_embd=recipe.width,
                n_layer=recipe.layers,
                n_head=recipe.heads,
                resid_pdrop=recipe.dropout,
                embd_pdrop=recipe.dropout,
                attn_pdrop=recipe.dropout,
                bos_token_id=eos,
                eos_token_id=eos,
            ),
            rng,
        )
    if recipe.model in RECURRENT:
        return models.RecurrentLM(
            models.RecurrentLMConfig(
                vocab_size=V,
                hidden_size=recipe.width,
                num_layers=recipe.layers,
                cell="lstm" if recipe.model == "lstm" else "gru",
                attention=recipe.attention,
                window=recipe.context,
            ),
            rng,
        )
    if recipe.model == "t5":
        return models.T5(
            models.T5Config(
                vocab_size=V,
                d_model=recipe.width,
                d_kv=recipe.width // recipe.heads,
                d_ff=4 * recipe.width,
                num_layers=recipe.layers,
                num_heads=recipe.heads,
                relative_attention_num_buckets=64,  # of single letters, the place counts exactly
                dropout_rate=recipe.dropout,
                eos_token_id=eos,
            ),
            rng,
        )
    model = models.Llama(
        models.LlamaConfig(
            vocab_size=V,
            hidden_size=recipe.width,
            intermediate_size=-(-recipe.width * 8 // 3 // 32) * 32,  # two thirds of 4 C, for three matrices not two
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=recipe.context,
            rms_norm_eps=1e-5,
            initializer_range=recipe.width**-0.5,  # a sum of C terms of that size keeps the size of its inputs
            tie_word_embeddings=True,
            bos_token_id=eos,
            eos_token_id=eos,
        ),
        rng,
    )
    for block in model.model.layers:  # add nothing at first: what they say is learned before it is heard
        for last in (block.self_attn.o_proj, block.mlp.down_proj):
            last.weight = init.constant(last.weight.shape, 0.0)
    return model


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
        if recipe.data is None:
            _, dataset, floor, _ = _stories(recipe, tokenizer)
        elif not Path(recipe.data).exists():
            raise ValueError(f"{recipe.data}, which {folder} was trained on, is not there: give a text with --data")
        elif recipe.model == "t5":
            dataset = _pairs(recipe, recipe.data, tokenizer, run.sha256)[1]
        else:
            dataset = _texts(recipe, recipe.data, tokenizer, run.sha256)[1]
    elif settings.get("model") == "t5":
        dataset = _pairs(Recipe.from_settings(settings | {"context": context, "data": path}), path, tokenizer)[1]
    elif data.holds_shards(path):
        dataset = _shards(path, context, tokenizer)[1]
    else:
        ids = tokenizer.encode_batch(data.load_texts(path))
        dataset = data.StreamDataset(np.zeros(context + 1, np.int64), _joined(ids, _eos(tokenizer)), context)
    memory.check_batch(min(batch_size * context, dataset.validation_tokens), tokenizer.vocab_size)
    return dataset.validation(batch_size), floor


def validation_stories(folder: str | Path) -> list[data.Document]:
    """The stories that a run was examined on. Raises ValueError when it did not learn from any."""
    settings = Run.open(folder).settings if (Path(folder) / TRAINING).exists() else {}
    if "seed" not in settings or settings.get("data") is not None:
        raise ValueError(f"{folder} did not learn from made-up stories: of its text no choices are known")
    return data.train_and_validation(0, VALIDATION_STORIES, settings["seed"])[1]
