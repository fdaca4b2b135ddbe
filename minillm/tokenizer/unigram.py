"""Unigram: every piece has a probability, and a text is cut in the way that makes the product
largest.

Source: Kudo 2018, "Subword Regularization"; the tokenizer of SentencePiece and T5. Spaces are
written as `▁` (U+2581) in front of the word they precede, the first word included.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import regex

from .base import Offsets, Tokenizer
from .lattice import Lattice
from .normalize import Normalizer
from .sentencepiece import SPACE, SentencePieceText, segment
from .specials import Matching, Specials, Template
from .to_json import unigram_to_json
from .unigram_train import learn_pieces, runs_of_letters, word_counts

UNKNOWN_PENALTY = 10.0  # how far below the least likely piece an unknown character is
_WORDS_KEPT = 1 << 17  # words whose segmentation is remembered
_WORD = regex.compile(f"{SPACE}[^{SPACE}]*|[^{SPACE}]+")
_VISIBLE = regex.compile(r"\S+")


class UnigramTokenizer(Tokenizer):
    """A vocabulary of pieces with log-probabilities.

    pieces: (text, log-probability) of every id, special tokens included, whose probability is not
    used; unknown_id: the id of what the vocabulary cannot spell, None if that is an error.
    collapse_spaces: white space of any kind and length is one space, none at the ends, as T5 has
    it; otherwise only the plain space is special, and all are kept. sentencepiece: how a model of
    the `sentencepiece` library reads a text, instead of normalizer and collapse_spaces.

    Raises ValueError when `unknown_id` is not an id.
    """

    def __init__(
        self,
        pieces: Sequence[tuple[str, float]],
        unknown_id: int | None,
        specials: Specials | None = None,
        normalizer: Normalizer | None = None,
        collapse_spaces: bool = True,
        template: Template | None = None,
        sentencepiece: SentencePieceText | None = None,
    ) -> None:
        specials = specials or Specials()
        if unknown_id is not None and not 0 <= unknown_id < len(pieces):
            raise ValueError(f"UnigramTokenizer: unknown_id must be in [0, {len(pieces)}); got {unknown_id}")
        tokens: list[bytes | None] = [text.replace(SPACE, " ").encode("utf-8") for text, _ in pieces]
        if sentencepiece and unknown_id is not None:
            tokens[unknown_id] = sentencepiece.unknown.encode("utf-8")
        normalizer = normalizer or Normalizer()
        for id, name in specials.names().items():
            if specials.matching.get(name, Matching()).normalized:
                tokens[id] = normalizer(name).encode("utf-8")
        super().__init__(tokens, specials, template)
        self.pieces = [(text, float(score)) for text, score in pieces]
        self.unknown_id = unknown_id
        self.sentencepiece = sentencepiece
        self.normalizer = normalizer
        self.collapse_spaces = collapse_spaces
        unused = set(sentencepiece.unused) if sentencepiece else set()
        reserved = specials.ids | {unknown_id} | unused
        self._scores = {text: (id, score) for id, (text, score) in enumerate(self.pieces) if id not in reserved}
        self._longest = max(map(len, self._scores), default=1)
        least = min((score for id, (_, score) in enumerate(self.pieces) if id not in unused), default=0.0)
        self._unknown_score = least - UNKNOWN_PENALTY
        self._segmented: dict[str, list[tuple[int, int]]] = {}

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = ("<pad>", "</s>"),
        sentinels: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> UnigramTokenizer:
        """Learn a vocabulary of `vocab_size` ids by expectation maximisation; see
        `unigram_train.learn_pieces`.

        The special tokens come first, then `<unk>`, then the pieces, most likely first, then as
        many sentinels as asked for, numbered downwards to the last id, `<extra_id_0>`, as T5 has
        them. Texts are normalized by NFKC. No piece holds both letters and other characters. If
        `</s>` is a special token, encoding ends with it. `progress(done, total)` counts pieces
        pruned away.

        Raises ValueError when `vocab_size` has no room for the single characters of the texts.
        """
        names = [*special_tokens, "<unk>"]
        extra = [f"<extra_id_{i}>" for i in reversed(range(sentinels))]
        shell = cls([(name, 0.0) for name in names], len(names) - 1, normalizer=Normalizer([{"type": "NFKC"}]))
        words = runs_of_letters(word_counts(texts, shell.words, [*special_tokens, *extra]))
        learned = learn_pieces(words, vocab_size - len(names) - sentinels, progress)
        pieces = [*((name, 0.0) for name in names), *learned, *((name, 0.0) for name in extra)]
        special = {name: id for id, (name, _) in enumerate(pieces) if name in names or name in extra}
        after = (special["</s>"],) if "</s>" in special else ()
        return cls(pieces, len(names) - 1, Specials(special), shell.normalizer, True, Template(after=after))

    # ---- a text as words ----

    def words(self, text: str) -> list[str]:
        """The words of a text, normalized and marked, which no piece crosses.

        >>> UnigramTokenizer([("<unk>", 0.0)], 0).words("to  be")
        ['▁to', '▁be']
        """
        return self._cut(self._marked(self._normalized(text))[0])

    def _normalized(self, text: str) -> str:
        return self.sentencepiece(text) if self.sentencepiece else self.normalizer(text)

    def _aligned(self, text: str) -> tuple[str, Sequence[int], Sequence[int]]:
        if self.sentencepiece:
            return self.sentencepiece.aligned(text)
        new, origins = self.normalizer.aligned(text)
        return new, origins, [origin + 1 for origin in origins]

    def _marked(self, text: str) -> tuple[str, list[int]]:
        """A normalized text with `▁` for its spaces, and the character of `text` that each
        character stands for.
        """
        if self.sentencepiece:
            return text, [*range(len(text))]
        if self.collapse_spaces:
            parts = [(match.group(), match.start()) for match in _VISIBLE.finditer(text)]
        else:
            parts = [(text.replace(" ", SPACE), 0)] if text else []
        marked, origins = [], []
        for part, start in parts:
            if not part.startswith(SPACE):
                marked.append(SPACE)
                origins.append(start)  # the mark counts to the character after it
            marked.append(part)
            origins += range(start, start + len(part))
        return "".join(marked), origins

    def _cut(self, marked: str) -> list[str]:
        return _WORD.findall(marked) if self._ends_at_marks else [marked] if marked else []

    @cached_property
    def _ends_at_marks(self) -> bool:
        """Whether no piece goes on beyond a `▁`, so that each word can be cut alone."""
        return not self.sentencepiece or (SPACE in self._scores and not any(SPACE in text[1:] for text in self._scores))

    # ---- text -> ids ----

    @property
    def cuts_at_spaces(self) -> bool:
        """Whether a text gives the same ids in the parts that `read_parts` cuts it into."""
        return self.collapse_spaces and not self.sentencepiece

    def lattice(self, word: str) -> Lattice:
        """The lattice of one word, marked with `▁`.

        Raises ValueError for a character that the vocabulary does not know, if it has no unknown
        token.
        """
        return Lattice(word, self._scores, self._longest, self._unknown(word))

    def _unknown(self, word: str) -> tuple[int, float]:
        """The id and the score of a character that the vocabulary does not know."""
        if self.unknown_id is None:
            for character in word:
                if character not in self._scores:
                    raise ValueError(f"UnigramTokenizer: the vocabulary cannot spell {character!r} (no unknown token)")
        return self.unknown_id or 0, self._unknown_score

    def _segment(self, word: str) -> list[tuple[int, int]]:
        """The best segmentation of a word: (id, end) of each token; unknown characters in a row are
        one.
        """
        if word not in self._segmented:
            if len(self._segmented) >= _WORDS_KEPT:
                self._segmented.clear()
            self._segmented[word] = self._fused([(edge.id, edge.end) for edge in self.lattice(word).best()])
        return self._segmented[word]

    def _best_tokens(self, marked: str) -> Iterator[tuple[int, int]]:
        """The best segmentation of a marked text: (id, end) of each token."""
        if self.sentencepiece:
            yield from self._fused(segment(marked, self._scores, self._longest, self._unknown(marked)))
            return
        start = 0
        for word in self._cut(marked):
            for id, end in self._segment(word):
                yield id, start + end
            start += len(word)

    def _fused(self, tokens: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        fused: list[tuple[int, int]] = []
        for id, end in tokens:
            if fused and id == fused[-1][0] == self.unknown_id:
                fused.pop()
            fused.append((id, end))
        return fused

    def _encode_ordinary(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids: list[int] = []
        ends = []
        for text in texts:
            ids += [id for id, _ in self._best_tokens(self._marked(text)[0])]
            ends.append(len(ids))
        return np.array(ids, np.int32), np.array(ends, np.int64)

    def _ordinary_offsets(self, text: str, first: bool) -> tuple[list[int], Offsets]:
        ids, offsets = [], []
        marked, origins = self._marked(text)
        start = 0
        for id, end in self._best_tokens(marked):
            ids.append(id)
            offsets.append((origins[start], origins[end - 1] + 1))
            start = end
        return ids, offsets

    def encode_n_best(self, text: str, n: int) -> list[tuple[list[int], float]]:
        """The `n` most likely segmentations of a text, best first, each with its
        log-probability.
        """
        ways: list[tuple[list[int], float]] = [([], 0.0)]
        for word in self.words(text):
            choices = self.lattice(word).n_best(n)
            longer = (
                (ids + [id for id, _ in self._fused((edge.id, edge.end) for edge in path)], total + score)
                for ids, total in ways
                for score, path in choices
            )
            ways = heapq.nlargest(n, longer, key=lambda way: way[1])
        return ways

    def encode_sample(self, text: str, rng: np.random.Generator, alpha: float = 1.0) -> list[int]:
        """A segmentation drawn at random, so that a model sees a text in many spellings (subword
        regularisation).

        Proportional to probability ** alpha: 1 is the model's own distribution, 0 draws all alike.
        """
        ids = []
        for word in self.words(text):
            ids += [id for id, _ in self._fused((e.id, e.end) for e in self.lattice(word).sample(rng, alpha))]
        return ids

    def log_likelihood(self, text: str) -> float:
        """The log-probability of a text, in nats: every word's, over all its segmentations."""
        return sum(self.lattice(word).log_likelihood() for word in self.words(text))

    # ---- ids -> text, files ----

    @property
    def _stays_at_start(self) -> bool:  # type: ignore[override]
        return self.sentencepiece is not None

    @cached_property
    def _skipped(self) -> set[int]:
        special = set(self._specials.special.values())
        return special - {self.unknown_id} if self.sentencepiece else special

    def _leading_bytes(self, id: int) -> bytes:
        token = self._bytes[id]
        if id in self._specials.ids or (self.sentencepiece and id == self.unknown_id):
            return token
        if self.sentencepiece:
            return token[1:] if self.pieces[id][0].startswith(SPACE) else token  # a symbol's own space stays
        return token.replace(b" ", b"")

    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json`, the format of the `tokenizers` library."""
        return unigram_to_json(self)
