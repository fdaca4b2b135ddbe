"""The tokenizer of Llama 1 and 2, Mistral and TinyLlama: byte-pair encoding on characters, as the
`sentencepiece` library has it.

Words are marked with `▁`, as in unigram.py, and joined as in bpe.py, but the pieces begin as single
characters, and a pair is the better the higher the score of what it makes. A character that the
vocabulary lacks is written with tokens for its bytes, `<0xF0>` and so on.

The references are llama.cpp (`llm_tokenizer_spm`, for the files that it made) and the `tokenizers`
library (BPE with `byte_fallback`); they give the same ids.
"""

from __future__ import annotations

import builtins
import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import regex

from .base import Offsets, Tokenizer
from .sentencepiece import SPACE
from .specials import Specials, Template
from .to_json import sentencepiece_bpe_to_json

Pair = tuple[str, str]
_WORD = regex.compile(f"{SPACE}*[^{SPACE}]*")
_WORDS_KEPT = 1 << 17  # words whose pieces are remembered


def ranks_of_scores(pieces: Mapping[str, float]) -> dict[Pair, int]:
    """The rank of every pair that makes a piece: the higher the score of the piece, the lower.

    >>> ranks_of_scores({"a": 0.0, "b": 0.0, "ab": -1.0, "abb": -2.0, "bb": -2.0})
    {('a', 'b'): 0, ('a', 'bb'): 1, ('ab', 'b'): 1, ('b', 'b'): 1}
    """
    scores = sorted({score for piece, score in pieces.items() if len(piece) > 1}, reverse=True)
    order = {score: rank for rank, score in enumerate(scores)}
    ranks = {}
    for piece, score in pieces.items():
        for at in range(1, len(piece)):
            left, right = piece[:at], piece[at:]
            if (at == 1 or left in pieces) and (len(right) == 1 or right in pieces):
                ranks[left, right] = order[score]
    return ranks


def join_characters(text: str, ranks: Mapping[Pair, int]) -> list[str]:
    """Again and again join the pair of neighbours of lowest rank, the leftmost of equals.

    >>> join_characters("abbb", {("a", "b"): 2, ("b", "b"): 1, ("a", "bb"): 0})
    ['abb', 'b']
    """
    parts: list[str] = [*text]
    before, after = [*range(-1, len(parts) - 1)], [*range(1, len(parts) + 1)]  # neighbours among those that are left
    queue = [(ranks[pair], at, *pair) for at, pair in enumerate(zip(parts, parts[1:], strict=False)) if pair in ranks]
    heapq.heapify(queue)
    while queue:
        _, at, left, right = heapq.heappop(queue)
        next = after[at]
        if parts[at] != left or next == len(parts) or parts[next] != right:
            continue  # one of them was joined meanwhile
        parts[at], parts[next] = left + right, ""
        after[at] = after[next]
        if after[at] < len(parts):
            before[after[at]] = at
        for first, second in ((before[at], at), (at, after[at])):
            if first >= 0 and second < len(parts) and (rank := ranks.get((parts[first], parts[second]))) is not None:
                heapq.heappush(queue, (rank, first, parts[first], parts[second]))
    return [part for part in parts if part]


class SentencePieceBPE(Tokenizer):
    """A vocabulary of pieces, and the order in which pairs of them are joined.

    pieces: the text of every id, with `▁` for a space. ranks: of each pair that may be joined, the
    lower the earlier. bytes: the id of each of the 256 bytes, for characters that are no piece, or
    none. unknown_id: what else such a character becomes, several in a row only once. prefix_space:
    put a space before a text, and after a special token in it; decoding takes the first away again.

    Raises ValueError when the ids do not fit.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        ranks: Mapping[Pair, int],
        specials: Specials | None = None,
        bytes: Sequence[int] = (),
        unknown_id: int | None = None,
        prefix_space: bool = True,
        template: Template | None = None,
    ) -> None:
        specials = specials or Specials()
        if len(bytes) not in (0, 256):
            raise ValueError(f"SentencePieceBPE: bytes must be 256 ids, or none; got {len(bytes)}")
        used = {*bytes, *specials.ids} | ({unknown_id} if unknown_id is not None else set())
        if not all(0 <= id < len(pieces) for id in used):
            raise ValueError(f"SentencePieceBPE: every id must be in [0, {len(pieces)})")
        own = {id: value.to_bytes(1, "big") for value, id in enumerate(bytes)}
        names = specials.names()
        tokens: list[builtins.bytes | None] = []
        for id, piece in enumerate(pieces):
            text = names[id] if id in names else piece.replace(SPACE, " ")
            tokens.append(own[id] if id in own else text.encode("utf-8"))
        super().__init__(tokens, specials, template)
        self.pieces, self.ranks, self.byte_ids = [*pieces], dict(ranks), [*bytes]
        self.unknown_id, self.prefix_space = unknown_id, prefix_space
        reserved = {*own, *specials.ids, unknown_id}
        self._ids = {piece: id for id, piece in reversed([*enumerate(pieces)]) if id not in reserved}
        # no piece goes on after a space within it, so that each word can be joined alone
        self._by_words = not any(regex.search(f"[^{SPACE}]{SPACE}", piece) for piece in self._ids)
        self._joined_words: dict[str, list[tuple[int, int]]] = {}

    @property
    def cuts_at_spaces(self) -> bool:
        """Whether a text gives the same ids in the parts that `read_parts` cuts it into."""
        return False

    # ---- text -> ids ----

    def _marked(self, text: str) -> str:
        marked = text.replace(" ", SPACE)
        return SPACE + marked if self.prefix_space and marked else marked

    def _tokens_of(self, marked: str) -> Iterator[tuple[int, int]]:
        """(id, end in characters) of each token; bytes of one character all end where it ends."""
        start = 0
        words = _WORD.findall(marked) if self._by_words else [marked]
        last = None
        for word in words:
            if word not in self._joined_words:
                if len(self._joined_words) >= _WORDS_KEPT:
                    self._joined_words.clear()
                self._joined_words[word] = [*self._joined_word(word)]
            for id, end in self._joined_words[word]:
                if not (id == last == self.unknown_id):
                    yield id, start + end
                last = id
            start += len(word)

    def _joined_word(self, word: str) -> Iterator[tuple[int, int]]:
        end = 0
        for part in join_characters(word, self.ranks):
            end += len(part)
            if part in self._ids:
                yield self._ids[part], end
            elif self.byte_ids:
                for byte in part.encode("utf-8"):
                    yield self.byte_ids[byte], end
            elif self.unknown_id is not None:
                yield self.unknown_id, end
            else:
                raise ValueError(f"encode: the vocabulary cannot spell {part!r:.60} (no bytes, no unknown token)")

    def _encode_ordinary(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids: list[int] = []
        ends = []
        for text in texts:
            ids += [id for id, _ in self._tokens_of(self._marked(text))]
            ends.append(len(ids))
        return np.array(ids, np.int32), np.array(ends, np.int64)

    def _ordinary_offsets(self, text: str, first: bool) -> tuple[list[int], Offsets]:
        marked = self._marked(text)
        put, start = len(marked) - len(text), 0
        ids: list[int] = []
        offsets: Offsets = []
        for id, end in self._tokens_of(marked):
            same = start == end  # another byte of the character
            offsets.append(offsets[-1] if same else (max(start - put, 0), max(end - put, 0)))
            ids.append(id)
            start = end
        return ids, offsets

    # ---- ids -> text, files ----

    def _leading_bytes(self, id: int) -> bytes:
        token = self._bytes[id]
        ordinary = self.prefix_space and id not in self._specials.ids and id not in self.byte_ids
        return token.removeprefix(b" ") if ordinary else token

    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json`, the format of the `tokenizers` library."""
        return sentencepiece_bpe_to_json(self)
