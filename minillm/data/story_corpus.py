"""The default corpus: as many stories as one likes, and the loss that no model can beat on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from .grammar import Document
from .stories import StoryGrammar


def corpus(n: int, seed: int = 0, exclude: Collection[str] = ()) -> list[Document]:
    """Draw ``n`` stories, no two alike, and none whose text is in ``exclude``.

    The i-th draw is a pure function of (seed, i); a story that was told before is skipped.
    """
    grammar = StoryGrammar()
    told = set(exclude)
    documents: list[Document] = []
    draws = 0
    while len(documents) < n:
        document = grammar.sample(np.random.default_rng((seed, draws)))
        draws += 1
        if document.text not in told:
            told.add(document.text)
            documents.append(document)
    return documents


def train_and_validation(n_train: int, n_validation: int, seed: int = 0) -> tuple[list[Document], list[Document]]:
    """Draw stories to learn from and others to be examined on: no text is in both, or twice in
    either.

    The validation stories depend on ``n_validation`` and ``seed`` only, so that runs of any length
    are measured on the same ones.
    """
    documents = corpus(n_validation + n_train, seed)
    return documents[n_validation:], documents[:n_validation]


def floor(documents: Sequence[Document], n_tokens: Sequence[int]) -> float:
    """Return the loss in nats per token that no model can beat, on average, on these documents.

    n_tokens: how many tokens each document has; its end-of-text token is one more. The floor is

        sum_i -log p(text_i) / sum_i (n_tokens_i + 1).

    Raises ValueError when there are no documents, or not one count for each.
    """
    if not documents or len(documents) != len(n_tokens):
        raise ValueError(
            f"floor: expected one count of tokens per document, at least one; got {len(documents)} documents "
            f"and {len(n_tokens)} counts"
        )
    return -sum(document.logprob for document in documents) / (sum(n_tokens) + len(n_tokens))
