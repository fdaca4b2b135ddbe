"""From messages to the text that a model was trained on: `render`.

Each family of models marks who speaks in its own way, and a model understands only its own. How,
is a small program in the Jinja language, which comes with the model: its *chat template*. That of
SmolLM2 writes a conversation like this (the form is called ChatML):

    <|im_start|>user
    Who has the red ball?<|im_end|>
    <|im_start|>assistant
    Mia has it.<|im_end|>

`add_generation_prompt` ends the text with `<|im_start|>assistant`: now it is the model's turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..tokenizer import Tokenizer
from .messages import Messages, checked
from .sandbox import Rendered, Sandbox

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The chat template of models that are tuned here: SmolLM2's, without a system message of its own.
"""

_CONTINUE = "\u2060CONTINUE\u2060 "  # where a message ends that is to be continued; the space shows who trims
_sandbox = Sandbox()  # one child process serves all templates


def render(
    messages: Messages,
    tokenizer: Tokenizer,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    template: str | None = None,
    **variables: Any,
) -> str:
    """The text of a conversation, as `transformers` renders it.

    messages: see messages.py. add_generation_prompt: end with what introduces the assistant's
    answer. continue_final_message: end within the last message, so that a model goes on with it.
    tools: JSON schemas of functions, for templates that know tools. template: Jinja; None: the one
    of the tokenizer's folder, `tokenizer.chat_format`. variables: other names that the template
    asks for, such as `documents` or `date_string`.

    Raises ValueError for messages that are no conversation, or that the template refuses, with the
    index of the message; and when there is no template, or it takes too much time or memory.
    """
    if continue_final_message and add_generation_prompt:
        raise ValueError("render: the final message is continued, or the next one introduced, not both")
    script = Script(messages, tokenizer, tools, template, variables)
    return script.continued() if continue_final_message else script.text(add_generation_prompt)


End = tuple[int, bool]  # of a beginning of a conversation: how many messages; is the assistant's answer introduced?


class Script:
    """A conversation and the template that will write it."""

    def __init__(
        self,
        messages: Messages,
        tokenizer: Tokenizer,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self.messages = checked(messages)
        chat_format = tokenizer.chat_format
        if template is None:
            if chat_format is None:
                raise ValueError(
                    "the model folder has no chat template: it was not made for conversations; a text of your own "
                    "can be given as template="
                )
            template = chat_format.tool_template if tools and chat_format.tool_template else chat_format.template
        self.template = template
        self.tools = None if tools is None else [dict(tool) for tool in tools]
        self.variables = {**_token_names(tokenizer), "documents": None, **(variables or {})}

    def text(self, add_generation_prompt: bool = False, changed: Callable[[str], str] = str) -> str:
        """All of it."""
        return self.parts([(len(self.messages), add_generation_prompt)], changed)[0].text

    def continued(self, changed: Callable[[str], str] = str) -> str:
        """All of it, up to where the last message ends."""
        where = f"messages[{len(self.messages) - 1}]"
        final = self.messages[-1]
        if not isinstance(final.get("content"), str):
            raise ValueError(f"{where}: only a content that is a text can be continued")
        self.messages[-1] = final | {"content": final["content"] + _CONTINUE}
        try:
            text = self.text(False, changed)
        finally:
            self.messages[-1] = final
        before, found, after = text.rpartition(_CONTINUE.strip())
        if not found:
            raise ValueError(f"{where}: it cannot be continued, the chat template does not show its content")
        return before if after.startswith(" ") else before.rstrip()

    def parts(self, ends: Sequence[End], changed: Callable[[str], str] = str) -> list[Rendered]:
        """The beginnings of the conversation.

        changed: what becomes of every text that the messages, tools and documents hold.
        """
        try:
            return _sandbox.render(self.template, self.requests(ends, changed))
        except ValueError as error:
            raise ValueError(f"{self._refused(*ends[0])}{error}") from None

    def requests(self, ends: Sequence[End], changed: Callable[[str], str] = str) -> list[dict[str, Any]]:
        """What the template is given for each of the beginnings; an empty one says hello."""
        told = {"messages": self.messages, "tools": self.tools, "documents": self.variables["documents"]}
        told = {**self.variables, **with_texts(told, changed)}
        beginnings = [told | {"messages": told["messages"][:count] or HELLO} for count, _ in ends]
        return [told | {"add_generation_prompt": prompt} for told, (_, prompt) in zip(beginnings, ends, strict=True)]

    def _refused(self, count: int, prompt: bool) -> str:
        """Which message a template does not want, for the error: the one after the last with which
        all was well.
        """
        for i in reversed(range(count)):
            try:
                _sandbox.render(self.template, self.requests([(i, prompt)]))
            except ValueError:
                continue
            return f"messages[{i}]: "
        return ""


def parts_of(scripts: Sequence[tuple[Script, Sequence[End]]]) -> list[list[Rendered]]:
    """`Script.parts` of several conversations with one template, in one request.

    Raises ValueError and TimeoutError, as `Sandbox.render` does, without saying which is at fault.
    """
    written = [request for script, ends in scripts for request in script.requests(ends)]
    rendered = iter(_sandbox.render(scripts[0][0].template, written))
    return [[next(rendered) for _ in ends] for _, ends in scripts]


HELLO = [{"role": "user", "content": "Hello!"}]  # which no template refuses


def with_texts(value: Any, changed: Callable[[str], str]) -> Any:
    """A value as JSON holds it, with all its texts changed, names of entries included."""
    if isinstance(value, str):
        return changed(value)
    if isinstance(value, Mapping):
        return {changed(name): with_texts(item, changed) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_texts(item, changed) for item in value]
    return value


def _token_names(tokenizer: Tokenizer) -> dict[str, str]:
    """Special tokens under the names that templates have for them."""
    named = {} if tokenizer.chat_format is None else dict(tokenizer.chat_format.tokens)
    if tokenizer.eos_id is not None:
        named.setdefault("eos_token", tokenizer.token_bytes(tokenizer.eos_id).decode("utf-8", "replace"))
    return named
