"""What is held out of a text: a model is measured on what it did not learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np


def held_out(
    lengths: Sequence[int], validation: float, seed: int = 0, counts: Sequence[int] | None = None
) -> dict[int, float]:
    """Choose documents for validation: number of the document -> how much of it, 1.0 or the share
    at its end.

    lengths: characters of each document. counts: how often each comes; None: once.

    A share of the *documents* may be nearly all of the text: a novel and a licence are two
    documents. So documents are taken in random order until they hold the share ``validation`` of
    all characters. The last of them is taken or left as a whole, whichever is nearer; where both
    miss the share by more than half of it, the document is cut, and its end held out. A single
    document is always cut.

    >>> held_out([1000, 500_000], validation=0.1)
    {0: 1.0, 1: 0.0982}
    """
    if len(lengths) == 1:
        return {0: validation}
    sizes = np.multiply(lengths, 1 if counts is None else counts)  # characters
    wanted = missing = validation * float(sizes.sum())
    chosen: dict[int, float] = {}
    for i in map(int, np.random.default_rng(seed).permutation(len(sizes))):
        size = float(sizes[i])
        too_much = size - missing if len(chosen) < len(sizes) - 1 else np.inf  # something must be left to learn from
        if too_much <= 0:
            chosen[i], missing = 1.0, missing - size
            continue
        if min(too_much, missing) > wanted / 2:
            share = missing / size
            if 0 < cut_at(lengths[i], share) < lengths[i]:
                chosen[i] = share
            elif not chosen:
                chosen[i] = 1.0  # a document of a few letters
        elif too_much < missing:
            chosen[i] = 1.0
        break
    return chosen


def cut_at(length: int, share: float) -> int:
    """How many characters of a document are left when the share at its end is held out."""
    return int(length * (1.0 - share))


def split_documents(documents: Sequence[str], validation: float = 0.1, seed: int = 0) -> tuple[list[str], list[str]]:
    """Split documents into a training and a validation list, both in their original order.

    About the share ``validation`` of the text is held out: whole documents at random, or the end of
    one that would be too much, see `held_out`. Documents with equal text are treated alike, so that
    no validation document was ever trained on.

    >>> split_documents(["0123456789"], validation=0.2)
    (['01234567'], ['89'])

    Raises ValueError when ``validation`` is not between 0 and 1, or one side would be empty.
    """
    occurrences = _distinct(documents, validation)
    texts = list(occurrences)
    chosen = held_out([len(text) for text in texts], validation, seed, list(occurrences.values()))
    shares = {texts[i]: share for i, share in chosen.items()}
    train, validating = [], []
    for text in documents:
        share = shares.get(text, 0.0)
        cut = 0 if share == 1.0 else cut_at(len(text), share)
        train += [text[:cut]] if cut else []
        validating += [text[cut:]] if cut < len(text) else []
    return train, validating


def split_by_count(documents: Sequence[str], validation: float = 0.1, seed: int = 0) -> tuple[list[str], list[str]]:
    """Split as runs did that are older than `split_documents`' rule: a share of the documents,
    whatever their length.

    They go on, and are evaluated, with the text that was held out when they began.
    """
    texts = list(_distinct(documents, validation))
    if len(texts) == 1:
        return split_documents(texts, validation, seed)
    count = min(max(round(validation * len(texts)), 1), len(texts) - 1)
    out = {texts[i] for i in np.random.default_rng(seed).permutation(len(texts))[:count]}
    return [text for text in documents if text not in out], [text for text in documents if text in out]


def _distinct(documents: Sequence[str], validation: float) -> Counter[str]:
    """How often each text comes, in the order of their first appearance; refuses what cannot be
    split.
    """
    if not 0.0 < validation < 1.0:
        raise ValueError(f"split_documents: validation must be between 0 and 1, both excluded; got {validation}")
    occurrences = Counter(documents)
    if len(occurrences) < 2:
        length = len(documents[0]) if documents else 0
        if not 0 < cut_at(length, validation) < length:
            raise ValueError(f"split_documents: a text of {length} characters is too short to split")
    return occurrences
