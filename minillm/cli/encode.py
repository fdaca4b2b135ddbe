"""``minillm encode``: a large text becomes token ids on the disk."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .computing import add_threads, computing
from .terminal import bytes_bar, say
from .values import between, name_of_something, whole


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "encode",
        help="turn a large text into token ids on the disk, to train on",
        description="Encode a text of any size into a folder of token ids, which minillm train --data reads from the "
        "disk as it needs them. Neither command ever holds the whole text in memory.",
    )
    p.add_argument("text", metavar="TEXT", type=name_of_something, help="a UTF-8 text file or a folder of .txt files")
    p.add_argument("out", metavar="FOLDER", type=name_of_something, help="the folder to make")
    p.add_argument(
        "--tokenizer",
        metavar="RUN_OR_FILE",
        type=name_of_something,
        help="a run folder or a tokenizer.json; default: a new one",
    )
    p.add_argument(
        "--vocab-size", type=whole(257, 10_000_000), metavar="N", help="tokens of the new tokenizer; default 1024"
    )
    p.add_argument(
        "--validation", type=between(1e-6, 0.5), default=0.1, metavar="X", help="the share held out; default 0.1"
    )
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from .. import data
    from ..files import shell_path
    from ..tokenizer import BPETokenizer, load

    if options.tokenizer is not None and options.vocab_size is not None:
        raise ValueError("--vocab-size is for a new tokenizer: leave it out, or leave --tokenizer out")
    files, out = data.text_files(options.text), Path(options.out)
    if out.exists():
        raise FileExistsError(f"{out} exists already, and nothing in it is overwritten: choose another name")
    size = sum(file.stat().st_size for file in files)
    with computing(options, about=20):
        if options.tokenizer is not None:
            tokenizer = load(options.tokenizer)
        else:
            with bytes_bar("reading", size) as bar:
                parts = data.corpus_parts(files, options.validation, progress=bar.update)
                texts = (part.text for part in parts if not part.held_out)
                tokenizer = BPETokenizer.train(texts, 1024 if options.vocab_size is None else options.vocab_size)
            say(f"learned {tokenizer.vocab_size:,} tokens")
        with bytes_bar("encoding", size) as bar:
            train, held_out = data.encode_files(files, out, tokenizer, options.validation, progress=bar.update)
    say(
        f"{out}: {train:,} tokens to train on, {held_out:,} held out, {size / (train + held_out):.2f} bytes per token\n"
        f"more: minillm train --data {shell_path(out)}"
    )
    return 0
