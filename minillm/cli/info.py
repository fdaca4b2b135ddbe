"""``minillm info``: what is in a folder, or in this installation."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "info",
        help="describe a model folder, or this installation",
        description="Describe a model folder: architecture, parameters by part, memory, tokenizer. Without one: "
        "versions, threads, and which way the matrix products take.",
    )
    p.add_argument(
        "folder", metavar="RUN", nargs="?", help="a run folder, or any model folder in Hugging Face's layout"
    )
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from . import report as info

    print(info.of_folder(options.folder) if options.folder else info.of_installation())
    return 0
