"""``minillm eval``: how well a model foretells a text."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .computing import add_threads, computing
from .parser import add_ignore_unknown, in_words_of_the_command
from .sft import examined_on
from .terminal import say
from .values import name_of_something, positive


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "eval",
        help="measure a model on a text",
        description="Print loss, perplexity, bits per byte and tokens per second; without --data for a run on made-up "
        "stories, on its validation stories, against their exact floor; for a run of minillm sft on made-up "
        "conversations, how many of its answers are right.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, any folder in Hugging Face's layout, or a GGUF file")
    p.add_argument(
        "--data",
        type=name_of_something,
        metavar="PATH",
        help="a UTF-8 text file, a folder of .txt files, or of what minillm encode made",
    )
    p.add_argument("--context", type=positive(), metavar="N", help="tokens in a row; default: all that the model sees")
    p.add_argument("--batch-size", type=positive(), default=16, metavar="N", help="rows in a batch; default 16")
    p.add_argument(
        "--by-choice", action="store_true", help="for a run on made-up stories: nats above the floor by kind of word"
    )
    add_ignore_unknown(p)
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from tqdm import tqdm

    from ..chat import report
    from ..training.by_choice import by_choice, table
    from ..training.evaluate import evaluate
    from ..training.evaluation_data import evaluation_data, seen_at_once, validation_stories
    from ..training.run import load_run

    if options.by_choice and options.data is not None:
        raise ValueError("--by-choice is about the run's own validation stories; leave --data out")
    with computing(options, about=30):
        loaded = load_run(options.folder, options.ignore_unknown, stored=True)
        if options.by_choice:
            print(table(by_choice(loaded.model, loaded.tokenizer, validation_stories(options.folder))))
            return 0
        if options.data is None and (talks := examined_on(options.folder)):
            print(report.table(now=report.measure(loaded.model, loaded.tokenizer, talks)))
            return 0
        with in_words_of_the_command({"context": "--context"}):
            context = seen_at_once(loaded.model, options.context)
        data, floor = evaluation_data(options.folder, options.data, loaded.tokenizer, context, options.batch_size)
        progress = tqdm(list(data), unit="batch", disable=not sys.stderr.isatty(), leave=False)
        result = evaluate(loaded.model, progress, tokenizer=loaded.tokenizer, floor=floor)
    print(result.table())
    floor_says = "; the floor is the least that any model can reach" if result.floor is not None else ""
    say(f"[loss in nats per token; perplexity: as unsure as between so many equally likely tokens{floor_says}]")
    return 0
