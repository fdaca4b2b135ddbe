"""How a conversation is written for a model: what its files say beside the vocabulary.

A folder holds a Jinja template in ``chat_template.jinja``, or in ``tokenizer_config.json`` under
``chat_template``: one text, or several with names, of which "default" and "tool_use" are known.
``tokenizer_config.json`` also says which tokens the template calls ``bos_token``, ``eos_token`` and
so on. What to do with them: see the package ``chat``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import read_json, read_text, write_text

FILE, TOOL_FILE = "chat_template.jinja", "additional_chat_templates/tool_use.jinja"


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
            write_text(folder / FILE, self.template)
            return dict(self.tokens)
        named = {"default": self.template, "tool_use": self.tool_template}
        return {"chat_template": [{"name": name, "template": text} for name, text in named.items()], **self.tokens}


def read_chat_format(folder: Path) -> ChatFormat | None:
    """What a model folder says; None where it has no chat template.

    Raises ValueError, naming the file, when a template or a token is no text.
    """
    file = folder / "tokenizer_config.json"
    config = read_json(file, limit=10_000_000) if file.is_file() else {}
    templates = _named(config.get("chat_template"), file)
    for name, path in (("default", folder / FILE), ("tool_use", folder / TOOL_FILE)):
        if path.is_file():
            templates[name] = read_text(path)
    if "default" not in templates:
        return None
    tokens = {name: _content(value) for name, value in config.items() if name.endswith("_token")}
    tokens = {name: value for name, value in tokens.items() if isinstance(value, str)}
    return ChatFormat(templates["default"], templates.get("tool_use"), tokens)


def _named(value: Any, file: Path) -> dict[str, str]:
    """Templates by name: a text alone is the default."""
    if value is None:
        return {}
    items = value if isinstance(value, list) else [{"name": "default", "template": value}]
    found = {}
    for item in items:
        name, template = (item.get("name"), item.get("template")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(template, str):
            raise ValueError(f"{file}: chat_template must be a text, or a list of texts with names")
        found[name] = template
    return found


def _content(token: Any) -> Any:
    """A token is written as its name, or as a table with its settings."""
    return token.get("content") if isinstance(token, dict) else token
