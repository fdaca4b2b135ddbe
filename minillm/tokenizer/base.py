"""What every tokenizer shares: special tokens, batches, decoding, streaming, saving.

A tokenizer is a reversible map between text and a list of small integers. The three kinds of this package differ in one
method, `_encode_ordinary`, which knows nothing of special tokens; everything around it stands here.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from abc import ABC, abstractmethod
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import regex

from ..files import write_json

END_OF_TEXT = "<|endoftext|>"
_MANY = 1000  # ids: from here on a compiled loop decodes them


@dataclass(frozen=True)
class Template:
    """The special ids that encoding puts around a text: T5 ends each with `</s>`, Llama 3 begins with one."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Specials:
    """The tokens that are recognised whole, before a text is split.

    `special` are control tokens (end of text, turn markers, sentinels): they are recognised only where the caller
    allows it, because a user who types `<|endoftext|>` must not be able to end a document. `plain` are ordinary words
    that a vocabulary adds to what it learned: always recognised.
    """

    special: dict[str, int] = field(default_factory=dict)
    plain: dict[str, int] = field(default_factory=dict)

    @property
    def ids(self) -> set[int]:
        """The ids of both."""
        return {*self.special.values(), *self.plain.values()}

    def allowed(self, names: Collection[str] | str, caller: str) -> dict[str, int]:
        """The tokens to recognise, given the names that the caller allows (or "all")."""
        if isinstance(names, str):
            if names != "all":
                raise ValueError(
                    f'{caller}: allowed_special must be a collection of names or "all"; got the string {names!r}'
                )
            return {**self.plain, **self.special}
        unknown = [name for name in names if name not in self.special]
        if unknown:
            raise ValueError(
                f"{caller}: allowed_special names {unknown[0]!r}, which is no special token of this tokenizer; "
                f"it has {_listed(self.special)}"
            )
        return {**self.plain, **{name: self.special[name] for name in names}}


class Tokenizer(ABC):
    """A vocabulary and the way text is cut into it; see `BPETokenizer`, `CharTokenizer`, `UnigramTokenizer`."""

    _end: int | None = None  # what ends a text, where no name says so: see ending.py

    def __init__(self, tokens: Sequence[bytes | None], specials: Specials, template: Template | None = None) -> None:
        self._tokens = list(tokens)  # id -> the bytes it stands for; None where an id is not used
        self._bytes = {i: token for i, token in enumerate(self._tokens) if token is not None}
        self._specials = specials
        self._template = template or Template()

    # ---- what a kind of tokenizer defines ----

    @abstractmethod
    def _encode_ordinary(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """All ids of all texts in one array, and where each text ends in it: (N,) int32, (len(texts),) int64."""

    @abstractmethod
    def _ordinary_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of one text, and for each the characters [start, end) that it came from."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json`, the format of the `tokenizers` library."""

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
        """The id that ends a text: `<|endoftext|>`, `</s>`, or what its folder says; None when nobody knows one."""
        special = self._specials.special
        return special.get(END_OF_TEXT, special.get("</s>", self._end))

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

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, special_tokens={_listed(self._specials.special)})"

    # ---- text -> ids ----

    def encode(
        self, text: str, allowed_special: Collection[str] | str = (), add_special_tokens: bool = True
    ) -> list[int]:
        """Turn a text into ids.

        A special token written in the text is ordinary text unless `allowed_special` names it ("all": every one).
        `add_special_tokens` puts in what the vocabulary's template asks for, such as T5's `</s>` at the end; the
        tokenizers trained here ask for nothing. Lone surrogates, which no encoding can write, become U+FFFD.

        Raises ValueError for an unknown name in `allowed_special`.
        """
        ids, _ = self.encode_array([text], allowed_special, add_special_tokens, caller="encode")
        return ids.tolist()

    def encode_batch(
        self, texts: Sequence[str], allowed_special: Collection[str] | str = (), add_special_tokens: bool = True
    ) -> list[list[int]]:
        """Turn several texts into one list of ids each, the same as `encode` one by one, on all threads."""
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

        Returns (ids, ends): the ids of `texts[i]` are `ids[ends[i - 1]:ends[i]]`, where `ends[-1]` of the first is 0.
        """
        if isinstance(texts, str):
            raise TypeError(f"{caller}: texts must be a sequence of strings; got one string")
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"{caller}: text must be a string; got {type(text).__name__}")
        texts = [replace_surrogates(text) for text in texts]
        tokens = self._specials.allowed(allowed_special, caller)
        template = self._template if add_special_tokens else Template()
        if template == Template() and not any(name in text for text in texts for name in tokens):
            return self._encode_ordinary(texts)
        parts = [list(cut_at(text, tokens)) for text in texts]
        ids, ends = self._encode_ordinary([part for row in parts for part in row if isinstance(part, str)])
        return _assemble(parts, iter(np.split(ids, ends)), template)

    def encode_with_offsets(
        self, text: str, allowed_special: Collection[str] | str = (), add_special_tokens: bool = True
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Turn a text into ids, and say for each which characters [start, end) of `text` it came from.

        Tokens that the template adds come from no character: (0, 0). A character of several bytes can be shared by
        several tokens; each then covers the whole of it.
        """
        if not isinstance(text, str):
            raise TypeError(f"encode_with_offsets: text must be a string; got {type(text).__name__}")
        text = replace_surrogates(text)
        tokens = self._specials.allowed(allowed_special, "encode_with_offsets")
        template = self._template if add_special_tokens else Template()
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        start = 0
        for part in cut_at(text, tokens):
            if isinstance(part, str):
                part_ids, part_offsets = self._ordinary_offsets(part)
                ids += part_ids
                offsets += [(start + low, start + high) for low, high in part_offsets]
                start += len(part)
            else:
                end = start + len(self._name_of(part))
                ids.append(part)
                offsets.append((start, end))
                start = end
        offsets = self._trimmed(ids, offsets)
        count = len(template.before), len(template.after)
        return (
            [*template.before, *ids, *template.after],
            [(0, 0)] * count[0] + offsets + [(0, 0)] * count[1],
        )

    # ---- ids -> text ----

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Turn ids back into text: `decode(encode(s)) == s`.

        A list that begins or ends within a character gives U+FFFD there. Raises ValueError, with the position, for an
        id that is not in the vocabulary.
        """
        return self.decode_bytes(ids, skip_special_tokens).decode("utf-8", errors="replace")

    def decode_bytes(self, ids: Iterable[int], skip_special_tokens: bool = False) -> bytes:
        """Turn ids back into the UTF-8 bytes of the text, which need not be whole characters."""
        if isinstance(ids, np.ndarray):
            ids = ids.ravel().tolist()
        elif not isinstance(ids, (list, tuple)):
            ids = list(ids)
        if skip_special_tokens:
            special = set(self._specials.special.values())
            ids = [id for id in ids if id not in special]
        try:
            data = self._joined(ids)
        except (KeyError, TypeError, OverflowError):
            self._check_ids(ids, "decode")
            raise
        return self._leading_bytes(ids[0]) + data[len(self._bytes[ids[0]]) :] if ids else data

    def _joined(self, ids: Sequence[int]) -> bytes:
        """The bytes of all ids; KeyError, TypeError or OverflowError where one is no id of the vocabulary."""
        if len(ids) < _MANY:
            return b"".join(map(self._bytes.__getitem__, ids))
        from minillm.kernels.bpe import join_tokens

        joined = join_tokens(np.frombuffer(array("q", ids), np.int64), *self._vocabulary)
        if joined is None:
            raise KeyError
        return joined.tobytes()

    @cached_property
    def _vocabulary(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bytes of all tokens in a row, and where those of each begin and end, as `join_tokens` takes them."""
        words = [token or b"" for token in self._tokens]
        ends = np.cumsum([len(word) for word in words], dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]])
        data = np.frombuffer(b"".join(words) + bytes(8), np.uint8)
        return data, starts, np.where([token is None for token in self._tokens], -1, ends)

    def _leading_bytes(self, id: int) -> bytes:
        """The bytes of an id that stands first in the text."""
        return self._bytes[id]

    def stream_decoder(self, skip_special_tokens: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one by one; see `StreamDecoder`."""
        return StreamDecoder(self, skip_special_tokens)

    def _trimmed(self, ids: list[int], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The offsets as the vocabulary wants them shown."""
        return offsets

    def _check_ids(self, ids: Iterable[Any], caller: str) -> None:
        for position, id in enumerate(ids):
            if isinstance(id, bool) or not isinstance(id, (int, np.integer)):
                raise TypeError(f"{caller}: ids must be integers; got {type(id).__name__} at {position}")
            if id not in self._bytes:
                raise ValueError(
                    f"{caller}: ids must be in the vocabulary, [0, {self.vocab_size}); got {id} at {position}"
                )

    def _name_of(self, id: int) -> str:
        return self._tokens[id].decode("utf-8")  # type: ignore[union-attr]

    # ---- files ----

    def save(self, path: str | Path) -> Path:
        """Write `tokenizer.json`, which `tokenizers` and `transformers` open with the same ids.

        `path` is a file ending in `.json`, or a folder (made if it is absent); a folder also gets the small
        `tokenizer_config.json` that `transformers` looks for. Returns the file written.
        """
        path = Path(path)
        file = path if path.suffix == ".json" and not path.is_dir() else path / "tokenizer.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, self.to_json())
        if file != path:
            config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
            if self.eos_id is not None:
                config["eos_token"] = self._name_of(self.eos_id)
            _write(file.with_name("tokenizer_config.json"), config)
        return file


class StreamDecoder:
    """Turns ids into text while they arrive, and never shows a broken character.

    The bytes of one character can be spread over several tokens: they are held back until it is whole. The strings
    that `push` and the final `flush` return add up to `tokenizer.decode(all ids)`.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skipped = set(tokenizer.special_tokens.values()) if skip_special_tokens else set()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True

    def push(self, id: int) -> str:
        """The text that this id completes: often a word, sometimes nothing yet."""
        data = self._tokenizer.token_bytes(id)
        if id in self._skipped:
            return ""
        if self._at_start:
            data, self._at_start = self._tokenizer._leading_bytes(id), False
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, else nothing."""
        return self._utf8.decode(b"", final=True)


def replace_surrogates(text: str) -> str:
    """The text with lone surrogates replaced by U+FFFD (and pairs of them joined), so that it has a UTF-8 form."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def cut_at(text: str, tokens: dict[str, int]) -> Iterator[str | int]:
    """The stretches of ordinary text (str) and, between them, the ids of the tokens found; the longest token wins."""
    start = 0
    if tokens:
        longest_first = sorted(tokens, key=len, reverse=True)
        for match in regex.finditer("|".join(map(regex.escape, longest_first)), text):
            if match.start() > start:
                yield text[start : match.start()]
            yield tokens[match.group()]
            start = match.end()
    if start < len(text):
        yield text[start:]


def check_special_names(names: Sequence[str], caller: str) -> list[str]:
    """The names of special tokens as a list; ValueError when one is empty, repeated or a single byte."""
    if isinstance(names, str):
        raise TypeError(f"{caller}: special_tokens must be a sequence of names; got the string {names!r}")
    for position, name in enumerate(names):
        if not isinstance(name, str) or len(name) < 2 or name in names[:position]:
            raise ValueError(
                f"{caller}: special_tokens must be different names of at least two characters; "
                f"got {name!r} at {position}"
            )
    return list(names)


def _assemble(
    parts: Iterable[Iterable[str | int]], encoded: Iterator[np.ndarray], template: Template
) -> tuple[np.ndarray, np.ndarray]:
    """Put the encoded stretches, the special ids between them and the template's together, row by row."""
    arrays, lengths = [np.zeros(0, np.int32)], []
    for row in parts:
        row_arrays = [next(encoded) if isinstance(part, str) else np.array([part], np.int32) for part in row]
        row_arrays = [np.array(template.before, np.int32), *row_arrays, np.array(template.after, np.int32)]
        arrays += row_arrays
        lengths.append(sum(map(len, row_arrays)))
    return np.concatenate(arrays), np.cumsum(lengths, dtype=np.int64)


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:4])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 4 else shown or "none"


def _write(file: Path, content: dict[str, Any]) -> None:
    """Write beside the file and rename, so that a reader never sees half of it."""
    partial = file.with_name(f"{file.name}.tmp-{os.getpid()}")
    write_json(partial, content)
    os.replace(partial, file)
