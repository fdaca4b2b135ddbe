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
    from ..tokenizer import Tokenizer
    from ..training.compile_notice import CompileNotice
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
    p.add_argument("--resume", action="store_true", help="go on with the run in --out, bit for bit as if uninterrupted")
    p.add_argument("--model", type=Choice(("llama", "gpt2", "rnn")), help="llama, gpt2 or rnn; default: llama")
    p.add_argument("--tokenizer", type=Choice(("bpe", "char")), help="bpe or char; default: bpe")
    for name, kind, what in NUMBERS:
        p.add_argument(name, type=kind, metavar="N" if kind.kind is int else "X", help=what)
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from ..tokenizer import load
    from ..training.recipe import Recipe
    from ..training.run import Run

    chosen = {
        name: getattr(options, name)
        for name in Recipe.__dataclass_fields__
        if name != "data" and getattr(options, name, None) is not None
    }
    if options.resume:
        if options.out is None:
            raise ValueError("--resume needs --out RUN, the run to go on with")
        if options.data is not None or chosen:
            given = ["data"] if options.data is not None else list(chosen)
            raise ValueError(f"--resume goes on with the run's own settings; leave --{given[0].replace('_', '-')} out")
        run = Run.open(options.out)
        recipe = Recipe.from_settings(run.settings)
        saved = load(run.path) if (run.path / "tokenizer.json").exists() else None
    else:
        data = None if options.data is None else str(Path(options.data).resolve())
        with in_words_of_the_command({name: f"--{name.replace('_', '-')}" for name in Recipe.__dataclass_fields__}):
            recipe, saved = Recipe(data, **chosen), None
        if options.out is not None:
            Run.refuse_existing(options.out)
        run = None
    with computing(options, about=60) as notice:
        return _train(recipe, saved, run, options.out, notice)


def _train(recipe: Recipe, saved: Tokenizer | None, run: Run | None, out: str | None, notice: CompileNotice) -> int:
    """Train, in a run that goes on, or in a new one in the folder ``out``."""
    from ..files import shell_path, shell_word
    from ..training.run import Run
    from ..training.setup import Setup
    from ..training.trainer import Trainer

    goes_on = run is not None
    say("writing stories, and learning their tokens" if recipe.data is None else f"reading {recipe.data}")
    made = Setup.prepare(recipe, saved)
    notice.finish()
    if run is None:
        name = "stories" if recipe.data is None else Path(recipe.data).stem
        run = Run.create(_new_folder(name) if out is None else out, recipe.to_dict(), made.about)
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
    if goes_on:
        trainer.resume()
    result = trainer.run()
    if result.stopped != "finished":
        return 130 if result.stopped == "Ctrl-C" else 143
    say("\nand now it speaks:\n")
    speak(made.model, made.tokenizer, "", _sampling(recipe.seed), notice)
    say(f"\nmore: minillm generate {shell_path(run.path)} {shell_word(_first_words(result.sample))}")
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
