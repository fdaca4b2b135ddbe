"""What a conversation is: a list of messages, each with a role and a content.

    [{"role": "system", "content": "Answer in French."},
     {"role": "user", "content": "Hello!"},
     {"role": "assistant", "content": "Bonjour !"}]

This is the form of OpenAI's interface, and of the data sets of `trl`. The content is a text, or a
list of parts `{"type": "text", "text": ...}`. An assistant may call tools instead of speaking
(`tool_calls`); a message of the role `tool` brings what a tool returned. Other entries of a message
are for the template, and must be what JSON can hold.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
Messages = Sequence[Message]

ROLES = ("system", "developer", "user", "assistant", "tool")
MOST_MESSAGES = 10_000


def checked(messages: Messages) -> list[dict[str, Any]]:
    """The messages as plain tables, without entries that are None.

    Raises ValueError, with the index of the message, for what is no conversation.

    >>> checked([{"role": "user", "content": "Hello!"}, {"role": "assistant"}])
    Traceback (most recent call last):
        ...
    ValueError: messages[1]: it has no content
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise ValueError(f"messages must be a list of tables with role and content; got {type(messages).__name__}")
    if not 1 <= len(messages) <= MOST_MESSAGES:
        raise ValueError(f"messages must hold 1 to {MOST_MESSAGES:,} messages; got {len(messages)}")
    return [_checked(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _checked(message: Message, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ValueError(f"{where} must be a table with role and content; got {type(message).__name__}")
    plain = {name: value for name, value in message.items() if value is not None}
    role = plain.get("role")
    if role not in ROLES:
        near = difflib.get_close_matches(str(role), ROLES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where}: role must be one of {', '.join(ROLES)}; got {role!r:.60}{hint}")
    calls = plain.get("tool_calls")
    if calls is not None:
        _check_calls(role, calls, where)
    if "content" in plain:
        _check_content(plain["content"], where)
    elif not calls:
        raise ValueError(f"{where}: it has no content")
    try:
        return json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{where} must hold only what JSON can: {error}") from None


def _check_content(content: Any, where: str) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list | tuple):
        raise ValueError(f"{where}: content must be a text, or a list of text parts; got {type(content).__name__}")
    for i, part in enumerate(content):
        is_text = isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)
        if not is_text:
            raise ValueError(f'{where}: content[{i}] must be {{"type": "text", "text": ...}}; got {part!r:.60}')


def _check_calls(role: str, calls: Any, where: str) -> None:
    if role != "assistant":
        raise ValueError(f"{where}: only an assistant calls tools; got tool_calls of the role {role}")
    if not isinstance(calls, list | tuple):
        raise ValueError(f"{where}: tool_calls must be a list; got {type(calls).__name__}")
    for i, call in enumerate(calls):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(
                f'{where}: tool_calls[{i}] must be {{"function": {{"name": ..., "arguments": ...}}}}; got {call!r:.60}'
            )


def texts_in(value: Any) -> Iterator[str]:
    """Every text in a value as JSON holds it, names of entries included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from texts_in(item)
