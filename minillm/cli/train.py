"""``minillm train``: a run folder with a model that has learned from a text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .generate import speak
from .parser import add_threads, choice, set_threads
from .terminal import say

if TYPE_CHECKING:
    from ..training.run import Run


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "train",
        help="train a model; with no options, on made-up stories, in about three minutes",
        description="Train a model and leave a run folder. With no options: a small Llama on made-up stories whose "
        "exact entropy is known, so that the loss is shown against the best that any model could reach.",
    )
    p.add_argument(
        "--data",
        metavar="PATH",
        help="a UTF-8 text file, a folder of .txt files, or of what minillm encode made; default: made-up stories",
    )
    p.add_argument("--out", metavar="RUN", help="the run folder to make; default: runs/NAME, or runs/NAME-2, ...")
    p.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, bit for bit as if uninterrupted; with --steps N: up to that step; with "
        "--data PATH: where its text lies now",
    )
    p.add_argument("--model", type=choice("llama", "gpt2", "rnn"), help="llama, gpt2 or rnn; default: llama")
    p.add_argument("--tokenizer", type=choice("bpe", "char"), help="bpe or char; default: bpe")
    for name, what in (
        ("--vocab-size", "tokens of the bpe tokenizer; default 1024"),
        ("--layers", "default 4; rnn: 2"),
        ("--heads", "attention heads; default 4"),
        ("--width", "numbers per token, C; default 128; rnn: 256"),
        ("--context", "tokens in a row; default 256 for stories, 128 for other text"),
        ("--batch-size", "rows in a batch; default 8 for stories, 16 for other text"),
        ("--steps", "batches to learn from; default depends on the data"),
    ):
        p.add_argument(name, type=int, metavar="N", help=what)
    p.add_argument("--learning-rate", type=float, metavar="X", help="at its highest; default depends on the data")
    p.add_argument("--seed", type=int, metavar="N", help="of weights, data order and samples; default 0")
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from ..training.run import Run

    if not options.resume:
        return _train(options, None)
    if options.out is None:
        raise ValueError("--resume needs --out RUN, the run to go on with")
    resumed = Run.open(options.out)
    with resumed.lock():
        return _train(options, resumed)


def _train(options: argparse.Namespace, resumed: Run | None) -> int:
    from ..files import shell_path, shell_word
    from ..tokenizer import load
    from ..training.recipe import Recipe
    from ..training.run import Run
    from ..training.setup import Setup, resumed_recipe
    from ..training.trainer import Trainer

    chosen = {
        name: getattr(options, name)
        for name in Recipe.__dataclass_fields__
        if name != "data" and getattr(options, name, None) is not None
    }
    if resumed:
        if given := [name for name in chosen if name != "steps"]:
            raise ValueError(
                f"--resume goes on with the run's own settings, but for --steps and --data; leave "
                f"--{given[0].replace('_', '-')} out"
            )
        run = resumed
        recipe = resumed_recipe(run, options.steps, options.data)
        saved = load(run.path) if (run.path / "tokenizer.json").exists() else None
    else:
        data = None if options.data is None else str(Path(options.data).resolve())
        recipe, saved = Recipe(data, **chosen), None
        out = Path(options.out) if options.out else _free_name("stories" if data is None else Path(data).stem)
        Run.refuse_existing(out)
    set_threads(options)
    say("writing stories, and learning their tokens" if recipe.data is None else f"reading {recipe.data}")
    made = Setup.prepare(recipe, saved, resumed.sha256 if resumed else None)
    if not resumed:
        run = Run.create(out, recipe.to_dict(), made.about, made.sha256)
    say(
        f"{made.about}; {made.tokenizer.vocab_size:,} tokens in the vocabulary; "
        f"{made.model.num_parameters():,} parameters ({recipe.model}); run folder {run.path}"
    )
    trainer = Trainer(
        made.model,
        made.dataset,
        recipe.train_config(),
        tokenizer=made.tokenizer,
        run=run,
        floor=made.floor,
        sample=lambda model: _sample(model, made.tokenizer, recipe.seed),
    )
    if resumed:
        if trainer.resume() == 0:
            say("the run ended before its first checkpoint: it begins anew")
        run.sha256 = run.sha256 or made.sha256  # runs of old have none
        run.change(steps=recipe.steps, data=recipe.data)
    result = trainer.run()
    if result.stopped != "finished":
        return 130 if result.stopped == "Ctrl-C" else 143
    say("\nand now it speaks:\n")
    speak(made.model, made.tokenizer, "", _sampling(recipe.seed))
    say(f"\nmore: minillm generate {shell_path(run.path)} {shell_word(_first_words(result.sample))}")
    return 0


def _free_name(name: str) -> Path:
    """runs/NAME, or runs/NAME-2, -3 ... where that exists."""
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


def _first_words(text: str | None) -> str:
    return " ".join((text or "Once upon a time").split()[:3]).lstrip("-")  # which would make an option of it


def _sampling(seed: int) -> Any:
    from ..generation import GenerationConfig

    return GenerationConfig(temperature=0.8, top_p=0.95, max_new_tokens=300, seed=seed)


def _sample(model: Any, tokenizer: Any, seed: int) -> str:
    from ..generation import generate

    return generate(model, tokenizer, "", _sampling(seed)).text
