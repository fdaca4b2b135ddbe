"""``minillm sft``: a model that continues texts becomes one that answers and stops."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .computing import computing
from .terminal import say
from .tuning import add_options, new_folder, resume, settings_of, start_of, unchanged
from .values import Choice, between, positive, seed

if TYPE_CHECKING:
    from ..data.chat_corpus import Chat
    from ..training.run import Run

EXAMINED, MOST = 200, 100_000  # made-up conversations to measure on; to learn from
STEPS, TWICE, PASSES = 1000, 2, 3  # how often made-up conversations are seen; passes over a file of others
RATE, RATE_OF_ADAPTERS = 2e-3, 8e-3  # adapters want a higher one
USUAL = {
    "data": None,
    "steps": None,
    "batch_size": 20,
    "learning_rate": None,
    "seed": 0,
    "lora": None,
    "optimizer": None,
}
OF_OLD = {"lora": None, "optimizer": "adamw"}  # what runs from before there was a choice do not name

NUMBERS = (
    ("--steps", positive(), f"batches to learn from; default {STEPS}, or {PASSES} passes over --data"),
    ("--batch-size", positive(), "conversations in a batch; default 20"),
    ("--learning-rate", between(0, 1000), f"at its highest; default {RATE}, with --lora {RATE_OF_ADAPTERS}"),
    ("--seed", seed, "of the data and its order; default 0"),
    ("--lora", positive(), "learn adapters of this rank (8, say) beside the weights, and fold them in at the end"),
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
    add_options(p, "chat", '{"messages": [{"role": ..., "content": ...}]}', NUMBERS)
    p.add_argument(
        "--optimizer",
        type=Choice(("adamw", "muon")),
        help="adamw; or muon, for the matrices inside the model; default: muon, with --lora adamw",
    )
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
    from ..finetune import add_lora
    from ..training.config import TrainConfig
    from ..training.evaluate import answer_loss
    from ..training.run import Run
    from ..training.trainer import Trainer

    settings, resumed = settings_of(options, USUAL, added=OF_OLD)
    out = resumed.path if resumed else new_folder(options, "chat")
    path, seed, rows = settings["data"], settings["seed"], settings["batch_size"]
    loaded = start_of(settings)
    examined = digest = None
    parts: list[Any]  # held out, and to learn from
    if path is None:
        steps = settings["steps"] or STEPS
        say("making up conversations")  # each is seen twice: what comes often is learned by heart
        count = _count_of(resumed) if resumed else min(MOST, max(rows, steps * rows // TWICE))
        drawn, examined = data.chats(count, seed), data.chats(EXAMINED, seed + 1, "test")
        parts = [[chat.messages for chat in part] for part in (examined, drawn)]
        about = f"{len(drawn):,} conversations made up by minillm (seed {seed})"
    else:
        read = sft.read_conversations(path)
        digest = unchanged(read, path, resumed)
        tenth = max(1, len(read) // 10)
        parts = [read[:tenth], read[tenth:] or read]
        steps = settings["steps"] or max(1, PASSES * len(parts[1]) // rows)
        about = f"{Path(path).name}: {len(read):,} conversations"
    tokenizer = sft.with_marks(loaded.tokenizer, parts[1])
    encoded = sft.encode_all([*parts[0], *parts[1]], tokenizer, path or "")  # a file's in its own order
    held_out, learned = encoded[: len(parts[0])], encoded[len(parts[0]) :]
    model = sft.with_rows(loaded.model, tokenizer, {id for encoded in learned for id in encoded.ids})
    if settings["lora"]:
        say(str(add_lora(model, settings["lora"], rng=seed, beside=sft.grown(model, loaded.model))))
    dataset = ChatDataset(learned, held_out, model.context)
    if dataset.left_out:
        count = f"{dataset.left_out:,} conversation{'s' * (dataset.left_out != 1)}"
        say(f"left out: {count} without an answer, or longer than {model.context} tokens")
    if not dataset.validation_tokens:
        raise ValueError(
            f"{path}: its first {len(held_out):,} conversations are held out to measure on, and none of them has an "
            f"answer and fits {model.context} tokens: put others there"
        )
    rate = settings["learning_rate"]
    if rate is None:
        rate = RATE_OF_ADAPTERS if settings["lora"] else RATE
    optimizer = settings["optimizer"] or ("adamw" if settings["lora"] else "muon")
    settings |= {"steps": steps, "learning_rate": rate, "optimizer": optimizer}
    config = TrainConfig(
        steps=steps, batch_size=rows, learning_rate=rate, schedule="wsd", decay=0.6, optimizer=optimizer,
        final_fraction=0.0, seed=seed, evaluate_every=max(1, steps // 5), checkpoint_every=max(1, steps // 5),
    )  # fmt: skip
    before = report.measure(model, tokenizer, examined) if examined else None
    run = resumed or Run.create(out, settings, about, digest)
    floor = data.chat_floor(examined, dataset.validation_tokens) if examined else None
    trainer = Trainer(model, dataset, config, tokenizer=tokenizer, run=run, loss=answer_loss, floor=floor)
    sft.generation_config(tokenizer).save(run.path)  # which now knows how its texts begin
    if resumed:
        resume(trainer)
    result = trainer.run()
    if result.stopped != "finished":
        return 130 if result.stopped == "Ctrl-C" else 143
    if examined and before:
        print(report.table(before=before, after=report.measure(model, tokenizer, examined)))
    say(f"\na chat model; talk with it: minillm chat {shell_path(run.path)}")
    if examined:
        say(f"it knows small questions: {'  '.join(chat.prompt[-1]['content'] for chat in _one_of_each(examined))}")
    return 0


def _one_of_each(chats: Sequence[Chat]) -> list[Chat]:
    """The first conversation of each kind that is a single question."""
    from ..data.chat_corpus import kind_of

    alone = [chat for chat in chats if [m["role"] for m in chat.prompt] == ["user"]]
    return [*{kind_of(chat.prompt): chat for chat in reversed(alone)}.values()]


def examined_on(folder: str) -> list[Chat]:
    """The made-up conversations that this command measured a run on; of any other folder none."""
    from .. import data
    from ..training.run import TRAINING, Run

    if not (Path(folder) / TRAINING).exists():
        return []
    run = Run.open(folder)
    if run.command != "sft" or run.settings["data"] is not None:
        return []
    return data.chats(EXAMINED, run.settings["seed"] + 1, "test")


def _count_of(run: Run) -> int:
    """From how many made-up conversations a run learns: other versions took other numbers."""
    count = run.about.split()[0].replace(",", "")
    if not count.isdigit():
        raise ValueError(f"{run.path / 'training.json'}: 'about' must begin with a number of conversations")
    return int(count)
