"""Learning the pieces of a Unigram vocabulary and their probabilities.

Start from far too many pieces, every frequent substring of a word. Then, in turn: fit the
probabilities to the text by expectation maximisation, and throw out the quarter of the pieces that
the text would miss least. Source: Kudo 2018.

All words are worked on at once, as arrays: the lattices of all words have their nodes in one row,
and step t handles the edges that end (or begin) at the t-th character of any word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import regex

from .base import replace_surrogates
from .specials import stretches

LONGEST = 16  # characters of the longest piece
KEPT = 0.75  # what a round of pruning leaves
ROOM = 1.1  # pruning stops at this much above the size asked for; the least likely pieces go last
LEAST = 0.5  # a piece expected to occur less often than this goes at once


def word_counts(texts: Iterable[str], words: Callable[[str], list[str]], special_tokens: Sequence[str]) -> Counter[str]:
    """How often each word occurs in the texts, outside special tokens."""
    counts: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str) else texts:
        if not isinstance(text, str):
            raise TypeError(f"UnigramTokenizer.train: texts must be strings; got {type(text).__name__}")
        for part in stretches(replace_surrogates(text), special_tokens):
            counts.update(words(part))
    return counts


_RUN = regex.compile(r"▁*[\p{L}\p{M}]+|▁*[^\p{L}\p{M}▁]+|▁+")


def runs_of_letters(words: Mapping[str, int]) -> Counter[str]:
    """The words cut between letters and what is none, so that a piece learned from them holds one
    or the other.

    So "dog" is the same piece before a comma and before a full stop; ``sentencepiece`` does the
    like by default.

    >>> runs_of_letters({"▁dog.": 2, "▁dog": 1, "▁(1.5)": 1})
    Counter({'▁dog': 3, '.': 2, '▁(1.5)': 1})
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for run in _RUN.findall(word):
            counts[run] += count
    return counts


def learn_pieces(
    words: Mapping[str, int], n_pieces: int, progress: Callable[[int, int], None] | None = None
) -> list[tuple[str, float]]:
    """The pieces and their log-probabilities, most likely first: every single character, and the
    best longer ones.

    words: how often each word occurs. A small text can give fewer than `n_pieces`.

    Raises ValueError when there are more different characters than `n_pieces`.
    """
    characters = sorted({character for word in words for character in word})
    if len(characters) > n_pieces:
        raise ValueError(
            f"UnigramTokenizer.train: vocab_size must leave room for {len(characters)} different characters; "
            f"it leaves {n_pieces}"
        )
    if not characters:
        return []
    seeds, frequency = _seeds(words, characters, max(20 * n_pieces, 50_000))
    corpus = Lattices([*words], seeds)
    inner = Lattices(seeds, seeds, whole=False)  # how each piece could be spelled by others
    counts = np.array([*words.values()], float)
    keep = np.arange(len(seeds))  # the pieces that are left; the first len(characters) always are
    scores = np.log(frequency / frequency.sum())
    target = max(int(ROOM * n_pieces), len(characters))
    while True:
        for _ in range(2):
            expected = corpus.expected_counts(scores, counts)
            left = (expected >= LEAST) | (keep < len(characters))
            keep, expected = keep[left], np.maximum(expected[left], LEAST)
            corpus, inner = corpus.restricted(left), inner.restricted(left, keep)
            scores = digamma(expected) - digamma(expected.sum())
        if progress:
            progress(len(seeds) - len(keep), len(seeds) - min(n_pieces, len(keep)))
        if len(keep) <= target:
            break
        size = max(target, int(KEPT * len(keep)))
        loss = _losses(corpus, inner, scores, counts, keep)
        loss[keep < len(characters)] = np.inf
        left = np.zeros(len(keep), bool)
        left[np.argsort(-loss, kind="stable")[:size]] = True
        keep, scores = keep[left], scores[left]
        corpus, inner = corpus.restricted(left), inner.restricted(left, keep)
    rank = np.where(keep < len(characters), np.inf, scores)
    best = np.argsort(-rank, kind="stable")[:n_pieces]
    best = best[np.argsort(-scores[best], kind="stable")]
    return [(seeds[keep[i]], float(scores[i])) for i in best]


def _seeds(words: Mapping[str, int], characters: Sequence[str], most: int) -> tuple[list[str], np.ndarray]:
    """The pieces to start from: the characters, then substrings by frequency times length; and
    their frequencies.
    """
    frequency: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(start + LONGEST, len(word)) + 1):
                frequency[word[start:end]] += count
    # a substring that is always followed by the same character says nothing that the longer one
    # does not
    inside = {text[:-1] for text, count in frequency.items() if len(text) > 1 and frequency[text[:-1]] == count}
    longer = [t for t, count in frequency.items() if len(t) > 1 and count > 1 and t not in inside]
    longer.sort(key=lambda text: (-frequency[text] * len(text), text))
    seeds = [*characters, *longer[: max(most - len(characters), 0)]]
    return seeds, np.array([frequency[text] for text in seeds], float)


def _losses(corpus: Lattices, inner: Lattices, scores: np.ndarray, counts: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """By how much the text's log-probability would fall if each piece had to be spelled by others,
    per token.
    """
    used, best = corpus.best_edges(scores)
    frequency = np.bincount(corpus.piece[used], counts[corpus.word[used]], len(scores))
    frequency = np.maximum(frequency, 1e-9)  # a piece on no best way loses nothing, and its logarithm is a number
    spelled, other_score = inner.best_edges(scores)
    owner, other = np.searchsorted(keep, inner.word[spelled]), inner.piece[spelled]
    # where a piece goes, its occurrences go to those that spell it, and there are more tokens in
    # all
    total = frequency.sum()
    extra = np.bincount(owner, minlength=len(scores)) - 1
    replaced = np.bincount(owner, np.log(frequency[other] + frequency[owner]), len(scores))
    replaced -= (extra + 1) * np.log(total + frequency * extra)
    loss = frequency / total * (np.log(frequency / total) - replaced)
    return np.where(other_score[keep] > scores, -1.0, loss)  # the text never takes such a piece


class Lattices:
    """The lattices of many words, by their edges: each a piece at its place in a word.

    word, piece: (E,) whose edge it is, and which piece; start, end: (E,) its nodes in the row of
    all nodes; from_, to: (E,) the same in characters of the word. Edges are sorted by `to`, then
    `end`. whole=False leaves out the edges that are a whole word.
    """

    def __init__(self, words: Sequence[str], pieces: Sequence[str], whole: bool = True) -> None:
        ids = {text: id for id, text in enumerate(pieces)}
        lengths = np.array([len(word) for word in words])
        first = np.cumsum(lengths + 1) - (lengths + 1)  # the first node of each word
        rows = [
            (number, id, start, end)
            for number, word in enumerate(words)
            for start in range(len(word))
            for end in range(start + 1, min(start + LONGEST, len(word)) + 1)
            if (id := ids.get(word[start:end])) is not None and (whole or end - start < len(word))
        ]
        word, piece, from_, to = np.array(rows, np.int32).reshape(-1, 4).T
        self.n_nodes, self.n_pieces = int((lengths + 1).sum()), len(pieces)
        self.first, self.last = first, first + lengths
        order = np.lexsort((first[word] + to, to))
        self._take(word[order], piece[order], from_[order], to[order])

    def _take(self, word: np.ndarray, piece: np.ndarray, from_: np.ndarray, to: np.ndarray) -> None:
        self.word, self.piece, self.from_, self.to = word, piece, from_, to
        self.start, self.end = self.first[word] + from_, self.first[word] + to
        self._into = _steps(self.to, self.end)
        self._back = np.lexsort((self.start, -self.from_))
        self._out_of = _steps(-self.from_[self._back], self.start[self._back])

    def restricted(self, left: np.ndarray, words: np.ndarray | None = None) -> Lattices:
        """The same with the pieces that are left only, numbered anew. left: (V,) bool; words: those
        that are left.
        """
        edges = left[self.piece]
        if words is not None:
            edges &= np.isin(self.word, words)
        smaller = object.__new__(Lattices)
        smaller.n_nodes, smaller.n_pieces = self.n_nodes, int(left.sum())
        smaller.first, smaller.last = self.first, self.last
        number = np.cumsum(left, dtype=np.int32) - 1
        smaller._take(self.word[edges], number[self.piece[edges]], self.from_[edges], self.to[edges])
        return smaller

    def expected_counts(self, scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """How often each piece is expected, over all segmentations: (V,), by the forward-backward
        algorithm.

        scores: (V,) log-probabilities; counts: (W,) how often each word occurs.
        """
        score = scores[self.piece]  # (E,)
        forward = np.full(self.n_nodes, -np.inf)  # log of the sum over all ways from the word's beginning
        forward[self.first] = 0.0
        for edges, groups in self._into:
            forward[self.end[edges][groups]] = _log_sums(forward[self.start[edges]] + score[edges], groups)
        backward = np.full(self.n_nodes, -np.inf)  # ... and to its end
        backward[self.last] = 0.0
        for edges, groups in self._out_of:
            back = self._back[edges]
            backward[self.start[back][groups]] = _log_sums(backward[self.end[back]] + score[back], groups)
        share = np.exp(forward[self.start] + score + backward[self.end] - forward[self.last][self.word])
        return np.bincount(self.piece, share * counts[self.word], self.n_pieces)

    def best_edges(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The edges on the best way through each word, and its score (Viterbi): indices into the
        edges, (W,).
        """
        score = scores[self.piece]
        best = np.full(self.n_nodes, -np.inf)
        best[self.first] = 0.0
        into = np.full(self.n_nodes, -1)  # the last edge of the best way to each node
        for edges, groups in self._into:
            values = best[self.start[edges]] + score[edges]
            most = np.maximum.reduceat(values, groups)
            nodes = self.end[edges][groups]
            best[nodes] = most
            is_best = values == np.repeat(most, np.diff(groups, append=len(values)))
            chosen = np.flatnonzero(is_best)[::-1]  # the first of equals is written last
            into[self.end[edges][chosen]] = edges.start + chosen
        used = []
        nodes = self.last
        while len(nodes):
            edges_in = into[nodes]
            edges_in = edges_in[edges_in >= 0]
            used.append(edges_in)
            nodes = self.start[edges_in]
        return np.concatenate(used), best[self.last]


def _steps(position: np.ndarray, node: np.ndarray) -> list[tuple[slice, np.ndarray]]:
    """Sorted edges in steps of equal position, and in each step where the edges of another node
    begin.
    """
    bounds = [0, *(np.flatnonzero(np.diff(position)) + 1).tolist(), len(position)]
    steps = []
    for low, high in zip(bounds, bounds[1:], strict=False):
        if high > low:
            groups = np.flatnonzero(np.diff(node[low:high], prepend=-1))
            steps.append((slice(low, high), groups))
    return steps


def _log_sums(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """log(sum(exp(values))) of each group; groups: where each begins."""
    most = np.maximum.reduceat(values, groups)
    spread = np.repeat(np.where(np.isfinite(most), most, 0.0), np.diff(groups, append=len(values)))
    with np.errstate(divide="ignore"):
        return most + np.log(np.add.reduceat(np.exp(values - spread), groups)) if len(values) else most


def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of log gamma, for x > 0: near log x, and lower for small x, which makes rare
    pieces rarer.
    """
    x = np.asarray(x, float)
    shift = np.zeros_like(x)
    for _ in range(6):  # digamma(x) = digamma(x + 1) - 1 / x, up to where the series is exact
        small = x < 6
        shift = np.where(small, shift - 1 / x, shift)
        x = np.where(small, x + 1, x)
    square = 1 / (x * x)
    return shift + np.log(x) - 0.5 / x - square * (1 / 12 - square * (1 / 120 - square / 252))
