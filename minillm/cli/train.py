"""``minillm train``: a run folder with a model that has learned from a text."""

from __future__ import annotations

import argparse
import contextlib
import itertools
from collections.abc import Iterator, Mapping
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
    from ..training.setup import Setup

NUMBERS = (  # option, its type, what it is: settings of a Recipe
    ("--vocab-size", whole(257, 10_000_000), "tokens of the bpe or unigram tokenizer; default 1024"),
    ("--layers", positive(10**9), "default 4; a llama on stories, t5 and recurrent: 2"),
    ("--heads", positive(10**6), "attention heads; default 4; a llama on stories: 6"),
    ("--kv-heads", positive(10**6), "heads of keys and values, of a llama; default: as many as heads"),
    ("--width", positive(10**7), "numbers per token, C; default 128; a llama on stories: 192; recurrent: 256"),
    ("--dropout", between(0, 0.95), "share of numbers left out while learning, of a gpt2 or t5; default 0"),
    ("--context", positive(), "tokens in a row; default 256 for stories, 128 for other text"),
    ("--batch-size", positive(10**12), "rows in a batch; default 8 for stories, 16 for other text"),
    ("--steps", positive(10**12), "batches to learn from; default depends on the data"),
    ("--learning-rate", between(0, 1000), "at its highest; default depends on the data"),
    ("--warmup", whole(0, 10**12), "steps in which the learning rate rises; default a twentieth of all, at most 200"),
    ("--weight-decay", between(0, 1000), "of matrices; default 0.1"),
    ("--eval-every", positive(10**12), "steps between two validations; default a tenth of all"),
    ("--save-every", positive(10**12), "steps between two checkpoints; default a tenth of all"),
    ("--seed", seed, "of weights, data order and samples; default 0"),
)
DESTINATIONS = {"--from": "start", "--eval-every": "evaluate_every", "--save-every": "checkpoint_every"}


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "train",
        help="train a model; with no options, on made-up stories, in two to three minutes",
        description="Train a model and leave a run folder. With no options: a small Llama on made-up stories whose "
        "exact entropy is known, so that the loss is shown against the best that any model could reach.",
    )
    p.add_argument(
        "--data",
        type=name_of_something,
        metavar="PATH",
        help="a UTF-8 text file (<|endoftext|> between its documents), a folder of .txt files, or of what minillm "
        'encode made; for a t5 a .jsonl file with {"question": ..., "answer": ...} on each line, or a .tsv file with a '
        "tab between the two; default: "
        "made-up stories",
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
    p.add_argument(
        "--from",
        dest=DESTINATIONS["--from"],
        type=name_of_something,
        metavar="FOLDER",
        help="fine-tune: begin with the weights and the tokenizer of a run folder, or of any model folder in Hugging "
        "Face's layout; its sizes stay",
    )
    p.add_argument(
        "--model",
        type=Choice(("llama", "gpt2", "t5", "rnn", "gru", "lstm")),
        help="llama, gpt2, t5 (which learns answers to questions), or recurrent: gru (also called rnn) or lstm; "
        "default: llama",
    )
    p.add_argument(
        "--attention",
        type=Choice(("dot", "additive", "none")),
        help="how a recurrent model looks back at its past states: dot, additive, or none; default: dot",
    )
    p.add_argument(
        "--tokenizer",
        type=Choice(("bpe", "char", "unigram")),
        help="bpe, char, or unigram (to which all white space is one space); default: bpe",
    )
    p.add_argument(
        "--schedule",
        type=Choice(("cosine", "wsd", "constant")),
        help="how the learning rate falls: cosine, wsd (late), or constant; default: wsd for stories, else cosine",
    )
    p.add_argument(
        "--optimizer",
        type=Choice(("adamw", "muon")),
        help="adamw; or muon, for the matrices inside the model; default: muon for a llama on stories, else adamw",
    )
    for name, kind, what in NUMBERS:
        p.add_argument(
            name, dest=DESTINATIONS.get(name), type=kind, metavar="N" if kind.kind is int else "X", help=what
        )
    p.add_argument(
        "--best",
        action="store_true",
        default=None,
        help="leave the weights of the lowest validation loss in the folder at the end, not those of the last step",
    )
    p.add_argument("--quiet", action="store_true", help="show no progress and no text, only how it ended")
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
    from ..training.start import started_recipe

    data = None if options.data is None else str(Path(options.data).resolve())
    if options.out is not None:
        Run.refuse_existing(options.out)
    chosen = _chosen(options)
    with in_words_of_the_command({name: _option(name) for name in Recipe.__dataclass_fields__}):
        if "start" in chosen:
            recipe = started_recipe(chosen.pop("start"), data, **chosen)
        else:
            recipe = Recipe(data, **chosen)
    if not options.quiet:
        for remark in _remarks(recipe, chosen):
            say(remark)
    return _train(options, recipe, None)


def _remarks(recipe: Recipe, chosen: Mapping[str, Any]) -> Iterator[str]:
    """What somebody may have meant otherwise."""
    if recipe.data is not None and recipe.model != "t5" and Path(recipe.data).suffix.lower() in (".tsv", ".jsonl"):
        yield f"{Path(recipe.data).name} is learned as plain text; to learn to answer its questions: --model t5"
    if recipe.tokenizer == "char" and "vocab_size" in chosen:
        yield "--vocab-size changes nothing with --tokenizer char: its tokens are the characters of the text"


def _resume(options: argparse.Namespace, run: Run) -> int:
    """Go on in a run folder."""
    from ..training.resume import resumed_recipe

    if given := [name for name in _chosen(options) if name != "steps"]:
        raise ValueError(
            f"--resume goes on with the run's own settings, but for --steps and --data; leave {_option(given[0])} out"
        )
    return _train(options, resumed_recipe(run, options.steps, options.data), run)


def _chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The settings of a recipe that were typed."""
    from ..training.recipe import Recipe

    settings = {name: getattr(options, name, None) for name in Recipe.__dataclass_fields__ if name != "data"}
    return {name: value for name, value in settings.items() if value is not None}


def _option(setting: str) -> str:
    """The option that sets it."""
    named = {setting: option for option, setting in DESTINATIONS.items()}
    return named.get(setting, f"--{setting.replace('_', '-')}")


def _train(options: argparse.Namespace, recipe: Recipe, resumed: Run | None) -> int:
    """Train, in a run that goes on or in a new one, and let the model speak."""
    from .. import kernels
    from ..files import shell_path, shell_word
    from ..tokenizer import load
    from ..training.best import KeepBest, best_of
    from ..training.clock import Clock, minutes
    from ..training.compile_notice import COMPILING
    from ..training.estimate import estimated_seconds, product_rate
    from ..training.run import Run
    from ..training.setup import Setup
    from ..training.trainer import Trainer
    from ..training.warm_up import WarmUp

    inform = (lambda text: None) if options.quiet else say
    with computing(options, about=COMPILING) as notice, WarmUp(recipe) as warm_up:
        clock = Clock()
        with clock.timing("preparing"):
            saved = load(resumed.path) if resumed and (resumed.path / "tokenizer.json").exists() else None
            folder = resumed.path if resumed and resumed.holds_model else None
            made = Setup.prepare(recipe, saved, resumed.sha256 if resumed else None, folder, inform)
        corpus = made.corpus
        notice.finish()
        run = resumed or Run.create(
            options.out or _new_folder("stories" if recipe.data is None else Path(recipe.data).stem),
            recipe.to_dict(),
            corpus.about,
            corpus.sha256,
        )
        run.generation = made.generation or run.generation
        inform(
            f"{corpus.about}; {corpus.tokenizer.vocab_size:,} tokens in the vocabulary; "
            f"{made.model.num_parameters():,} parameters ({recipe.model}); run folder {run.path}"
        )

        trainer = Trainer(
            made.model,
            corpus.dataset,
            recipe.train_config(),
            tokenizer=corpus.tokenizer,
            run=run,
            floor=corpus.floor,
            sample=lambda model: _sample(model, made),
            callbacks=[KeepBest()] if recipe.best else [],
            quiet=options.quiet,
        )
        trainer.clock = clock
        if resumed:
            if trainer.resume() == 0:
                say("the run ended before its first checkpoint: it begins anew")
            run.sha256 = run.sha256 or corpus.sha256  # runs of old have none
            run.change(steps=recipe.steps, data=recipe.data)
        if kernels.KERNELS == "numba" and not options.quiet:
            seconds = estimated_seconds(made, product_rate()) * (1 - trainer.step / recipe.steps)
            compiling = f", and {COMPILING} s to compile kernels, the first time only" * (not warm_up.is_needless)
            say(f"about {minutes(seconds)} to learn here{compiling}")
        result = trainer.run()
        if options.quiet:
            say(f"{result}\nrun folder {run.path}")
        if recipe.best and result.stopped == "finished":
            say(f"the folder holds the weights of the lowest validation loss: {best_of(run.path)}")
        if result.stopped != "finished":
            return 130 if result.stopped == "Ctrl-C" else 143
        if options.quiet:
            return 0
        say("\nand now it speaks:\n" if not corpus.prompt else f"\nand now it answers: {corpus.prompt}\n")
        with clock.timing("sampling"):
            speak(made.model, corpus.tokenizer, corpus.prompt, _sampling(made), notice)
        warm_up.all_compiled()
    say(f"\n[{clock}]")
    say(f"more: minillm generate {shell_path(run.path)} {shell_word(corpus.prompt or _first_words(result.sample))}")
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


def _sampling(made: Setup) -> Any:
    from ..generation import GenerationConfig

    if made.model.is_encoder_decoder:  # there is one right answer
        return GenerationConfig(temperature=0, max_new_tokens=made.recipe.context)
    return GenerationConfig(temperature=0.8, top_p=0.95, max_new_tokens=300, seed=made.recipe.seed)


def _sample(model: Any, made: Setup) -> str:
    from ..generation import generate

    text = generate(model, made.corpus.tokenizer, made.corpus.prompt, _sampling(made)).text
    return f"{made.corpus.prompt}\n{text}" if made.corpus.prompt else text
