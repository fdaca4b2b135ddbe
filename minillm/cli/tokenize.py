"""``minillm tokenize``: how a text is cut into tokens."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .computing import computing


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "tokenize",
        help="show how a text is cut into tokens",
        description="Show the tokens of a text with their ids and bytes, in colours where the output is a terminal "
        "and NO_COLOR is not set.",
    )
    p.add_argument("tokenizer", metavar="RUN_OR_FILE", help="a run folder or a tokenizer.json")
    p.add_argument("text", metavar="TEXT", help="the text to cut")
    p.add_argument(
        "--merges",
        "--lattice",
        action="store_true",
        help="show how each piece came about: BPE merge by merge; Unigram (T5) as a lattice, all pieces that fit into "
        "a word with their log-probabilities, the best way through it marked",
    )
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from ..tokenizer import load
    from ..tokenizer.show import render

    loaded = load(options.tokenizer)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    with computing(options, about=10):
        shown = render(loaded, options.text, merges=options.merges, color=color)
    print(shown)
    return 0
