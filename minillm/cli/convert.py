"""``minillm convert``: GGUF files and model folders into each other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .parser import add_ignore_unknown
from .terminal import say
from .values import Choice


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "convert",
        help="turn a GGUF file into a model folder, or back",
        description="FILE.gguf FOLDER: write a folder in Hugging Face's layout, float32, with tokenizer, chat template "
        "and generation settings. FOLDER FILE.gguf: write a file that llama.cpp opens.",
    )
    p.add_argument("source", metavar="FROM", help="a GGUF file (any part of several), or a run or model folder")
    p.add_argument("out", metavar="TO", help="the folder, or the file ending in .gguf, to make")
    p.add_argument(
        "--type", default="f16", type=Choice(("f32", "f16", "q8_0")), metavar="KIND",
        help="numbers of the matrices in a GGUF file: f32, f16 or q8_0 (a byte a weight); default f16",
    )  # fmt: skip
    add_ignore_unknown(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from .. import files
    from ..training.convert import to_file, to_folder

    if not Path(options.source).exists():
        raise FileNotFoundError(f"convert: there is no file and no folder {options.source}")
    if files.is_gguf(options.source):
        to_folder(options.source, options.out, options.ignore_unknown)
        how = f"minillm generate {files.shell_path(Path(options.out))} TEXT"
    elif options.out.endswith(".gguf"):
        to_file(options.source, options.out, options.type, options.ignore_unknown)
        how = f"minillm info {files.shell_path(Path(options.out))}"
    else:
        raise ValueError(
            f"convert: one of the two must be a GGUF file: FILE.gguf FOLDER, or FOLDER FILE.gguf; "
            f"got {options.source} and {options.out}"
        )
    say(f"{options.out} is written; see: {how}")
    return 0
