"""Files that can be trusted: safetensors and JSON from strangers, and folders that appear whole or
not at all.

Read ``durable`` (what it takes until the disk has something), ``strict_json``, ``safetensors``,
``gguf`` with ``blocks``, then ``names`` (of folders, as people and shells read them) and
``strangers`` (what is not read, and the way on). Pickle, which runs the code that it finds, is read
nowhere.
"""

from .durable import (
    Pathlike,
    atomic_file,
    atomic_folder,
    atomic_update,
    durable_file,
    remove_folder,
    remove_stale,
    write_text,
)
from .gguf import GGUF, StoredBlocks, is_gguf, open_gguf, write_gguf
from .names import shell_path, shell_word, shown
from .safetensors import StoredTensor, open_safetensors, open_weights, read_safetensors, write_safetensors
from .strangers import about_adapters, about_pickles, about_the_hub, no_such_folder
from .strict_json import parse_json, read_json, read_json_lines, read_text, to_json, write_json

__all__ = [
    "GGUF",
    "Pathlike",
    "StoredBlocks",
    "StoredTensor",
    "about_adapters",
    "about_pickles",
    "about_the_hub",
    "atomic_file",
    "atomic_folder",
    "atomic_update",
    "durable_file",
    "is_gguf",
    "no_such_folder",
    "open_gguf",
    "open_safetensors",
    "open_weights",
    "parse_json",
    "read_json",
    "read_json_lines",
    "read_safetensors",
    "read_text",
    "remove_folder",
    "remove_stale",
    "shell_path",
    "shell_word",
    "shown",
    "to_json",
    "write_gguf",
    "write_json",
    "write_safetensors",
    "write_text",
]
