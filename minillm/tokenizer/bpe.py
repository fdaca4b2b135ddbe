"""Byte-pair encoding on bytes: any text, no unknown words.

Training starts from the 256 single bytes and joins, again and again, the pair of neighbours that is most frequent in
the text. Encoding applies the same merges in the same order. Source: Sennrich et al. 2016, "Neural Machine Translation
of Rare Words with Subword Units"; on bytes: Radford et al. 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .base import END_OF_TEXT, Specials, Template, Tokenizer, check_special_names, cut_at, replace_surrogates
from .byte_level import BYTE_ORDER
from .patterns import Splitter

_SHARE = 1 << 18  # characters that are worked on at a time: while training, and by each thread while encoding
_PENDING = 1 << 20  # bytes of counted pieces that may wait, at least, before they are put together


class BPETokenizer(Tokenizer):
    """Byte-level BPE, the tokenizer of GPT-2, SmolLM2 and most models since.

    tokens: the bytes of every id, None where an id is unused. merges: pairs of ids, in the order they are applied.
    pattern: "gpt2", "gpt4", "smollm2" or a regular expression; merges never cross its pieces. prefix_space: put a
    space before a text that begins with none, so that its first word is the same token as later ones. ranks: the order
    of the merges, where several share one. whole_first: a piece that is a token is taken whole, whatever the merges.
    trim_offsets: `encode_with_offsets` leaves out the spaces around a token.

    Raises ValueError when a merge makes a token that is not in the vocabulary, or for a prefix space with another
    pattern than "gpt2".
    """

    def __init__(
        self,
        tokens: Sequence[bytes | None],
        merges: Sequence[tuple[int, int]],
        specials: Specials | None = None,
        pattern: str = "gpt2",
        prefix_space: bool = False,
        template: Template | None = None,
        ranks: Sequence[int] | None = None,
        whole_first: bool = False,
        trim_offsets: bool = False,
    ) -> None:
        from minillm.kernels.bpe import MergeTable

        if prefix_space and pattern != "gpt2":
            raise ValueError(f'BPETokenizer: prefix_space goes with the pattern "gpt2" only; got {pattern!r}')
        super().__init__(tokens, specials or Specials(), template)
        self.merges = [(int(left), int(right)) for left, right in merges]
        self.pattern = pattern
        self.prefix_space = prefix_space
        self.whole_first = whole_first
        self.trim_offsets = trim_offsets
        self._splitter = Splitter(pattern)
        ids = {token: id for id, token in self._bytes.items() if id not in self._specials.ids}
        byte_ids = [ids.get(bytes([byte]), -1) for byte in range(256)]
        self._lacks_bytes = min(byte_ids) < 0
        self._table = MergeTable(byte_ids, list(self._triples(ids)), ranks, ids if whole_first else None)

    def _triples(self, ids: dict[bytes, int]) -> Iterator[tuple[int, int, int]]:
        """The merges with the id that each makes."""
        for rank, (left, right) in enumerate(self.merges):
            if left not in self._bytes or right not in self._bytes:
                raise ValueError(f"BPETokenizer: merge {rank}, {left} + {right}, joins an id that is no token")
            joined = self._bytes[left] + self._bytes[right]
            if joined not in ids:
                raise ValueError(f"BPETokenizer: merge {rank} makes {joined!r}, which is not in the vocabulary")
            yield left, right, ids[joined]

    @classmethod
    def from_ranks(
        cls,
        ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        pattern: str = "gpt4",
    ) -> BPETokenizer:
        """The tokenizer that tiktoken's files describe: a vocabulary where a token's id is also its rank.

        Any two neighbours join if their bytes together are a token, the token of lowest id first.

        Raises ValueError when two tokens share an id.
        """
        tokens: list[bytes | None] = [None] * (max([*ranks.values(), *special_tokens.values()], default=-1) + 1)
        for token, id in [*ranks.items(), *((name.encode("utf-8"), id) for name, id in special_tokens.items())]:
            if tokens[id] is not None:
                raise ValueError(f"BPETokenizer.from_ranks: {tokens[id]!r} and {token!r} share the id {id}")
            tokens[id] = token
        merges, order = [], []
        for token, id in sorted(ranks.items(), key=lambda item: item[1]):
            for cut in range(1, len(token)):
                left, right = ranks.get(token[:cut]), ranks.get(token[cut:])
                if left is not None and right is not None:
                    merges.append((left, right))
                    order.append(id)
        return cls(tokens, merges, Specials(dict(special_tokens)), pattern, ranks=order, whole_first=True)

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
        """Learn a vocabulary of `vocab_size` ids: the special tokens, the 256 bytes, then the merges.

        texts: an iterable of documents, read once and never held as a whole. A pair is joined only while it occurs
        `min_frequency` times; a small text can therefore give a smaller vocabulary. `progress(done, total)` is called
        as merges are learned. The result depends on the texts alone: ties go to the pair with the lowest ids.

        Raises ValueError when `vocab_size` leaves no room for the bytes and special tokens.
        """
        from minillm.kernels import bpe_train as kernel

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
        pairs = kernel.learn_merges(
            *untrained._count_pieces(texts), untrained._table.byte_ids, first_id, vocab_size - first_id,
            min_frequency, progress,
        )  # fmt: skip
        merges = [(left, right) for left, right in pairs.tolist()]
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        return cls(tokens, merges, specials, pattern, prefix_space)

    def _count_pieces(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The distinct pieces of the texts and how often each occurs, in a memory that grows with those alone."""
        from minillm.kernels import bpe_train as kernel

        counted = (np.zeros(0, np.uint8), np.zeros(0, np.int64), np.zeros(0, np.int64))
        pending, size = [counted], 0
        for block in self._blocks(texts):
            data, ends, _ = self._cut(block)
            pending.append(kernel.unique_pieces(data, ends, np.ones(len(ends), np.int64)))
            size += len(pending[-1][0])
            if size > len(counted[0]) + _PENDING:  # rarely enough that the whole work stays linear
                counted = _merge_counts(pending)
                pending, size = [counted], 0
        return _merge_counts(pending)

    def _blocks(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """The texts without their special tokens, in lists of about `_SHARE` characters; a longer text is cut."""
        block: list[str] = []
        size = 0
        for text in [texts] if isinstance(texts, str) else texts:
            if not isinstance(text, str):
                raise TypeError(f"BPETokenizer.train: texts must be strings; got {type(text).__name__}")
            present = {name: id for name, id in self._specials.special.items() if name in text}
            stretches = (part for part in cut_at(replace_surrogates(text), present) if isinstance(part, str))
            for stretch in stretches:
                for part in self._splitter.safe_parts(self._prefixed([stretch])[0], _SHARE):
                    block.append(part)
                    size += len(part)
                    if size >= _SHARE:
                        yield block
                        block, size = [], 0
        if block:
            yield block

    def _cut(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cut texts into pieces.

        Returns the UTF-8 of all texts, (N,) uint8; where each piece ends in it, (P,) int64; and how many pieces there
        are up to the end of each text, (D,) int64.
        """
        text = texts[0] if len(texts) == 1 else "".join(texts)
        stops = np.cumsum([len(text) for text in texts], dtype=np.int64)
        ends = self._splitter.ends(text, stops)
        data = np.frombuffer(text.encode("utf-8"), np.uint8)
        pieces = np.searchsorted(ends, stops, side="right")
        return data, ends if text.isascii() else byte_positions(text)[ends], pieces

    def _prefixed(self, texts: Iterable[str]) -> list[str]:
        if not self.prefix_space:
            return list(texts)
        return [text if text.startswith(" ") or not text else " " + text for text in texts]

    # ---- text -> ids ----

    @property
    def cuts_at_spaces(self) -> bool:
        """Whether a text gives the same ids in the parts that `read_parts` cuts it into."""
        return self._splitter.cuts_at_spaces and not self.prefix_space

    def _encode_ordinary(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        texts = self._prefixed(texts)
        if sum(map(len, texts)) <= 2 * _SHARE:
            return self._encode_share(texts)
        from minillm.kernels import get_num_threads

        shares, last_of_text = self._shares(texts)
        with ThreadPoolExecutor(get_num_threads()) as pool:  # the compiled loops run without Python's lock
            encoded = list(pool.map(self._encode_share, shares))
        starts = np.cumsum([0] + [len(ids) for ids, _ in encoded[:-1]])
        ends = np.concatenate([ends + start for (_, ends), start in zip(encoded, starts, strict=True)])
        return np.concatenate([ids for ids, _ in encoded]), ends[last_of_text]

    def _shares(self, texts: Sequence[str]) -> tuple[list[list[str]], list[bool]]:
        """Texts in groups of about `_SHARE` characters, long ones cut; and of every part, whether it ends its text."""
        shares: list[list[str]] = [[]]
        last_of_text, size = [], 0
        for text in texts:
            parts = list(self._splitter.safe_parts(text, _SHARE))
            last_of_text += [False] * (len(parts) - 1) + [True]
            for part in parts:
                if size >= _SHARE:
                    shares.append([])
                    size = 0
                shares[-1].append(part)
                size += len(part)
        return shares, last_of_text

    def _encode_share(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        from minillm.kernels import bpe as kernel

        data, ends, pieces = self._cut(texts)
        ids, lengths = kernel.encode_pieces(data, ends, self._table)
        if self._lacks_bytes and len(ids) and ids.min() < 0:
            missing = next(byte for byte in data.tolist() if self._table.byte_ids[byte] < 0)
            raise ValueError(f"encode: the vocabulary has no token for the byte 0x{missing:02x}, which the text holds")
        return ids, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[pieces]

    def _ordinary_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        ids = self._encode_ordinary([text])[0].tolist()
        starts = byte_positions(text)
        # the character of every byte; a prefixed space counts to the first character
        characters = np.repeat(np.arange(len(text)), np.diff(starts)).tolist()
        if self._prefixed([text]) != [text]:
            characters.insert(0, 0)
        offsets, start = [], 0
        for id in ids:
            end = start + len(self._bytes[id])
            offsets.append((characters[start], characters[end - 1] + 1))
            start = end
        return ids, offsets

    def _trimmed(self, ids: list[int], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
        if not self.trim_offsets:
            return offsets
        trimmed = []
        for position, (id, (start, end)) in enumerate(zip(ids, offsets, strict=True)):
            token = self._bytes[id]
            before, after = (len(token) - len(rest) for rest in (token.lstrip(b" "), token.rstrip(b" ")))
            if before == 1 and self.prefix_space and (position == 0 or start == 0):
                before = 0  # the space that was put in is not in the text
            start = min(start + before, end)
            trimmed.append((start, max(end - after, start) if end >= after else end))
        return trimmed

    def merge_steps(self, piece: str) -> list[list[int]]:
        """How one piece is joined: its ids after 0, 1, 2 ... merges, the single bytes first."""
        from minillm.kernels.bpe import join_pairs

        return join_pairs([int(self._table.byte_ids[byte]) for byte in piece.encode("utf-8")], self._table)

    def merge_rank(self, left: int, right: int) -> int:
        """The rank of the merge that joins two tokens: the lower, the earlier it goes."""
        return self._table.merges[left, right][0]

    def pieces(self, text: str) -> list[str]:
        """The pieces of a text, which no token crosses, as the `regex` module cuts them."""
        return [piece for part in self._prefixed([text]) for piece in self._splitter.pieces(part)]

    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json`, the format of the `tokenizers` library."""
        from .tokenizer_json import bpe_to_json

        return bpe_to_json(self)


def byte_positions(text: str) -> np.ndarray:
    """Where each character begins in the UTF-8 of the text, and the end: (len(text) + 1,) int64."""
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    widths = 1 + (points >= 0x80).astype(np.int8) + (points >= 0x800) + (points >= 0x10000)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(widths, dtype=np.int64)])


def _merge_counts(
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put several counts of pieces together, each piece once."""
    from minillm.kernels import bpe_train as kernel

    starts = np.cumsum([0] + [len(data) for data, _, _ in parts[:-1]])
    return kernel.unique_pieces(
        np.concatenate([data for data, _, _ in parts]),
        np.concatenate([ends + start for (_, ends, _), start in zip(parts, starts, strict=True)]),
        np.concatenate([counts for _, _, counts in parts]),
    )
