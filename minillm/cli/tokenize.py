"""``minillm tokenize``: how a text is cut into tokens."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from .computing import computing
from .terminal import say


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "tokenize",
        help="show how a text is cut into tokens",
        description="Show the tokens of a text with their ids and bytes, in colours where the output is a terminal "
        "and NO_COLOR is not set. Or those of conversations, and which of them a model learns.",
    )
    p.add_argument("tokenizer", metavar="RUN_OR_FILE", help="a run folder or a tokenizer.json")
    p.add_argument("text", metavar="TEXT", nargs="?", help="the text to cut")
    p.add_argument(
        "--merges",
        "--lattice",
        action="store_true",
        help="show how each piece came about: BPE merge by merge; Unigram (T5) as a lattice, all pieces that fit into "
        "a word with their log-probabilities, the best way through it marked",
    )
    p.add_argument(
        "--chat",
        metavar="FILE",
        help='a JSONL file, on each line {"messages": [{"role": ..., "content": ...}]}: show its conversations as '
        "tokens, those that a model learns in green (or in brackets)",
    )
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from ..tokenizer import load
    from ..tokenizer.show import render

    if (options.text is None) == (options.chat is None):
        what = "TEXT is missing" if options.text is None else "two things to cut"
        raise ValueError(f"{what}: give a text, or --chat FILE")
    if options.chat is not None and options.merges:
        raise ValueError("--merges is for a text, not for --chat")
    loaded = load(options.tokenizer)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    with computing(options, about=10):
        if options.chat is None:
            shown = render(loaded, options.text, merges=options.merges, color=color)
        else:
            from ..chat import sft, show

            if loaded.chat_format is None:
                say(f"[{options.tokenizer} has no chat template: shown in ChatML, as minillm sft would teach it]")
            conversations = sft.read_conversations(options.chat)
            marked = sft.with_marks(loaded, conversations)
            encoded = sft.encode_all(conversations, marked, options.chat)
            shown = "\n\n".join(show.show_mask(marked, one, color) for one in encoded)
    print(shown)
    return 0
