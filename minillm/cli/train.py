"""``minillm train``: a run folder with a model that has learned from a text."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .computing import add_threads, computing
from .generate import speak
from .parser import in_words_of_the_command
from .terminal import say
from .values import Choice, between, name_of_something, positive, seed, whole

if TYPE_CHECKING:
    from ..training.recipe import Recipe
    from ..training.run import Run

NUMBERS = (  # option, its type, what it is: settings of a Recipe
    ("--vocab-size", whole(257, 10_000_000), "tokens of the bpe tokenizer; default 1024"),
    ("--layers", positive(10**9), "default 4; rnn: 2"),
    ("--heads", positive(10**6), "attention heads; default 4"),
    ("--width", positive(10**7), "numbers per token, C; default 128; rnn: 256"),
    ("--context", positive(), "tokens in a row; default 256 for stories, 128 for other text"),
    ("--batch-size", positive(10**12), "rows in a batch; default 8 for stories, 16 for other text"),
    ("--steps", positive(10**12), "batches to learn from; default depends on the data"),
    ("--learning-rate", between(0, 1000), "at its highest; default depends on the data"),
    ("--seed", seed, "of weights, data order and samples; default 0"),
)


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
        type=name_of_something,
        metavar="PATH",
        help="a UTF-8 text file, a folder of .txt files, or of what minillm encode made; default: made-up stories",
    )
    p.add_argument(
        "--out", type=name_of_something, metavar="RUN", help="the run folder to make; default: runs/NAME, runs/NAME-2"
    )
    p.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out, bit for bit as if uninterrupted; with --steps N: up to that step; with "
        "--data PATH: where its text lies now",
    )
    p.add_argument("--model", type=Choice(("llama", "gpt2", "rnn")), help="llama, gpt2 or rnn; default: llama")
    p.add_argument("--tokenizer", type=Choice(("bpe", "char")), help="bpe or char; default: bpe")
    for name, kind, what in NUMBERS:
        p.add_argument(name, type=kind, metavar="N" if kind.kind is int else "X", help=what)
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from ..training.run import Run

    if not options.resume:
        return _begin(options)
    if options.out is None:
        raise ValueError("--resume needs --out RUN, the run to go on with")
    resumed = Run.open(options.out)
    with resumed.lock():
        return _resume(options, resumed)


def _begin(options: argparse.Namespace) -> int:
    """Train in a new run folder."""
    from ..training.recipe import Recipe
    from ..training.run import Run

    data = None if options.data is None else str(Path(options.data).resolve())
    with in_words_of_the_command({name: f"--{name.replace('_', '-')}" for name in Recipe.__dataclass_fields__}):
        recipe = Recipe(data, **_chosen(options))
    if options.out is not None:
        Run.refuse_existing(options.out)
    return _train(options, recipe, None)


def _resume(options: argparse.Namespace, run: Run) -> int:
    """Go on in a run folder."""
    from ..training.setup import resumed_recipe

    if given := [name for name in _chosen(options) if name != "steps"]:
        raise ValueError(
            f"--resume goes on with the run's own settings, but for --steps and --data; leave "
            f"--{given[0].replace('_', '-')} out"
        )
    return _train(options, resumed_recipe(run, options.steps, options.data), run)


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a recipe that were typed."""
    from ..training.recipe import Recipe

    settings = {name: getattr(options, name, None) for name in Recipe.__dataclass_fields__ if name != "data"}
    return {name: value for name, value in settings.items() if value is not None}


def _train(options: argparse.Namespace, recipe: Recipe, resumed: Run | None) -> int:
    """Train, in a run that goes on or in a new one, and let the model speak."""
    from ..files import shell_path, shell_word
    from ..tokenizer import load
    from ..training.clock import Clock
    from ..training.run import Run
    from ..training.setup import Setup
    from ..training.trainer import Trainer
    from ..training.warm_up import WarmUp

    clock = Clock()
    with computing(options, about=60) as notice, WarmUp(recipe):
        say("writing stories, and learning their tokens" if recipe.data is None else f"reading {recipe.data}")
        with clock.timing("preparing"):
            saved = load(resumed.path) if resumed and (resumed.path / "tokenizer.json").exists() else None
            made = Setup.prepare(recipe, saved, resumed.sha256 if resumed else None)
        notice.finish()
        run = resumed or Run.create(
            options.out or _new_folder("stories" if recipe.data is None else Path(recipe.data).stem),
            recipe.to_dict(),
            made.about,
            made.sha256,
        )
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
        trainer.clock = clock
        if resumed:
            if trainer.resume() == 0:
                say("the run ended before its first checkpoint: it begins anew")
            run.sha256 = run.sha256 or made.sha256  # runs of old have none
            run.change(steps=recipe.steps, data=recipe.data)
        result = trainer.run()
        if result.stopped != "finished":
            return 130 if result.stopped == "Ctrl-C" else 143
        say("\nand now it speaks:\n")
        with clock.timing("sampling"):
            speak(made.model, made.tokenizer, "", _sampling(recipe.seed), notice)
    say(f"\n[{clock}]")
    say(f"more: minillm generate {shell_path(run.path)} {shell_word(_first_words(result.sample))}")
    return 0


def _new_folder(name: str) -> Path:
    """Make runs/NAME, or runs/NAME-2, -3 ... where that exists: also of two trainings that begin at
    once, each gets its own.
    """
    for number in itertools.count(1):
        path = Path("runs") / (name if number == 1 else f"{name}-{number}")
        with contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            break
    return path


def _first_words(text: str | None) -> str:
    return " ".join((text or "Once upon a time").split()[:3]).lstrip("-")  # which would make an option of it


def _sampling(seed: int) -> Any:
    from ..generation import GenerationConfig

    return GenerationConfig(temperature=0.8, top_p=0.95, max_new_tokens=300, seed=seed)


def _sample(model: Any, tokenizer: Any, seed: int) -> str:
    from ..generation import generate

    return generate(model, tokenizer, "", _sampling(seed)).text
