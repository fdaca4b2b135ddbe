"""From a GGUF file to a folder in Hugging Face's layout, and back.

to_folder("model.gguf", "folder")                 float32, with tokenizer, chat template and settings
to_file("folder", "model.gguf", kind="q8_0")      what llama.cpp opens
"""  # noqa: W505

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from .. import files
from ..models.folder import gguf
from ..models.folder.saving import read_chat_template, save_pretrained
from ..models.folder.to_gguf import to_gguf
from ..tokenizer.from_gguf import to_settings
from .run import LoadedRun, load_run

__all__ = ["save_opened", "to_file", "to_folder"]


def to_folder(source: files.Pathlike, folder: files.Pathlike, ignore_unknown: Collection[str] = ()) -> None:
    """Write a GGUF file as a model folder that ``transformers`` opens, whole or not at all.

    Raises FileExistsError when the folder is there, ValueError when the file is no GGUF file, is
    damaged, or holds what is not implemented.
    """
    if not files.is_gguf(source):
        raise ValueError(f"{source}: is no GGUF file")
    _refuse_existing(folder)
    file = files.open_gguf(source)
    loaded = load_run(file, ignore_unknown)
    with files.atomic_folder(folder) as into:
        save_opened(loaded.model, into, file, loaded.tokenizer)


def save_opened(model: Any, folder: Path, source: files.Pathlike, tokenizer: Any) -> None:
    """Write a model with all that the GGUF file that it came from says besides."""
    file = files.open_gguf(source)
    fields, template = gguf.generation_fields(file), gguf.chat_template(file)
    save_pretrained(model, folder, tokenizer=tokenizer, generation_config=fields, chat_template=template)
    names = file.settings["tokenizer.ggml.tokens"]
    config = files.read_json(folder / "tokenizer_config.json")
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        id = file.settings.get(f"tokenizer.ggml.{key}_token_id")
        if type(id) is int and 0 <= id < len(names):
            config[f"{name}_token"] = names[id]
    config["model_max_length"] = model.context
    if template is not None:
        config["chat_template"] = template  # older readers look here
    files.write_json(folder / "tokenizer_config.json", config)


def to_file(
    folder: files.Pathlike, out: files.Pathlike, kind: str = "f16", ignore_unknown: Collection[str] = ()
) -> None:
    """Write a model folder as a GGUF file.

    kind: of the matrices, f32, f16 or q8_0. Raises FileExistsError when the file is there,
    ValueError for a model or a tokenizer that llama.cpp does not know.
    """
    _refuse_existing(out)
    loaded = load_run(folder, ignore_unknown)
    settings, tensors, kinds = to_gguf(loaded.model, kind)
    settings["general.name"] = Path(folder).resolve().name
    settings |= to_settings(loaded.tokenizer, loaded.model.config.vocab_size) | _ends(loaded)
    template = read_chat_template(folder)
    if template is not None:
        settings["tokenizer.chat_template"] = template
    files.write_gguf(out, settings, tensors, kinds)


def _ends(loaded: LoadedRun) -> dict[str, int]:
    """Where a text begins and ends, as settings."""
    generation, found = loaded.generation, {}
    ends = generation.eos_token_id or (() if loaded.tokenizer.eos_id is None else (loaded.tokenizer.eos_id,))
    all_ends = dict.fromkeys((*ends, *(generation.end_of_turn_token_id or ())))
    for name, id in zip(("eos", "eot", "eom"), all_ends, strict=False):
        found[f"tokenizer.ggml.{name}_token_id"] = id
    for name, id in (("bos", generation.bos_token_id), ("padding", generation.pad_token_id)):
        if id is not None:
            found[f"tokenizer.ggml.{name}_token_id"] = id
    return found


def _refuse_existing(path: files.Pathlike) -> None:
    if Path(path).exists():
        raise FileExistsError(f"{path}: exists already, and nothing is overwritten: choose another name")
