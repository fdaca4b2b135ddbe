"""What every tokenizer shares: special tokens, batches, decoding, streaming, saving.

A tokenizer is a reversible map between text and a list of small integers. The three kinds of this
package differ in `_encode_ordinary`, which knows nothing of special tokens; everything around it
stands here.
"""

from __future__ import annotations

import codecs
import copy
import hashlib
import json
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_json
from ..kernels import compiled
from .chat_format import ChatFormat
from .specials import END_OF_TEXT, Matcher, Span, Specials, Template, listed

_MANY = 1000  # ids: from here on a compiled loop decodes them
Offsets = list[tuple[int, int]]  # of each token, the characters [start, end) that it came from


@compiled("text.join")
def join_tokens(ids: np.ndarray, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """The bytes of all tokens, one after the other.

    ids: (N,) int64; data: (M + 8,) uint8, the bytes of the vocabulary, padded; starts, ends: (V,)
    int64, where those of each token begin and end, the end at -1 for an id that is not used -> (L,)
    uint8; None when an id is no token.
    """
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(starts) or (ends[ids] < 0).any():
        return None
    parts = [data[starts[id] : ends[id]] for id in ids.tolist()]
    return np.concatenate([np.zeros(0, np.uint8), *parts])


class Tokenizer(ABC):
    """A vocabulary and the way text is cut into it; see `BPETokenizer`, `CharTokenizer`,
    `UnigramTokenizer`.
    """

    chat_format: ChatFormat | None = None  # how a conversation is written, where its folder says so
    _end: int | None = None  # what ends a text, where no name says so: see ending.py
    _begin: int | None = None  # what begins one, where no template says so
    begins_prompts = True  # whether a prompt gets that before it; a tokenizer from a folder does as the folder says

    def __init__(self, tokens: Sequence[bytes | None], specials: Specials, template: Template | None = None) -> None:
        self._tokens = list(tokens)  # id -> the bytes it stands for; None where an id is not used
        self._bytes = {i: token for i, token in enumerate(self._tokens) if token is not None}
        self._specials = specials
        self._names = specials.names()
        self._template = template or Template()
        self._last_matchers: tuple[Collection[str], tuple[Matcher, Matcher]] = (), (Matcher({}), Matcher({}))

    # ---- what a kind of tokenizer defines ----

    @abstractmethod
    def _encode_ordinary(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids of all normalized texts in one array, and where each ends: (N,) int32,
        (len(texts),) int64.
        """

    @abstractmethod
    def _ordinary_offsets(self, text: str, first: bool) -> tuple[list[int], Offsets]:
        """The ids of one text, and for each the characters that it came from; first: nothing stands
        before it.
        """

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json`, the format of the `tokenizers` library."""

    def _normalized(self, text: str) -> str:
        """The text as `_encode_ordinary` takes it: by default as it is."""
        return text

    def _aligned(self, text: str) -> tuple[str, Sequence[int], Sequence[int]]:
        """The same, and of each of its characters where in `text` what it came from begins and
        ends.
        """
        return text, range(len(text)), range(1, len(text) + 1)

    # ---- the vocabulary ----

    @property
    def vocab_size(self) -> int:
        """How many ids there are: every id is in [0, vocab_size)."""
        return len(self._tokens)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The control tokens and their ids."""
        return dict(self._specials.special)

    @property
    def cuts_at_spaces(self) -> bool:
        """Whether a text gives the same ids in the parts that `read_parts` cuts it into."""
        return True

    @property
    def eos_id(self) -> int | None:
        """The id that ends a text: `<|endoftext|>`, `</s>`, or what its folder says; None when
        nobody knows one.
        """
        special = self._specials.special
        return special.get(END_OF_TEXT, special.get("</s>", self._end))

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text: what the template puts there, or its folder or training says;
        None when nobody knows one.
        """
        return self._template.before[0] if self._template.before else self._begin

    def set_beginning(self, id: int | None, before_prompts: bool) -> None:
        """Say how the texts begin that a model has learned from; generation then begins its own so.

        before_prompts: whether every text does, so that ``id`` goes before a prompt too. What
        `encode` returns stays as it is. A template that begins with more than the end-of-text token
        came with the vocabulary, and stays as well.
        """
        if self._beginning_is_ours:
            self._begin, self.begins_prompts = id, before_prompts

    def as_trained(self) -> Tokenizer:
        """A copy whose `encode` begins as `set_beginning` said, and leaves the end open, as prompts
        need it: what a run folder holds.
        """
        made = copy.copy(self)
        if self._beginning_is_ours and self._begin is not None:
            after = () if self._template.after == (self.eos_id,) else self._template.after
            made._template = Template((self._begin,) if self.begins_prompts else (), after)
        return made

    @property
    def _beginning_is_ours(self) -> bool:
        return self._template.before in ((), (self.eos_id,))

    def token_bytes(self, id: int) -> bytes:
        """The bytes that one id stands for.

        Raises ValueError for an id that is not in the vocabulary.
        """
        self._check_ids((id,), "token_bytes")
        return self._bytes[int(id)]

    def fingerprint(self) -> str:
        """SHA-256 of the content, in hexadecimal: equal for tokenizers that give equal ids."""
        content = json.dumps(self.to_json(), sort_keys=True, ensure_ascii=True, separators=(",", ":"))
        return hashlib.sha256(content.encode("ascii")).hexdigest()

    def cuts_as(self, other: Tokenizer) -> bool:
        """Whether both give the same ids to every text, whatever they put around it."""
        mine, theirs = copy.copy(self), copy.copy(other)
        mine._template = theirs._template = Template()
        return mine.fingerprint() == theirs.fingerprint()

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special_tokens={listed(self._specials.special)})"

    # ---- text -> ids ----

    def encode(
        self, text: str, allowed_special: Collection[str] | str = (), add_special_tokens: bool = True
    ) -> list[int]:
        """Turn a text into ids.

        A special token written in the text is ordinary text unless `allowed_special` names it
        ("all": every one). `add_special_tokens` puts in what the vocabulary's template asks for,
        such as T5's `</s>` at the end, or the end of the text before it in a run folder whose texts
        began so; the tokenizers trained here ask for nothing. Lone surrogates, which no encoding
        can write, become U+FFFD.

        Raises ValueError for an unknown name in `allowed_special`.
        """
        ids, _ = self.encode_array([text], allowed_special, add_special_tokens, caller="encode")
        return ids.tolist()

    def encode_batch(
        self, texts: Sequence[str], allowed_special: Collection[str] | str = (), add_special_tokens: bool = True
    ) -> list[list[int]]:
        """Turn several texts into one list of ids each, the same as `encode` one by one, on all
        threads.
        """
        ids, ends = self.encode_array(texts, allowed_special, add_special_tokens, caller="encode_batch")
        flat, stops = ids.tolist(), ends.tolist()
        return [flat[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]

    def encode_array(
        self,
        texts: Sequence[str],
        allowed_special: Collection[str] | str = (),
        add_special_tokens: bool = True,
        caller: str = "encode_array",
    ) -> tuple[np.ndarray, np.ndarray]:
        """Turn several texts into one int32 array of ids, without the cost of Python lists.

        Returns (ids, ends): the ids of `texts[i]` are `ids[ends[i - 1]:ends[i]]`, where `ends[-1]`
        of the first is 0.
        """
        if isinstance(texts, str):
            raise TypeError(f"{caller}: texts must be a sequence of strings; got one string")
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"{caller}: text must be a string; got {type(text).__name__}")
        texts = [replace_surrogates(text) for text in texts]
        exact, normalized = self._matchers(allowed_special, caller)
        template = self._template if add_special_tokens else Template()
        if normalized.is_empty and template == Template() and not any(map(exact.occurs_in, texts)):
            return self._encode_ordinary([self._normalized(text) for text in texts])
        parts = [list(self._parts(text, exact, normalized)) for text in texts]
        ids, ends = self._encode_ordinary([part for row in parts for part in row if isinstance(part, str)])
        return _assemble(parts, iter(np.split(ids, ends)), template)

    def special_spans(self, text: str) -> list[Span]:
        """Where special tokens are written in a text, from left to right."""
        return sorted(span for matcher in self._specials.written for span in matcher.spans(text) if span.id is not None)

    def _matchers(self, allowed_special: Collection[str] | str, caller: str) -> tuple[Matcher, Matcher]:
        """Those that find the allowed tokens in a text, and in a normalized one; kept for the next
        call.
        """
        tokens = self._specials.allowed(allowed_special, caller)
        names, matchers = self._last_matchers
        if names != tokens.keys():
            matchers = self._specials.matchers(tokens, self._normalized)
            self._last_matchers = tokens.keys(), matchers
        return matchers

    def _parts(self, text: str, exact: Matcher, normalized: Matcher) -> Iterator[str | int]:
        """The ids of the tokens found, and the normalized texts between them."""
        for start, end, id in exact.spans(text):
            if id is not None:
                yield id
                continue
            part = self._normalized(text[start:end])
            for low, high, inner in normalized.spans(part):
                yield part[low:high] if inner is None else inner

    def encode_with_offsets(
        self, text: str, allowed_special: Collection[str] | str = (), add_special_tokens: bool = True
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Turn a text into ids, and say for each which characters [start, end) of `text` it came
        from.

        Tokens that the template adds come from no character: (0, 0). A character of several bytes
        can be shared by several tokens; each then covers the whole of it.
        """
        if not isinstance(text, str):
            raise TypeError(f"encode_with_offsets: text must be a string; got {type(text).__name__}")
        text = replace_surrogates(text)
        exact, normalized = self._matchers(allowed_special, "encode_with_offsets")
        template = self._template if add_special_tokens else Template()
        ids: list[int] = []
        offsets: Offsets = []
        for start, end, id in exact.spans(text):
            if id is not None:
                ids.append(id)
                offsets.append((start, end))
                continue
            part, starts, ends = self._aligned(text[start:end])
            for low, high, inner in normalized.spans(part):
                if inner is None:
                    found, places = self._ordinary_offsets(part[low:high], not ids)
                else:
                    found, places = [inner], [(0, high - low)]
                ids += found
                for first, last in places:
                    begin = starts[low + first] if low + first < len(part) else len(text[start:end])
                    offsets.append((start + begin, start + (ends[low + last - 1] if last > first else begin)))
        before, after = ([(0, 0)] * len(added) for added in (template.before, template.after))
        return [*template.before, *ids, *template.after], [*before, *offsets, *after]

    # ---- ids -> text ----

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Turn ids back into text: `decode(encode(s)) == s`.

        A list that begins or ends within a character gives U+FFFD there. Raises ValueError, with
        the position, for an id that is not in the vocabulary.
        """
        return self.decode_bytes(ids, skip_special_tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], skip_special_tokens: bool = False) -> bytes:
        """Turn ids back into the UTF-8 bytes of the text, which need not be whole characters."""
        if isinstance(ids, np.ndarray):
            ids = ids.ravel().tolist()
        elif not isinstance(ids, (list, tuple)):
            ids = list(ids)
        if skip_special_tokens:
            ids = [id for id in ids if id not in self._skipped]
        try:
            data = self._joined(ids)
        except (KeyError, TypeError, OverflowError):
            self._check_ids(ids, "decode")
            raise
        shown, length = [], 0  # what the ids at the beginning become there, and how long they would be elsewhere
        for id in ids:
            shown.append(self._leading_bytes(id))
            length += len(self._bytes[id])
            if shown[-1] or not self._stays_at_start:
                break
        return b"".join(shown) + data[length:]

    @cached_property
    def _skipped(self) -> set[int]:
        """The ids that `skip_special_tokens` leaves out."""
        return set(self._specials.special.values())

    def _joined(self, ids: Sequence[int]) -> bytes:
        """The bytes of all ids; KeyError, TypeError or OverflowError where one is no id of the
        vocabulary.
        """
        if len(ids) < _MANY:
            return b"".join(map(self._bytes.__getitem__, ids))
        joined = join_tokens(np.frombuffer(array("q", ids), np.int64), *self._vocabulary)
        if joined is None:
            raise KeyError
        return joined.tobytes()

    @cached_property
    def _vocabulary(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bytes of all tokens in a row, and where those of each begin and end, as `join_tokens`
        takes them.
        """
        words = [token or b"" for token in self._tokens]
        ends = np.cumsum([len(word) for word in words], dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]])
        data = np.frombuffer(b"".join(words) + bytes(8), np.uint8)
        return data, starts, np.where([token is None for token in self._tokens], -1, ends)

    _stays_at_start = False  # whether a text still begins after an id that became nothing at its beginning

    def _leading_bytes(self, id: int) -> bytes:
        """The bytes of an id that stands first in the text."""
        return self._bytes[id]

    def stream_decoder(self, skip_special_tokens: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one by one; see `StreamDecoder`."""
        return StreamDecoder(self, skip_special_tokens)

    def _check_ids(self, ids: Iterable[Any], caller: str) -> None:
        for position, id in enumerate(ids):
            if isinstance(id, bool) or not isinstance(id, (int, np.integer)):
                raise TypeError(f"{caller}: ids must be integers; got {type(id).__name__} at {position}")
            if id not in self._bytes:
                raise ValueError(
                    f"{caller}: ids must be in the vocabulary, [0, {self.vocab_size}); got {id} at {position}"
                )

    # ---- files ----

    def save(self, path: str | Path) -> Path:
        """Write `tokenizer.json`, which `tokenizers` and `transformers` open with the same ids.

        `path` is a file ending in `.json`, or a folder (made if it is absent); a folder also gets
        the small `tokenizer_config.json` that `transformers` looks for. Returns the file written.
        """
        path = Path(path)
        file = path if path.suffix == ".json" and not path.is_dir() else path / "tokenizer.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, self.to_json())
        if file != path:
            config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
            if self.eos_id in self._names:  # a folder may call any token its end of text
                config["eos_token"] = self._names[self.eos_id]
            if self._template.before:
                config["bos_token"] = self._names[self._template.before[0]]
            if self.chat_format is not None:
                config |= self.chat_format.save(path)
            _write(file.with_name("tokenizer_config.json"), config)
        return file


class StreamDecoder:
    """Turns ids into text while they arrive, and never shows a broken character.

    The bytes of one character can be spread over several tokens: they are held back until it is
    whole. The strings that `push` and the final `flush` return add up to `tokenizer.decode(all
    ids)`.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer._skipped if skip_special_tokens else set()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True

    def push(self, id: int) -> str:
        """The text that this id completes: often a word, sometimes nothing yet."""
        data = self._tokenizer.token_bytes(id)
        if id in self._skipped:
            return ""
        if self._at_start:
            data = self._tokenizer._leading_bytes(id)
            self._at_start = self._tokenizer._stays_at_start and not data
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, else nothing."""
        return self._utf8.decode(b"", final=True)


def replace_surrogates(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD (and pairs of them joined), so that it has a
    UTF-8 form.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _assemble(
    parts: Iterable[Iterable[str | int]], encoded: Iterator[np.ndarray], template: Template
) -> tuple[np.ndarray, np.ndarray]:
    """Put the encoded stretches, the special ids between them and the template's together, row by
    row.
    """
    arrays, lengths = [np.zeros(0, np.int32)], []
    for row in parts:
        row_arrays = [next(encoded) if isinstance(part, str) else np.array([part], np.int32) for part in row]
        row_arrays = [np.array(template.before, np.int32), *row_arrays, np.array(template.after, np.int32)]
        arrays += row_arrays
        lengths.append(sum(map(len, row_arrays)))
    return np.concatenate(arrays), np.cumsum(lengths, dtype=np.int64)


def _write(file: Path, content: dict[str, Any]) -> None:
    """Write beside the file and rename, so that a reader never sees half of it."""
    partial = file.with_name(f"{file.name}.tmp-{os.getpid()}")
    write_json(partial, content)
    os.replace(partial, file)
