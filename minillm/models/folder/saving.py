"""Writing a model folder: any object with a configuration and a ``state_dict`` will do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ... import files
from ...nn import Module
from . import gguf

CONFIG = "config.json"
OWN_MODEL = "own"  # model_type of a class that is not ours: its weights and its name are kept, nothing more
COMPANIONS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
)


def read_chat_template(folder: files.Pathlike) -> str | None:
    """Return the chat template of a model folder, or None: ``chat_template.jinja``, or in
    ``tokenizer_config.json``; or that of a GGUF file.
    """
    folder = Path(folder)
    if files.is_gguf(folder):
        return gguf.chat_template(files.open_gguf(folder))
    if (folder / "chat_template.jinja").exists():
        return files.read_text(folder / "chat_template.jinja")
    if not (folder / "tokenizer_config.json").exists():
        return None
    template = files.read_json(folder / "tokenizer_config.json", limit=10_000_000).get("chat_template")
    if isinstance(template, list):  # several, each with a name
        named = [item for item in template if isinstance(item, dict) and item.get("name") == "default"]
        template = named[0].get("template") if named else template
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{folder / 'tokenizer_config.json'}: chat_template must be a text")
    return template


# ---- writing -------------------------------------------------------------------------------------


def save_pretrained(
    model: Any,
    folder: files.Pathlike,
    *,
    tokenizer: Any = None,
    generation_config: Any = None,
    chat_template: str | None = None,
    model_card: str | None = None,
    keep_from: files.Pathlike | None = None,
    config_fields: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder that ``transformers`` and ``from_pretrained`` open.

    model: anything with a ``state_dict`` and, as `LanguageModel` has it, a configuration; without
    one config.json says which class it was. tokenizer: anything with ``save(folder)``.
    generation_config: a mapping, or an object with ``to_dict()``. chat_template: text of a Jinja
    template. model_card: text of README.md.
    keep_from: a model folder (the one the model was tuned from) whose tokenizer, generation
    settings and chat template are taken over as they are, where not given. config_fields: values of
    fields that the model's configuration has, where the training knows better.

    A new folder appears whole or not at all. In a folder that exists, other files stay, and whoever
    opens it, after a crash too, finds the old model, the new one or none. Raises OSError when the
    disk fails.
    """
    folder = Path(folder)
    writing = files.atomic_update(folder, commit=CONFIG) if folder.is_dir() else files.atomic_folder(folder)
    with writing as into:
        state = model.plain_state() if isinstance(model, Module) else model.state_dict()
        dtypes = {str(array.dtype) for array in state.values()}
        config = _config_of(model) | ({"dtype": dtypes.pop()} if len(dtypes) == 1 else {})
        config |= {name: value for name, value in (config_fields or {}).items() if name in config}
        files.write_json(into / CONFIG, config)
        files.write_safetensors(into / "model.safetensors", state)
        if tokenizer is not None:
            tokenizer.save(into)
        if generation_config is not None:
            fields = generation_config if isinstance(generation_config, Mapping) else generation_config.to_dict()
            # transformers looks here, and no longer into config.json, for how a decoder begins
            is_encoder_decoder = getattr(model, "is_encoder_decoder", False)
            begin = ("decoder_start_token_id", "pad_token_id") if is_encoder_decoder else ()
            files.write_json(into / "generation_config.json", {name: config[name] for name in begin} | dict(fields))
        if keep_from is not None:
            _take_over(Path(keep_from), into)
            chat_template = read_chat_template(keep_from) if chat_template is None else chat_template
        if chat_template is not None:
            files.write_text(into / "chat_template.jinja", chat_template)
        if model_card is not None:
            files.write_text(into / "README.md", model_card)


def _config_of(model: Any) -> dict[str, Any]:
    """The fields of ``config.json``."""
    if hasattr(model, "config_dict") and getattr(model, "config", None) is not None:
        return model.config_dict()
    return {"model_type": OWN_MODEL, "class": f"{type(model).__module__}.{type(model).__qualname__}"}


def _take_over(source: Path, into: Path) -> None:
    """Copy the companions of a model that were not written anew."""
    for name in COMPANIONS:
        if (source / name).is_file() and not os.path.exists(into / name):
            shutil.copyfile(source / name, into / name)
