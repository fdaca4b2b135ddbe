"""``minillm sft``: a model that continues texts becomes one that answers and stops."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .computing import add_threads, computing
from .terminal import say
from .values import between, name_of_something, positive, seed

TRAINED, EXAMINED = 6000, 200  # conversations of the embedded corpus
STEPS, PASSES = 500, 3  # from these conversations; over a file of others

NUMBERS = (  # option, its type, its default, what it is
    ("--steps", positive(), None, "batches to learn from; default 500, or 3 passes over --data"),
    ("--batch-size", positive(), 32, "conversations in a batch; default 32"),
    ("--learning-rate", between(0, 1000), 2e-3, "at its highest; default 0.002"),
    ("--seed", seed, 0, "of the data and its order; default 0"),
)


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "sft",
        help="fine-tune a model on conversations: it learns to answer, to obey and to stop",
        description="Supervised fine-tuning: train a model on conversations, of which the assistant's words are "
        "learned. With no --data: on made-up conversations with exact answers, measured before and after on held-out "
        "ones.",
    )
    p.add_argument(
        "folder", metavar="RUN", help="the run folder, or model folder in Hugging Face's layout, to begin with"
    )
    p.add_argument(
        "--data",
        type=name_of_something,
        metavar="FILE",
        help='a JSONL file, on each line {"messages": [{"role": ..., "content": ...}]}',
    )
    p.add_argument(
        "--out", type=name_of_something, metavar="RUN", help="the run folder to make; default: RUN-chat, RUN-chat-2 ..."
    )
    for name, kind, default, what in NUMBERS:
        p.add_argument(name, type=kind, default=default, metavar="N" if kind.kind is int else "X", help=what)
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    with computing(options, about=60):
        return _tune(options)


def _tune(options: argparse.Namespace) -> int:
    from .. import data
    from ..chat import report, sft
    from ..chat.dataset import ChatDataset
    from ..files import shell_path
    from ..training.config import TrainConfig
    from ..training.run import Run, load_run
    from ..training.trainer import Trainer

    out = Path(options.out) if options.out else free_name(Path(options.folder), "chat")
    Run.refuse_existing(out)
    loaded = load_run(options.folder)
    tokenizer = sft.with_marks(loaded.tokenizer)
    examined = None
    if options.data is None:
        say("making up conversations")
        train, examined = data.chats(TRAINED, options.seed), data.chats(EXAMINED, options.seed + 1, "test")
        learned, held_out = (sft.encode_all([chat.messages for chat in part], tokenizer) for part in (train, examined))
        about = f"{len(train):,} conversations made up by minillm (seed {options.seed})"
    else:
        encoded = sft.encode_all(sft.read_conversations(options.data), tokenizer, options.data)
        tenth = max(1, len(encoded) // 10)
        learned, held_out = encoded[tenth:] or encoded, encoded[:tenth]
        about = f"{Path(options.data).name}: {len(encoded):,} conversations"
    model = sft.with_rows(loaded.model, tokenizer, {id for encoded in learned for id in encoded.ids})
    dataset = ChatDataset(learned, held_out, model.context)
    usual = STEPS if examined else max(1, PASSES * len(learned) // options.batch_size)
    steps = usual if options.steps is None else options.steps
    if dataset.left_out:
        count = f"{dataset.left_out:,} conversation{'s' * (dataset.left_out != 1)}"
        say(f"left out: {count} without an answer, or longer than {model.context} tokens")
    config = TrainConfig(
        steps=steps, batch_size=options.batch_size, learning_rate=options.learning_rate, betas=(0.9, 0.95),
        final_fraction=0.03, seed=options.seed, evaluate_every=max(1, steps // 5),
        checkpoint_every=max(1, steps),
    )  # fmt: skip
    before = report.measure(model, tokenizer, examined) if examined else None
    run = Run.create(out, about=about)
    sft.generation_config(tokenizer).save(run.path)
    floor = data.chat_floor(examined, dataset.validation_tokens) if examined else None
    result = Trainer(model, dataset, config, tokenizer=tokenizer, run=run, floor=floor).run()
    if result.stopped != "finished":
        return 130 if result.stopped == "Ctrl-C" else 143
    if examined and before:
        print(report.table(before, report.measure(model, tokenizer, examined)))
    say(f"\na chat model: {shell_path(run.path)}")
    return 0


def free_name(base: Path, what: str) -> Path:
    """BASE-chat, or BASE-chat-2, -3 ... where that exists."""
    path, number = base.with_name(f"{base.name}-{what}"), 2
    while path.exists():
        path, number = base.with_name(f"{base.name}-{what}-{number}"), number + 1
    return path
