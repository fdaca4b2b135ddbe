"""Byte-pair encoding on bytes: any text, no unknown words.

Training starts from the 256 single bytes and joins, again and again, the pair of neighbours that is
most frequent in the text. Encoding applies the same merges in the same order. The first three
functions below are the whole algorithm. They run on *pieces*, words with the space before them,
which no token crosses: see patterns.py. Source: Sennrich et al. 2016, "Neural Machine Translation
of Rare Words with Subword Units"; on bytes: Radford et al. 2019.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from .. import kernels
from ..kernels import compiled
from .base import Offsets, Tokenizer
from .byte_level import BYTE_ORDER
from .patterns import Splitter
from .pieces import SHARE, byte_positions, count_pieces, cut, shares
from .specials import END_OF_TEXT, Specials, Template, check_special_names, tokens_by_id
from .to_json import bpe_to_json

Pair = tuple[int, int]  # the ids of two neighbours


@compiled("text.bpe_train")
def learn_merges(
    ids: np.ndarray,
    ends: np.ndarray,
    counts: np.ndarray,
    first_id: int,
    n_merges: int,
    min_frequency: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Learn merges: n times join the pair that is most frequent now, the lowest pair of ids among
    equals.

    ids: (N,) int32, the ids of the bytes of all distinct pieces, one after the other; ends: (P,)
    int64, where each piece ends; counts: (P,) int64, how often each occurs in the text. The k-th
    merge makes the id first_id + k. Ends early when no pair is left that occurs `min_frequency`
    times -> pairs, (<= n_merges, 2) int32.
    """
    pieces = [ids[start:end].tolist() for start, end in pairwise([0, *ends])]
    merges: list[Pair] = []
    while len(merges) < n_merges:
        frequency: Counter[Pair] = Counter()
        for piece, count in zip(pieces, counts.tolist(), strict=True):
            for pair in pairwise(piece):
                frequency[pair] += count
        best = min(frequency, key=lambda pair: (-frequency[pair], pair), default=None)
        if best is None or frequency[best] < min_frequency:
            break
        pieces = [replaced(piece, best, first_id + len(merges)) for piece in pieces]
        merges.append(best)
        if progress:
            progress(len(merges), n_merges)
    return np.array(merges, np.int32).reshape(-1, 2)


def replaced(piece: list[int], pair: Pair, new: int) -> list[int]:
    """The piece with every occurrence of the pair, from left to right, replaced by the new id.

    >>> replaced([1, 1, 1, 2, 1, 1], (1, 1), 9)
    [9, 1, 2, 9]
    """
    joined: list[int] = []
    i = 0
    while i < len(piece):
        found = tuple(piece[i : i + 2]) == pair
        joined.append(new if found else piece[i])
        i += 2 if found else 1
    return joined


def join_pairs(ids: list[int], merges: Mapping[Pair, tuple[int, int]]) -> Iterator[list[int]]:
    """Encode one piece, the ids of its bytes: again and again join the pair of lowest rank, the
    leftmost of equals.

    merges: pair -> (rank, new id). Yields the piece after 0, 1, 2 ... merges, until none of its
    pairs has a rank.

    >>> [*join_pairs([1, 2, 1, 2], {(1, 2): (0, 3), (3, 3): (1, 4)})]
    [[1, 2, 1, 2], [3, 1, 2], [3, 3], [4]]
    """
    while True:
        yield ids
        ranked = [(*merges[pair], at) for at, pair in enumerate(pairwise(ids)) if pair in merges]
        if not ranked:
            return
        _, new, at = min(ranked)
        ids = [*ids[:at], new, *ids[at + 2 :]]


class Merges:
    """What encoding needs to know of a vocabulary.

    byte_ids: (256,) int32, the ids of the single bytes, -1 for one that the vocabulary lacks.
    pairs: (left, right) ids -> (rank, new id); equal ranks only where they make the same token.
    whole: pieces that are one token whatever the merges say.
    """

    def __init__(
        self,
        byte_ids: Sequence[int],
        merges: Sequence[Pair],
        made: Sequence[int],
        ranks: Sequence[int] | None = None,
        whole: Mapping[bytes, int] | None = None,
    ) -> None:
        order = range(len(merges)) if ranks is None else ranks
        self.byte_ids = np.array(byte_ids, np.int32)
        self.pairs = dict(zip(merges, zip(order, made, strict=True), strict=True))
        self.whole = dict(whole or {})


@compiled("text.bpe")
def encode_pieces(data: np.ndarray, ends: np.ndarray, merges: Merges) -> tuple[np.ndarray, np.ndarray]:
    """Encode pieces of bytes, each as `join_pairs` does.

    data: (N,) uint8; ends: (P,) int64, where each piece ends -> ids (M,) int32, and lengths (P,)
    int32, how many of them each piece became. A byte that the vocabulary lacks gives -1.
    """
    text, start = data.tobytes(), 0
    known = {piece: [id] for piece, id in merges.whole.items()}  # a frequent piece is worked out once
    ids: list[int] = []
    lengths = []
    for end in ends.tolist():
        piece = text[start:end]
        if piece not in known:
            *_, known[piece] = join_pairs(merges.byte_ids[[*piece]].tolist(), merges.pairs)
        ids += known[piece]
        lengths.append(len(known[piece]))
        start = end
    return np.array(ids, np.int32), np.array(lengths, np.int32)


class BPETokenizer(Tokenizer):
    """Byte-level BPE, the tokenizer of GPT-2, SmolLM2 and most models since.

    tokens: the bytes of every id, None where an id is unused. merges: pairs of ids, in the order
    they are applied. pattern: "gpt2", "gpt4", "smollm2" or a regular expression; merges never cross
    its pieces.

    The rest is what files of other libraries ask for. prefix_space: put a space before a text that
    begins with none, so that its first word is the same token as later ones. ranks: the order of
    the merges, where several share one. whole_first: a piece that is a token is taken whole,
    whatever the merges. trim_offsets: `encode_with_offsets` leaves out the spaces around a token.

    Raises ValueError when a merge makes a token that is not in the vocabulary, or for a prefix
    space with another pattern than "gpt2".
    """

    def __init__(
        self,
        tokens: Sequence[bytes | None],
        merges: Sequence[Pair],
        specials: Specials | None = None,
        pattern: str = "gpt2",
        prefix_space: bool = False,
        template: Template | None = None,
        ranks: Sequence[int] | None = None,
        whole_first: bool = False,
        trim_offsets: bool = False,
    ) -> None:
        if prefix_space and pattern != "gpt2":
            raise ValueError(f'BPETokenizer: prefix_space goes with the pattern "gpt2" only; got {pattern!r}')
        super().__init__(tokens, specials or Specials(), template)
        self.merges = [(int(left), int(right)) for left, right in merges]
        self.pattern = pattern
        self.prefix_space = prefix_space
        self.whole_first = whole_first
        self.trim_offsets = trim_offsets
        self._splitter = Splitter(pattern)
        added = self._specials.ids
        learned = {token: id for id, token in self._bytes.items() if id not in added}
        ids = {token: id for id, token in self._bytes.items()} | learned  # an added token may be a merged one too
        byte_ids = [ids.get(bytes([byte]), -1) for byte in range(256)]
        self._lacks_bytes = min(byte_ids) < 0
        self._merges = Merges(byte_ids, self.merges, [*self._made(ids)], ranks, learned if whole_first else None)

    def _made(self, ids: Mapping[bytes, int]) -> Iterator[int]:
        """The id that each merge makes."""
        words = self._bytes
        for rank, (left, right) in enumerate(self.merges):
            if left not in words or right not in words:
                raise ValueError(f"BPETokenizer: merge {rank}, {left} + {right}, joins an id that is no token")
            joined = words[left] + words[right]
            new = ids.get(joined)
            if new is None:
                raise ValueError(f"BPETokenizer: merge {rank} makes {joined!r}, which is not in the vocabulary")
            yield new

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        pattern: str = "gpt2",
        min_frequency: int = 1,
        progress: Callable[[int, int], None] | None = None,
        prefix_space: bool = False,
    ) -> BPETokenizer:
        """Learn a vocabulary of `vocab_size` ids: the special tokens, the 256 bytes, then the
        merges.

        texts: an iterable of documents, read once and never held as a whole. A pair is joined only
        while it occurs `min_frequency` times; a small text can therefore give a smaller vocabulary.
        `progress(done, total)` is called as merges are learned. The result depends on the texts
        alone: ties go to the pair with the lowest ids.

        Raises ValueError when `vocab_size` leaves no room for the bytes and special tokens.
        """
        names = check_special_names(special_tokens, "BPETokenizer.train")
        first_id = len(names) + 256
        if vocab_size < first_id:
            raise ValueError(
                f"BPETokenizer.train: vocab_size must be at least {first_id}, 256 bytes and {len(names)} special "
                f"tokens; got {vocab_size}"
            )
        if min_frequency < 1:
            raise ValueError(f"BPETokenizer.train: min_frequency must be at least 1; got {min_frequency}")
        specials = Specials({name: id for id, name in enumerate(names)})
        tokens: list[bytes | None] = [name.encode("utf-8") for name in names]
        tokens += [bytes([byte]) for byte in BYTE_ORDER]
        untrained = cls(tokens, [], specials, pattern, prefix_space)
        data, ends, counts = count_pieces(
            texts, untrained._splitter, names, untrained._prefixed, caller="BPETokenizer.train"
        )
        byte_ids = untrained._merges.byte_ids
        pairs = learn_merges(byte_ids[data], ends, counts, first_id, vocab_size - first_id, min_frequency, progress)
        merges = [(left, right) for left, right in pairs.tolist()]
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        return cls(tokens, merges, specials, pattern, prefix_space)

    def extended(self, texts: Iterable[str], n_merges: int, min_frequency: int = 1) -> BPETokenizer:
        """The same tokenizer with up to `n_merges` merges more, for texts that it cuts into small
        parts: training goes on where it ended. A text is cut as before, and then joined further;
        the ids of the tokens stay, new ones come after.
        """
        data, ends, counts = count_pieces(
            texts, self._splitter, [*self.special_tokens], self._prefixed, caller="BPETokenizer.extended"
        )
        ids, lengths = encode_pieces(data, ends, self._merges)
        if self._lacks_bytes and len(ids) and ids.min() < 0:
            raise ValueError("BPETokenizer.extended: the texts hold bytes that the vocabulary lacks")
        ends = np.cumsum(lengths, dtype=np.int64)
        learned = learn_merges(ids, ends, counts, self.vocab_size, n_merges, min_frequency, None)
        tokens, ranks = list(self._tokens), {pair: rank for pair, (rank, _) in self._merges.pairs.items()}
        added = self._specials.ids
        known = {token: id for id, token in self._bytes.items() if id not in added}
        numbers = [*range(self.vocab_size)]  # of the ids that learn_merges made: one of them may spell an old token
        after = max(ranks.values(), default=-1) + 1
        for rank, (left, right) in enumerate(learned.tolist(), start=after):
            pair = numbers[left], numbers[right]
            joined = (tokens[pair[0]] or b"") + (tokens[pair[1]] or b"")
            numbers.append(known.setdefault(joined, len(tokens)))
            if numbers[-1] == len(tokens):
                tokens.append(joined)
            ranks.setdefault(pair, rank)
        made = BPETokenizer(
            tokens, [*ranks], self._specials, self.pattern, self.prefix_space, self._template, [*ranks.values()],
            self.whole_first, self.trim_offsets,
        )  # fmt: skip
        made.chat_format, made._end = self.chat_format, self._end
        made._begin, made.begins_prompts = self._begin, self.begins_prompts
        return made

    # ---- text -> ids ----

    def _encode_ordinary(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        texts = [self._prefixed(text) for text in texts]
        if sum(map(len, texts)) <= 2 * SHARE:
            return self._encode_share(texts)
        groups, last_of_text = shares(texts, self._splitter)
        threads = kernels.get_num_threads() if kernels.KERNELS == "numba" else 1
        with ThreadPoolExecutor(threads) as pool:  # the compiled loops run without Python's lock
            encoded = list(pool.map(self._encode_share, groups))
        starts = np.cumsum([0] + [len(ids) for ids, _ in encoded[:-1]])
        ends = np.concatenate([ends + start for (_, ends), start in zip(encoded, starts, strict=True)])
        return np.concatenate([ids for ids, _ in encoded]), ends[last_of_text]

    def _encode_share(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        data, ends, pieces = cut(texts, self._splitter)
        ids, lengths = encode_pieces(data, ends, self._merges)
        if self._lacks_bytes and len(ids) and ids.min() < 0:
            missing = next(byte for byte in data.tolist() if self._merges.byte_ids[byte] < 0)
            raise ValueError(f"encode: the vocabulary has no token for the byte 0x{missing:02x}, which the text holds")
        return ids, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[pieces]

    @property
    def cuts_at_spaces(self) -> bool:
        """Whether a text gives the same ids in the parts that `read_parts` cuts it into."""
        return self._splitter.cuts_at_spaces and not self.prefix_space

    def merge_steps(self, piece: str) -> list[list[int]]:
        """How one piece is joined: its ids after 0, 1, 2 ... merges, the single bytes first."""
        return [*join_pairs([int(self._merges.byte_ids[byte]) for byte in piece.encode("utf-8")], self._merges.pairs)]

    def merge_rank(self, left: int, right: int) -> int:
        """The rank of the merge that joins two tokens: the lower, the earlier it goes."""
        return self._merges.pairs[left, right][0]

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text, which no token crosses, as the `regex` module cuts them."""
        return [*self._splitter.pieces(self._prefixed(text))]

    # ---- files and conventions of other libraries ----

    @classmethod
    def from_ranks(
        cls, ranks: Mapping[bytes, int], special_tokens: Mapping[str, int], pattern: str = "gpt4"
    ) -> BPETokenizer:
        """The tokenizer that tiktoken's files describe: a vocabulary where a token's id is also its
        rank.

        Any two neighbours join if their bytes together are a token, the token of lowest id first.
        Special tokens that share an id decode to the first of their names.

        Raises ValueError when two other tokens share an id, or one is so high that most ids would
        be unused.
        """
        specials = Specials(dict(special_tokens))
        try:
            tokens = tokens_by_id(ranks, specials)
        except ValueError as error:
            raise ValueError(f"BPETokenizer.from_ranks: {error}") from None
        merges, order = [], []
        for token, id in sorted(ranks.items(), key=lambda item: item[1]):
            for at in range(1, len(token)):
                left, right = ranks.get(token[:at]), ranks.get(token[at:])
                if left is not None and right is not None:
                    merges.append((left, right))
                    order.append(id)
        return cls(tokens, merges, specials, pattern, ranks=order, whole_first=True)

    def _prefixed(self, text: str) -> str:
        return " " + text if self.prefix_space and text and not text.startswith(" ") else text

    def _ordinary_offsets(self, text: str, first: bool) -> tuple[list[int], Offsets]:
        ids = self._encode_ordinary([text])[0].tolist()
        # the character of every byte; the space put in front counts to the first character
        characters = np.repeat(np.arange(len(text)), np.diff(byte_positions(text))).tolist()
        put_in = self._prefixed(text) != text
        if put_in:
            characters.insert(0, 0)
        offsets, start = [], 0
        for position, id in enumerate(ids):
            token = self._bytes[id]
            low, high = characters[start], characters[start + len(token) - 1] + 1
            start += len(token)
            if self.trim_offsets:
                low, high = self._trimmed(token, low, high, put_in and position == 0, first and low == 0)
            offsets.append((low, high))
        return ids, offsets

    def _trimmed(self, token: bytes, start: int, end: int, put_in: bool, first: bool) -> tuple[int, int]:
        """The offsets of a token without the spaces around it.

        put_in: its first space is not in the text. first: it begins the text, where `tokenizers`
        takes a single space for one that was put in, whether it was or not.
        """
        before, after = (len(token) - len(rest) for rest in (token.lstrip(b" "), token.rstrip(b" ")))
        if put_in or (first and self.prefix_space and before == 1):
            before = max(before - 1, 0)
        start = min(start + before, end)
        return start, max(end - after, start)

    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json`, the format of the `tokenizers` library."""
        return bpe_to_json(self)
