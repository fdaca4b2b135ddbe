"""``minillm dpo``: a model that answers learns which of two answers people prefer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .computing import add_threads, computing
from .sft import free_name
from .terminal import say
from .values import Choice, between, name_of_something, positive, seed

TRAINED, EXAMINED = 1500, 200  # pairs of the embedded corpus
STEPS, PASSES = 60, 3  # from these pairs; over a file of others
METHODS = ("dpo", "orpo")

NUMBERS = (  # option, its type, its default, what it is
    ("--beta", between(0, 1000), 0.1, "how much a reward counts; default 0.1"),
    ("--steps", positive(), None, f"batches to learn from; default {STEPS}, or {PASSES} passes over --data"),
    ("--batch-size", positive(), 16, "pairs in a batch; default 16"),
    ("--learning-rate", between(0, 1000), 2e-4, "at its highest; default 0.0002"),
    ("--seed", seed, 0, "of the data and its order; default 0"),
)


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "dpo",
        help="teach a chat model which of two answers is preferred",
        description="Learning from preferences: of two answers to a prompt, the chosen one becomes more likely than "
        "the rejected one. With no --data: short answers are preferred to whole sentences, measured before and after "
        "on held-out pairs.",
    )
    p.add_argument("folder", metavar="RUN", help="the run folder, or model folder, of the chat model to begin with")
    p.add_argument(
        "--data",
        type=name_of_something,
        metavar="FILE",
        help='a JSONL file, on each line {"prompt": ..., "chosen": ..., "rejected": ...}: texts, or lists of messages',
    )
    p.add_argument(
        "--method",
        type=Choice(METHODS),
        default="dpo",
        help="dpo, which stays near the model at the beginning, or orpo, which needs none; default: dpo",
    )
    p.add_argument(
        "--out", type=name_of_something, metavar="RUN", help="the run folder to make; default: RUN-dpo, RUN-dpo-2 ..."
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
    import copy

    from ..data.chat_preferences import Preference, preferences
    from ..files import shell_path
    from ..finetune.pairs import encode_pairs, prompt_ids, read_preferences
    from ..finetune.preference_report import measure, table
    from ..finetune.preferences import PreferenceDataset, preference_loss
    from ..training.config import TrainConfig
    from ..training.run import Run
    from ..training.start import open_start
    from ..training.trainer import Trainer

    out = Path(options.out) if options.out else free_name(Path(options.folder), options.method)
    Run.refuse_existing(out)
    loaded = open_start(options.folder)
    reference, tokenizer = loaded.model, loaded.tokenizer
    known: list[Preference] = []
    if options.data is None:
        if tokenizer.chat_format is None:
            raise ValueError(
                f"{options.folder} has no chat template: teach it to answer first, with: minillm sft "
                f"{shell_path(options.folder)}"
            )
        learned, known = preferences(TRAINED, options.seed), preferences(EXAMINED, options.seed + 1, "test")
        parts = [[pair._asdict() for pair in part] for part in (learned, known)]
        about = f"{len(learned):,} pairs of answers made up by minillm (seed {options.seed})"
    else:
        pairs = read_preferences(options.data)
        tenth = max(1, len(pairs) // 10)
        parts = [pairs[tenth:] or pairs, pairs[:tenth]]
        about = f"{Path(options.data).name}: {len(pairs):,} pairs of answers"
    say(f"{about}; asking the model how likely it finds them")
    encoded, held_out = (encode_pairs(part, tokenizer, options.data or "") for part in parts)
    dataset = PreferenceDataset(encoded, held_out, reference, reference.context)
    if dataset.left_out:
        say(f"left out: {dataset.left_out:,} longer than {reference.context} tokens")
    usual = STEPS if known else max(1, PASSES * len(encoded) // options.batch_size)
    steps = usual if options.steps is None else options.steps
    config = TrainConfig(
        steps=steps, batch_size=options.batch_size, learning_rate=options.learning_rate, betas=(0.9, 0.95),
        weight_decay=0.0, seed=options.seed, evaluate_every=max(1, steps // 5), checkpoint_every=max(1, steps),
    )  # fmt: skip
    prompts = [prompt_ids(table, tokenizer) for table in parts[1]]
    model = copy.deepcopy(reference)
    before = measure(model, reference, tokenizer, dataset, prompts, known)
    run = Run.create(out, about=about)
    loaded.generation.save(run.path)
    loss = preference_loss(options.method, options.beta)
    result = Trainer(model, dataset, config, tokenizer=tokenizer, run=run, loss=loss).run()
    if result.stopped != "finished":
        return 130 if result.stopped == "Ctrl-C" else 143
    print(table(before, measure(model, reference, tokenizer, dataset, prompts, known)))
    say(f"\na model with preferences: {shell_path(run.path)}")
    return 0
