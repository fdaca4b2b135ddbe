"""The chat templates of a model folder, Jinja texts with names: "default", and "tool_use" and
others where a folder has several.

One is in ``chat_template.jinja``, further ones in ``additional_chat_templates/NAME.jinja``. Older
folders have them in ``tokenizer_config.json`` under ``chat_template``: one text, or a list of
texts with names. What has a file of its own counts more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .durable import Pathlike
from .strict_json import read_json, read_text

__all__ = ["CHAT_TEMPLATE", "TOKENIZER_CONFIG", "read_chat_templates", "read_tokenizer_config"]

CHAT_TEMPLATE, MORE = "chat_template.jinja", "additional_chat_templates"
TOKENIZER_CONFIG = "tokenizer_config.json"


def read_chat_templates(folder: Pathlike) -> dict[str, str]:
    """The templates of a folder, by name; none where it says nothing of conversations.

    Raises ValueError, naming the file, when one is no text.
    """
    folder = Path(folder)
    found = _named(read_tokenizer_config(folder).get("chat_template"), folder / TOKENIZER_CONFIG)
    files = {path.stem: path for path in sorted((folder / MORE).glob("*.jinja"))} | {"default": folder / CHAT_TEMPLATE}
    return found | {name: read_text(path) for name, path in files.items() if path.is_file()}


def read_tokenizer_config(folder: Pathlike) -> dict[str, Any]:
    """``tokenizer_config.json``; empty where there is none."""
    file = Path(folder) / TOKENIZER_CONFIG
    return read_json(file, limit=10_000_000) if file.is_file() else {}


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
