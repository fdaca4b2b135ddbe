"""Where the distance to the floor comes from: which words of the stories a model still guesses.

The grammar that writes the stories knows how surprising each token is at the least. What a model
pays above that, it pays for something that it has not learned. Tokens are told apart by the kind of
word they belong to, and by whether there was anything to choose: a name that is certain must be
remembered; a name that is drawn by lot must be spread over all names, evenly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..data import Document, Grammar, StoryGrammar
from ..data.story_words import kinds_of
from ..tensor import no_grad
from .evaluate import evaluating

__all__ = ["Share", "by_choice", "table"]

CERTAIN = 1e-9  # nats: below, there was nothing to choose


class Share(NamedTuple):
    """What the tokens of one kind cost, nats in all."""

    kind: str
    tokens: int
    floor: float  # what they must cost
    nats: float  # what they cost this model


def by_choice(
    model: Any, tokenizer: Any, documents: Sequence[Document], grammar: Grammar | None = None
) -> list[Share]:
    """Divide the model's loss on stories among the kinds of words, costliest distance first.

    The tokens of a kind, their floor and their nats add up to those of all documents. Raises
    ValueError for a text that the grammar (None: that of the stories) does not write.
    """
    grammar = grammar or StoryGrammar()
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for document, nats in zip(documents, token_nats(model, tokenizer, documents), strict=True):
        ids = tokenizer.encode(document.text, add_special_tokens=False)
        ends = np.cumsum([len(tokenizer.token_bytes(id)) for id in ids])
        text = document.text
        least = np.diff([0.0, *grammar.prefix_nats(text, ends.tolist())])
        kinds = kinds_of(text, ends.tolist())
        rows = [*zip(kinds, least, nats, strict=False), ("end of the text", -document.logprob - least.sum(), nats[-1])]
        for kind, floor, cost in rows:
            certain = floor < CERTAIN
            sums[f"{kind}, {'certain' if certain else 'to choose'}"] += 1, floor, cost
    shares = [Share(kind, int(count), floor, cost) for kind, (count, floor, cost) in sums.items()]
    return sorted(shares, key=lambda share: share.floor - share.nats)


def token_nats(model: Any, tokenizer: Any, documents: Sequence[Document], rows: int = 16) -> list[np.ndarray]:
    """What each token of each document costs the model: (n + 1,) nats, the last one the end of the
    text.

    Each document is read alone, from the end-of-text token that stands before it.
    """
    eos, found = tokenizer.eos_id, []
    encoded = tokenizer.encode_batch([document.text for document in documents], add_special_tokens=False)
    texts = [[eos, *ids, eos] for ids in encoded]
    with evaluating(model), no_grad():
        for first in range(0, len(texts), rows):
            some = texts[first : first + rows]
            ids = np.full((len(some), max(map(len, some))), eos)
            for row, text in zip(ids, some, strict=True):
                row[: len(text)] = text
            costs = F.cross_entropy(model(ids[:, :-1]), ids[:, 1:], reduction="none").data  # (rows, T)
            found += [row[: len(text) - 1].astype(float) for row, text in zip(costs, some, strict=True)]
    return found


def table(shares: Sequence[Share]) -> str:
    """A line for each kind of word, in nats per token, and its share of the distance to the floor.

    >>> names = Share("name, certain", 100, 0.0, 50.0)
    >>> print(table([names, Share("phrase, to choose", 300, 300.0, 310.0)]))
    kind of word          tokens   floor    loss   above  share of the distance
    name, certain            100  0.0000  0.5000  0.5000  83.3 %
    phrase, to choose        300  1.0000  1.0333  0.0333  16.7 %
    all                      400  0.7500  0.9000  0.1500
    """
    tokens = sum(share.tokens for share in shares)
    floor, nats = sum(share.floor for share in shares), sum(share.nats for share in shares)
    lines = [f"{'kind of word':<20}{'tokens':>8}{'floor':>8}{'loss':>8}{'above':>8}  share of the distance"]
    for kind, n, least, cost in shares:
        share = (cost - least) / (nats - floor) if nats > floor else 0.0
        lines.append(f"{_line(kind, n, least, cost)}  {100 * share:.1f} %")
    return "\n".join([*lines, _line("all", tokens, floor, nats)])


def _line(kind: str, tokens: int, floor: float, nats: float) -> str:
    return f"{kind:<20}{tokens:>8,}{max(0.0, floor) / tokens:>8.4f}{nats / tokens:>8.4f}{(nats - floor) / tokens:>8.4f}"
