"""``minillm dpo``: a model that answers learns which of two answers people prefer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .computing import computing
from .terminal import say
from .tuning import add_options, new_folder, resume, settings_of, start_of, unchanged
from .values import Choice, between, positive, seed

TRAINED, EXAMINED = 2000, 200  # pairs of the embedded corpus
STEPS, PASSES = 120, 3  # from these pairs; over a file of others
BETAS = {"dpo": 0.5, "orpo": 0.1}  # by method
USUAL = {
    "data": None, "method": "dpo", "beta": None, "chosen_weight": 3.0, "steps": None, "batch_size": 16,
    "learning_rate": 4e-4, "seed": 0,
}  # fmt: skip

NUMBERS = (
    ("--beta", between(0, 1000), "how much a reward counts; default 0.5, of orpo 0.1"),
    ("--chosen-weight", between(0, 1000), "of the chosen answer's own loss beside dpo's; default 3"),
    ("--steps", positive(), f"batches to learn from; default {STEPS}, or {PASSES} passes over --data"),
    ("--batch-size", positive(), "pairs in a batch; default 16"),
    ("--learning-rate", between(0, 1000), "at its highest; default 0.0004"),
    ("--seed", seed, "of the data and its order; default 0"),
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
    add_options(p, "METHOD", '{"prompt": ..., "chosen": ..., "rejected": ...}: texts, or lists of messages', NUMBERS)
    p.add_argument(
        "--method",
        type=Choice(tuple(BETAS)),
        help="dpo, which stays near the model at the beginning, or orpo, which needs none; default: dpo",
    )
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
    from ..training.trainer import Trainer

    settings, resumed = settings_of(options, USUAL)
    path, method, seed, rows = settings["data"], settings["method"], settings["seed"], settings["batch_size"]
    out = resumed.path if resumed else new_folder(options, method)
    loaded = start_of(settings)
    reference, tokenizer = loaded.model, loaded.tokenizer
    known: list[Preference] = []
    digest = None
    if path is None:
        if tokenizer.chat_format is None:
            raise ValueError(
                f"{options.folder} has no chat template: teach it to answer first, with: minillm sft "
                f"{shell_path(options.folder)}"
            )
        drawn, known = preferences(TRAINED, seed), preferences(EXAMINED, seed + 1, "test")
        parts = [[pair._asdict() for pair in part] for part in (known, drawn)]
        about = f"{len(drawn):,} pairs of answers made up by minillm (seed {seed})"
    else:
        pairs = read_preferences(path)
        digest = unchanged(pairs, path, resumed)
        tenth = max(1, len(pairs) // 10)
        parts = [pairs[:tenth], pairs[tenth:] or pairs]  # held out, and to learn from
        about = f"{Path(path).name}: {len(pairs):,} pairs of answers"
    say(f"{about}; asking the model how likely it finds them")
    encoded = encode_pairs([*parts[0], *parts[1]], tokenizer, path or "")  # a file's in its own order
    held_out, learned = encoded[: len(parts[0])], encoded[len(parts[0]) :]
    dataset = PreferenceDataset(learned, held_out, reference, reference.context)
    if dataset.left_out:
        say(f"left out: {dataset.left_out:,} longer than {reference.context} tokens")
    steps = settings["steps"] or (STEPS if known else max(1, PASSES * len(learned) // rows))
    config = TrainConfig(
        steps=steps, batch_size=rows, learning_rate=settings["learning_rate"], betas=(0.9, 0.95), weight_decay=0.0,
        seed=seed, evaluate_every=max(1, steps // 5), checkpoint_every=max(1, steps // 5),
    )  # fmt: skip
    asked = [prompt_ids(pair, tokenizer) for pair in parts[0]]
    prompts = [ids for ids in asked if reference.context is None or len(ids) < reference.context]
    model = copy.deepcopy(reference)
    before = measure(model, reference, tokenizer, dataset, prompts, known)
    run = resumed or Run.create(out, settings, about, digest)
    loaded.generation.save(run.path)
    beta = BETAS[method] if settings["beta"] is None else settings["beta"]
    loss = preference_loss(method, beta, settings["chosen_weight"])
    trainer = Trainer(model, dataset, config, tokenizer=tokenizer, run=run, loss=loss)
    if resumed:
        resume(trainer)
    result = trainer.run()
    if result.stopped != "finished":
        return 130 if result.stopped == "Ctrl-C" else 143
    print(table(before, measure(model, reference, tokenizer, dataset, prompts, known)))
    say(f"\na model with preferences: {shell_path(run.path)}")
    return 0
