"""From a recipe to a corpus: its texts, a tokenizer that has learned them, and batches of both."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import data
from ..data.digest import text_digest
from ..tokenizer import BPETokenizer, CharTokenizer, Tokenizer, UnigramTokenizer, load
from ..tokenizer.specials import END_OF_TEXT
from .recipe import ENCODED, Recipe

__all__ = ["VALIDATION_STORIES", "Corpus", "end_of_text", "joined", "open_corpus", "open_shards", "stories_for"]

VALIDATION_STORIES = 400
VALIDATION_TOKENS = 100_000  # of a corpus in shards, which may hold millions


@dataclass(frozen=True)
class Corpus:
    """What a model learns from, and what it is measured on."""

    tokenizer: Tokenizer
    dataset: data.Dataset
    about: str  # what the data is, in a few words
    sha256: str | None = None  # of the text, where it is the user's own
    floor: float | None = None  # nats per token that no model can beat on the validation documents, where it is known
    prompt: str = ""  # of a sample: nothing, or a question that was held out


def open_corpus(recipe: Recipe, tokenizer: Tokenizer | None = None, sha256: str | None = None) -> Corpus:
    """Read or make up the texts of a recipe, and train the tokenizer unless there is one already.

    sha256: of the text as it was when a run began. Raises ValueError when it is another by now.
    """
    if recipe.data is None:
        return _stories(recipe, tokenizer)
    if recipe.model == "t5":
        return _pairs(recipe, recipe.data, tokenizer, sha256)
    if recipe.tokenizer == ENCODED:
        tokenizer, shards, about = open_shards(recipe.data, recipe.context, tokenizer)
        return Corpus(tokenizer, shards, about, _unchanged(recipe.data, shards.digest(), sha256))
    return _texts(recipe, recipe.data, tokenizer, sha256)


def _stories(recipe: Recipe, tokenizer: Tokenizer | None) -> Corpus:
    """Made-up stories, no story twice, and the exact entropy of those kept for validation."""
    count = stories_for(recipe)
    train, validation = data.train_and_validation(count, VALIDATION_STORIES, recipe.seed)
    tokenizer = tokenizer or _train_tokenizer(recipe, [document.text for document in train[:5000]])
    train_ids, validation_ids = (
        tokenizer.encode_batch([document.text for document in part], add_special_tokens=False)
        for part in (train, validation)
    )
    dataset = _documents(recipe, train_ids, validation_ids, end_of_text(tokenizer))
    floor = data.floor(validation, [len(ids) for ids in validation_ids])
    about = f"{count:,} stories made up by minillm (seed {recipe.seed})"
    return Corpus(tokenizer, dataset, about, floor=floor)


def stories_for(recipe: Recipe) -> int:
    """A little more than the steps will read: a story is about 120 tokens long, and the ends of
    packed rows stay empty.
    """
    places = recipe.steps * recipe.batch_size * recipe.context
    return max(500, int(places / 115 if recipe.rows == "bucketed" else 1.1 * places / 100))


def _texts(recipe: Recipe, path: str, tokenizer: Tokenizer | None, sha256: str | None) -> Corpus:
    """Texts of the user's own: one long stream, or documents where there are many short ones."""
    documents = data.load_texts(path)
    found = _unchanged(path, text_digest(documents), sha256)
    split = data.split_documents if recipe.split == "text" else data.split_by_count
    train, validation = split(documents, seed=recipe.seed)
    tokenizer = tokenizer or _train_tokenizer(recipe, documents if recipe.tokenizer == "char" else train)
    train_ids, validation_ids = (
        tokenizer.encode_batch(part, add_special_tokens=False) for part in (train, validation)
    )
    eos = end_of_text(tokenizer)
    dataset: data.Dataset
    if float(np.median([len(ids) + 1 for ids in train_ids])) <= recipe.context:
        dataset = _documents(recipe, train_ids, validation_ids, eos)
    else:
        dataset = data.StreamDataset(joined(train_ids, eos), joined(validation_ids, eos), recipe.context)
    about = f"{Path(path).name}: {len(documents):,} document{'s' * (len(documents) > 1)}"
    return Corpus(tokenizer, dataset, about, found)


def _pairs(recipe: Recipe, path: str, tokenizer: Tokenizer | None, sha256: str | None) -> Corpus:
    """Questions and answers."""
    pairs = data.load_pairs(path)
    digest = _unchanged(path, text_digest([text for pair in pairs for text in pair]), sha256)
    parts = data.split_pairs(pairs, recipe.seed)
    learned = pairs if recipe.tokenizer == "char" else parts[0]
    tokenizer = tokenizer or _train_tokenizer(recipe, [text for pair in learned for text in pair])
    eos = end_of_text(tokenizer)
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
    return Corpus(tokenizer, data.PairDataset(found[0], found[1]), about, digest, prompt=parts[1][0].question)


def open_shards(
    folder: str, context: int, tokenizer: Tokenizer | None
) -> tuple[Tokenizer, data.ShardDataset, str]:
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


def _documents(recipe: Recipe, train: Sequence, validation: Sequence, eos: int) -> data.Dataset:
    make = data.BucketedDataset if recipe.rows == "bucketed" else data.DocumentDataset
    return make(train, validation, recipe.context, eos)


def _unchanged(path: str, found: str, expected: str | None) -> str:
    """The SHA-256 that was found, if it is the expected one, where one is expected."""
    if expected is not None and found != expected:
        raise ValueError(
            f"{path}: the text is no longer the one that the run was trained on (its SHA-256 differs), so that a part "
            "of what was learned from could be measured on: put the old text back (train --resume --data PATH where it "
            "is elsewhere), train a new run on the new one, or measure on a text of its own (eval --data PATH)"
        )
    return found


def joined(documents: Sequence[Sequence[int]], eos: int) -> np.ndarray:
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


def end_of_text(tokenizer: Tokenizer) -> int:
    """The token that a model learns to end with. Raises ValueError when there is none."""
    if tokenizer.eos_id is None:
        raise ValueError("the tokenizer has no end-of-text token, and a model could never learn to stop")
    return tokenizer.eos_id
