"""``minillm quantize``: a model in a quarter of the memory."""

from __future__ import annotations

import argparse
from typing import Any

from .computing import add_threads, computing
from .parser import add_ignore_unknown, in_words_of_the_command
from .terminal import say
from .values import name_of_something, positive


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "quantize",
        help="make a model four times smaller: weights in one byte",
        description="Round the weights of a model to int8, and write it to another folder, which every other command "
        "opens. Tells what that changes: the perplexity, on --data or on what the run was validated with, and the "
        "error of each matrix, with a picture where matplotlib is installed.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, any folder in Hugging Face's layout, or a GGUF file")
    p.add_argument("--out", type=name_of_something, metavar="FOLDER", help="the folder to make; default: RUN-int8")
    p.add_argument(
        "--data",
        type=name_of_something,
        metavar="PATH",
        help="a UTF-8 text file or a folder of .txt files to measure on",
    )
    p.add_argument("--context", type=positive(), metavar="N", help="tokens in a row; default: all that the model sees")
    add_ignore_unknown(p)
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from ..files import shell_path
    from ..training.quantize_run import quantize_folder

    with computing(options), in_words_of_the_command({"context": "--context"}):
        report = quantize_folder(
            options.folder,
            options.out,
            data=options.data,
            context=options.context,
            ignore_unknown=options.ignore_unknown,
        )
    print(report)
    if (picture := report.path / "quantization.png").exists():
        say(f"the error of each matrix: {shell_path(picture)}")
    if report.before is None:
        say("perplexity was not measured: give a text with --data")
    return 0
