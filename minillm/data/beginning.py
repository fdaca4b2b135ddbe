"""How texts begin in what a model learns from: after that token it has to write its own.

Where rows begin with a token of their own (`DocumentDataset` puts the end-of-text token there: it
says "a text begins"), every prompt must begin with it too. Windows of a long text begin anywhere:
in mid-word, after whatever came before. A token that means "beginning" would then be one that the
model has hardly or never seen, and the text after it chance; so nothing goes before a prompt, and a
text from nothing begins where readers see a beginning as well: after a line break.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from ..tokenizer import Tokenizer
from .batches import Dataset, DocumentDataset
from .bucketed import BucketedDataset

ENOUGH = 4096  # tokens to look at
MOST_BATCHES = 16
RARE = 1e-3  # of the tokens: a separator that comes once in a thousand is one that the model has learned

# What a text may begin after, best first: a line break, the end of a sentence, anything.
BREAKS: tuple[Callable[[bytes], bool], ...] = (
    lambda token: b"\n" in token and not token.strip(),
    lambda token: token.strip() in (b".", b"!", b"?"),
    lambda token: True,
)


def beginning(
    dataset: Dataset, tokenizer: Tokenizer, steps: int, batch_size: int, seed: int
) -> tuple[int, bool] | None:
    """The token after which a text begins, and whether it goes before prompts too.

    It does where documents begin with it, or, in a dataset of somebody's own, most rows of the
    first batches with one special token, unless a chat template writes that anyway. Else the
    end-of-text token is it where it is frequent between documents, and a line break (or what comes
    nearest) where it is not. None where the batches do not hold this tokenizer's ids.
    """
    if isinstance(dataset, DocumentDataset | BucketedDataset):
        return dataset.eos_id, True
    first: list[int] = []
    read: Counter[int] = Counter()
    for step in range(min(steps, MOST_BATCHES)):
        x = np.asarray(dataset.batch(step, batch_size, seed)[0])
        if x.ndim != 2 or x.dtype.kind not in "iu" or not x.size or not 0 <= x.min() <= x.max() < tokenizer.vocab_size:
            return None
        first += x[:, 0].tolist()
        read.update(x.ravel().tolist())
        if read.total() >= ENOUGH:
            break
    special = set(tokenizer.special_tokens.values())
    commonest, count = Counter(first).most_common(1)[0]
    if commonest in special and 2 * count >= len(first):
        return commonest, tokenizer.chat_format is None
    eos = tokenizer.eos_id
    if eos is not None and read[eos] > RARE * read.total():
        return eos, False
    tokens = [id for id, _ in read.most_common() if id not in special] or [commonest]
    return next(id for fits in BREAKS for id in tokens if fits(tokenizer.token_bytes(id))), False
