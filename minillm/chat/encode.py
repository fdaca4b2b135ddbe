"""From messages to ids, and which of them the assistant wrote.

Two questions are answered here that every chat model depends on.

*Which tokens are special?* `<|im_end|>` ends a turn, but only where the template writes it. A user
who types it must not be able to end his turn and speak as somebody else. In the rendered text the
two look alike; so the conversation is rendered a second time with the signs of special tokens
(`<`, `|`, `>`) in what people wrote replaced by others that occur nowhere. What is still a special
token then is the template's. The second text, its signs put back, must be the first: a template
that looked at those signs is refused, and nothing is guessed.

*What does the model learn?* To answer, not to ask: the loss counts the assistant's tokens and the
one that ends its turn. Without that last one the model never learns to stop.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ..tokenizer import Tokenizer
from ..tokenizer.specials import Span
from .messages import Messages, texts_in
from .sandbox import Rendered
from .template import End, Script, parts_of

__all__ = ["Encoded", "encode", "encode_each", "prompt", "prompt_each"]

_PRIVATE = range(0xF0000, 0xF1000)  # characters to which no meaning is given
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TOGETHER, _LINES = 64, 1 << 15  # conversations that are written at once; lines that are remembered
Stretch = tuple[int, int]  # [start, end) of a text
Cut = Callable[[str], tuple[list[int], list[Stretch]]]  # a text into tokens, and where each stands


class Encoded(NamedTuple):
    """A conversation as ids, and for each whether the assistant wrote it."""

    ids: list[int]
    mask: list[bool]


def encode(
    messages: Messages,
    tokenizer: Tokenizer,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    **variables: Any,
) -> Encoded:
    """A whole conversation as a model learns from it; the arguments are those of `render`.

    The mask is true for the tokens of the assistant's messages and for the special token that ends
    each of them. Where they are: what stands between `{% generation %}` and `{% endgeneration %}`,
    if the template has that; else what a message adds to the conversation before it, of which the
    assistant's introduction is no part.

    Raises ValueError as `render` does; when a template writes earlier messages otherwise once later
    ones follow; and when it changes a text in which a special token is spelled out.
    """
    script = Script(messages, tokenizer, tools, template, variables)
    return _encoded(script, script.parts(_ends(script)), tokenizer, _cutter(tokenizer))


def encode_each(conversations: Sequence[Messages], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """What `encode` gives for each, in less time: the template writes many at once, and a line that
    was cut into tokens lately is not cut again, for conversations repeat themselves.
    """
    cut = functools.lru_cache(_LINES)(_cutter(tokenizer))
    for script, parts in _written(conversations, tokenizer, _ends):
        yield _encoded(script, parts, tokenizer, cut)


def _turns(script: Script) -> list[int]:
    """Which messages are the assistant's."""
    return [i for i, message in enumerate(script.messages) if message["role"] == "assistant"]


def _is_marked(script: Script) -> bool:
    return _GENERATION.search(script.template) is not None


def _ends(script: Script) -> list[End]:
    """The beginnings of a conversation that show where the assistant's words are; first, all of it.
    """
    turns = _turns(script)
    if turns[:1] == [0]:
        raise ValueError("messages[0]: the assistant speaks first, and nobody can learn what it answers to")
    ends = [] if _is_marked(script) else [end for i in turns for end in ((i, True), (i + 1, False))]
    return [(len(script.messages), False), *ends]


def _encoded(script: Script, parts: Sequence[Rendered], tokenizer: Tokenizer, cut: Cut) -> Encoded:
    """parts: what the template makes of `_ends`."""
    written, *beginnings = parts
    hidden = _with_hidden_signs(script, tokenizer, written.text, script.text)
    specials = tokenizer.special_spans(hidden)
    ids, places = _ids(written.text, specials, cut)
    if _is_marked(script):
        answers = written.generations
    else:
        answers = [
            _answer(i, introduced.text, answered.text, written.text, specials)
            for i, introduced, answered in zip(_turns(script), beginnings[::2], beginnings[1::2], strict=True)
        ]
    return Encoded(ids, [any(start < high and low < end for low, high in answers) for start, end in places])


def prompt(
    messages: Messages,
    tokenizer: Tokenizer,
    continue_final_message: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    **variables: Any,
) -> list[int]:
    """The ids after which a model writes the assistant's next message, or goes on with the last.

    The arguments, and what is raised, are those of `render` and `encode`.
    """
    script = Script(messages, tokenizer, tools, template, variables)
    write = script.continued if continue_final_message else functools.partial(script.text, True)
    text = write()
    hidden = _with_hidden_signs(script, tokenizer, text, write)
    return _ids(text, tokenizer.special_spans(hidden), _cutter(tokenizer))[0]


def prompt_each(conversations: Sequence[Messages], tokenizer: Tokenizer) -> Iterator[list[int]]:
    """What `prompt` gives for each, in less time: see `encode_each`."""
    cut = functools.lru_cache(_LINES)(_cutter(tokenizer))
    for script, (whole,) in _written(conversations, tokenizer, lambda script: [(len(script.messages), True)]):
        hidden = _with_hidden_signs(script, tokenizer, whole.text, functools.partial(script.text, True))
        yield _ids(whole.text, tokenizer.special_spans(hidden), cut)[0]


def _written(
    conversations: Sequence[Messages], tokenizer: Tokenizer, ends: Callable[[Script], Sequence[End]]
) -> Iterator[tuple[Script, list[Rendered]]]:
    """Each conversation with its beginnings, many of which the template writes at once: the next
    ones while these are cut into tokens.
    """
    groups = [conversations[start : start + _TOGETHER] for start in range(0, len(conversations), _TOGETHER)]

    def write(several: Sequence[Messages]) -> list[tuple[Script, list[Rendered]]] | None:
        try:
            scripts = [Script(messages, tokenizer) for messages in several]
            parts = parts_of([(script, ends(script)) for script in scripts])
        except (ValueError, TimeoutError):  # one is at fault: each by itself, and that one will say so
            return None
        return list(zip(scripts, parts, strict=True))

    template = ThreadPoolExecutor(1)
    try:
        for several, written in zip(groups, template.map(write, groups), strict=True):
            if written is not None:
                yield from written
                continue
            for messages in several:
                script = Script(messages, tokenizer)
                yield script, script.parts(ends(script))
    finally:
        template.shutdown(cancel_futures=True)  # after an error, nobody wants the rest


# ---- special tokens ------------------------------------------------------------------------------


def _with_hidden_signs(script: Script, tokenizer: Tokenizer, text: str, write: Callable[..., str]) -> str:
    """The text, in which no special token is spelled but those that the template wrote.

    Other signs stand for the ones that people wrote, one for one. Tags such as `</think>` that the
    template itself looks for stay as they are, unless they are special tokens or parts of one.
    """
    names = tokenizer.special_tokens
    told = [*texts_in(script.messages), *texts_in(script.tools), *texts_in(script.variables["documents"])]
    characters = set("".join(told))
    spelled = [name for name in names if characters.issuperset(name)]
    if not spelled:
        return text
    signs = sorted({sign for name in spelled for sign in re.findall(r"[^\w\s]", name) or name})
    taken = characters.union(text)
    unused = (chr(code) for code in _PRIVATE if chr(code) not in taken)
    others = dict(zip(signs, unused, strict=False))
    tags = {tag for tag in re.findall(r"</?\w+>", script.template) if not any(tag in name for name in names)}
    stays = re.compile("|".join(map(re.escape, sorted(tags))) or "(?!)")
    table = str.maketrans(others)

    def changed(words: str) -> str:
        done, parts = 0, []
        for tag in stays.finditer(words):
            parts += [words[done : tag.start()].translate(table), tag.group()]
            done = tag.end()
        return "".join(parts) + words[done:].translate(table)

    hidden = write(changed=changed)
    if hidden.translate(str.maketrans({other: sign for sign, other in others.items()})) != text:
        raise ValueError(_unseparable(script.messages, spelled))
    return hidden


def _unseparable(messages: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """What to say where a template changes what people wrote."""
    told = ["".join(texts_in(message)) for message in messages]
    found = [(i, name) for name in names for i, text in enumerate(told) if name in text]
    found += [(i, name) for name in names for i, text in enumerate(told) if set(text).issuperset(name)]
    where, name = (f"messages[{found[0][0]}]", found[0][1]) if found else ("the conversation", names[0])
    return (
        f"{where}: it holds the signs of the special token {name}, and the chat template changes what it says, so that "
        "the two cannot be told apart: leave these signs out"
    )


def _cutter(tokenizer: Tokenizer) -> Cut:
    return functools.partial(tokenizer.encode_with_offsets, add_special_tokens=False)


def _ids(text: str, specials: Sequence[Span], cut: Cut) -> tuple[list[int], list[Stretch]]:
    """The ids of a text, and where each stands."""
    ids: list[int] = []
    places: list[Stretch] = []

    def ordinary(start: int, end: int) -> None:
        found, offsets = cut(text[start:end])
        ids.extend(found)
        places.extend((start + low, start + high) for low, high in offsets)

    done = 0
    for span in specials:
        ordinary(done, span.start)
        assert span.id is not None
        ids.append(span.id)
        places.append((span.start, span.end))
        done = span.end
    ordinary(done, len(text))
    return ids, places


# ---- the assistant's words -----------------------------------------------------------------------


def _answer(i: int, introduced: str, answered: str, text: str, specials: Sequence[Span]) -> Stretch:
    """Where the message of an assistant stands in the text of the conversation, with the special
    token that ends it.

    introduced, answered: the conversation before the message, when the assistant's turn has been
    announced, and with it.
    """
    if not (answered.startswith(introduced) and text.startswith(answered)):
        raise ValueError(
            f"messages[{i}]: the chat template writes a conversation otherwise once more messages follow; "
            "the assistant's words can be found only where it is the last message"
        )
    start, end = len(introduced), len(answered)
    inside = [span.end for span in specials if start <= span.start and span.end <= end]
    if inside and not text[inside[-1] : end].strip():  # what follows the end of the turn is the template's
        end = inside[-1]
    return start, end
