"""How a conversation is written for a model: what its files say beside the vocabulary.

Of its templates (`files.chat_templates`) "default" and "tool_use" are known here.
``tokenizer_config.json`` also says which tokens a template calls ``bos_token``, ``eos_token`` and
so on. What to do with them: see the package ``chat``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_text
from ..files.chat_templates import CHAT_TEMPLATE, read_chat_templates, read_tokenizer_config


@dataclass(frozen=True)
class ChatFormat:
    """A chat template, and what it must know of the tokenizer."""

    template: str  # Jinja
    tool_template: str | None = None  # for conversations with tools, where it is another
    tokens: Mapping[str, str] = field(default_factory=dict)  # such as {"bos_token": "<s>"}

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the template into a model folder; returns what belongs into its
        ``tokenizer_config.json``.
        """
        if self.tool_template is None:
            write_text(folder / CHAT_TEMPLATE, self.template)
            return dict(self.tokens)
        named = {"default": self.template, "tool_use": self.tool_template}
        return {"chat_template": [{"name": name, "template": text} for name, text in named.items()], **self.tokens}


def read_chat_format(folder: Path) -> ChatFormat | None:
    """What a model folder says; None where it has no chat template.

    Raises ValueError, naming the file, when a template or a token is no text.
    """
    templates = read_chat_templates(folder)
    if "default" not in templates:
        return None
    config = read_tokenizer_config(folder)
    tokens = {name: _content(value) for name, value in config.items() if name.endswith("_token")}
    tokens = {name: value for name, value in tokens.items() if isinstance(value, str)}
    return ChatFormat(templates["default"], templates.get("tool_use"), tokens)


def _content(token: Any) -> Any:
    """A token is written as its name, or as a table with its settings."""
    return token.get("content") if isinstance(token, dict) else token
