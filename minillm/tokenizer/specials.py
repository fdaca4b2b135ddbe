"""Tokens that are recognised whole in a text, before it is cut into pieces: `<|endoftext|>`, turn
markers, sentinels.

They are looked for twice, as the `tokenizers` library does: first those that must stand in the text
as they are, then, in what is left and after it was normalized, those that are normalized
themselves.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import regex

END_OF_TEXT = "<|endoftext|>"
_MOST_UNUSED = 1 << 20  # ids without a token that a vocabulary may have, besides one for each token


@dataclass(frozen=True)
class Template:
    """The special ids that encoding puts around a text: T5 ends each with `</s>`, Llama 3 begins
    with one.
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Matching:
    """How a token is looked for, in the words of the `tokenizers` library."""

    normalized: bool = False  # in the normalized text, and its own name is normalized too
    lstrip: bool = False  # it takes the white space before it ...
    rstrip: bool = False  # ... and after it
    single_word: bool = False  # only where no letter, digit, mark or underscore stands next to it


class Span(NamedTuple):
    """A stretch of a text, [start, end): a token with its id, or ordinary text (None)."""

    start: int
    end: int
    id: int | None


@dataclass(frozen=True)
class Specials:
    """The tokens that are recognised whole.

    `special` are control tokens (end of text, turn markers, sentinels): they are recognised only
    where the caller allows it, because a user who types `<|endoftext|>` must not be able to end a
    document. `plain` are ordinary words that a vocabulary adds to what it learned: always
    recognised. Several names may share an id, which then decodes to the first of them. `matching`
    says how a name is looked for; without an entry, exactly as it is.
    """

    special: Mapping[str, int] = field(default_factory=dict)
    plain: Mapping[str, int] = field(default_factory=dict)
    matching: Mapping[str, Matching] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, int]:
        """The ids of both, by name."""
        return {**self.special, **self.plain}

    @property
    def ids(self) -> set[int]:
        """The ids of both."""
        return {*self.special.values(), *self.plain.values()}

    def names(self) -> dict[int, str]:
        """The name that each id decodes to."""
        names: dict[int, str] = {}
        for name, id in self.by_name.items():
            names.setdefault(id, name)
        return names

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
                f"it has {listed(self.special)}"
            )
        return {**self.plain, **{name: self.special[name] for name in names}}

    @functools.cached_property
    def written(self) -> tuple[Matcher, Matcher]:
        """Those that find special tokens in a text as it is."""
        return self.matchers(self.special, lambda name: name)

    def matchers(self, tokens: Mapping[str, int], normalize: Callable[[str], str]) -> tuple[Matcher, Matcher]:
        """Those that find `tokens` in a text as it is, and those that find the others after it was
        normalized.
        """
        exact: dict[str, tuple[int, Matching]] = {}
        normalized: dict[str, tuple[int, Matching]] = {}
        for name, id in tokens.items():
            how = self.matching.get(name, Matching())
            if how.normalized:
                normalized[normalize(name)] = id, how
            else:
                exact[name] = id, how
        return Matcher(exact), Matcher(normalized)


_SPACE_AFTER = regex.compile(r"\p{White_Space}*")
_WORD = regex.compile(r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]")  # \w as the `tokenizers` library has it


class Matcher:
    """Finds tokens in a text: the leftmost first, the longest of those that begin together."""

    def __init__(self, tokens: Mapping[str, tuple[int, Matching]]) -> None:
        self._tokens = {name: token for name, token in tokens.items() if name}
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._expression = regex.compile("|".join(map(regex.escape, longest_first))) if longest_first else None

    @property
    def is_empty(self) -> bool:
        """Whether it looks for nothing."""
        return self._expression is None

    def occurs_in(self, text: str) -> bool:
        """Whether there may be a token in the text."""
        return any(name in text for name in self._tokens)

    def spans(self, text: str) -> Iterator[Span]:
        """The text from its beginning to its end, in tokens and the stretches of ordinary text
        between them.
        """
        done = 0
        for match in self._expression.finditer(text) if self._expression else ():
            start, end = match.span()
            id, how = self._tokens[match.group()]
            if how.single_word and (_WORD.match(text, end) or (start and _WORD.match(text, start - 1))):
                continue
            if how.lstrip:
                start = max(_white_space_before(text, start), done)
            if how.rstrip:
                end = _SPACE_AFTER.match(text, end).end()
            if done < start:
                yield Span(done, start, None)
            yield Span(start, end, id)
            done = end
        if done < len(text):
            yield Span(done, len(text), None)


def _white_space_before(text: str, end: int) -> int:
    """Where the white space that ends at `end` begins."""
    while end and _SPACE_AFTER.fullmatch(text, end - 1, end):
        end -= 1
    return end


def stretches(text: str, names: Collection[str]) -> list[str]:
    """The ordinary text between special tokens: what a tokenizer may learn from."""
    matcher = Matcher({name: (0, Matching()) for name in names if name in text})
    return [text[start:end] for start, end, id in matcher.spans(text) if id is None]


def check_special_names(names: Sequence[str], caller: str) -> list[str]:
    """The names of special tokens as a list; ValueError when one is empty, repeated or a single
    byte.
    """
    if isinstance(names, str):
        raise TypeError(f"{caller}: special_tokens must be a sequence of names; got the string {names!r}")
    for position, name in enumerate(names):
        if not isinstance(name, str) or len(name) < 2 or name in names[:position]:
            raise ValueError(
                f"{caller}: special_tokens must be different names of at least two characters; "
                f"got {name!r} at {position}"
            )
    return list(names)


def tokens_by_id(vocab: Mapping[bytes, int], specials: Specials) -> list[bytes | None]:
    """The bytes of every id, None where an id is not used.

    Raises ValueError when an id belongs to two tokens, is negative, or is so high that most ids
    would be unused.
    """
    words = [*vocab.items(), *((name.encode("utf-8"), id) for id, name in specials.names().items())]
    highest = max((id for _, id in words), default=-1)
    if highest >= 2 * len(words) + _MOST_UNUSED:
        raise ValueError(f"the highest of {len(words)} ids is {highest}")
    tokens: list[bytes | None] = [None] * (highest + 1)
    for token, id in words:
        if id < 0:
            raise ValueError(f"{id} is no id: it belongs to {token!r}")
        if tokens[id] not in (None, token):
            raise ValueError(f"id {id} belongs to two tokens, {tokens[id]!r} and {token!r}")
        tokens[id] = token
    return tokens


def listed(names: Collection[str]) -> str:
    """The first names for a message, and how many there are."""
    shown = ", ".join(list(names)[:4])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > 4 else shown or "none"
