"""What a person types: ``minillm train | generate | eval | quantize | info | tokenize | encode``.

Text goes to standard output, everything about it to standard error, so that ``minillm generate ... > story.txt`` keeps
the story alone. A person's mistake is one line that says what was expected, and exit code 2.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

FINISH_REASONS = {
    "eos": "the model wrote its end-of-text token",
    "end_of_turn": "the model ended its turn",
    "stop": "a stop string came up",
    "length": "--max-new-tokens was reached",
    "context": "the model's context is full",
    "cancelled": "cancelled",
    "criterion": "a criterion was met",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    warnings.showwarning = lambda message, *_, **__: print(f"minillm: warning: {message}", file=sys.stderr)
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where it can still be told that nobody reads it
    except BrokenPipeError:  # as in ``minillm tokenize ... | head -1``: whoever reads has seen enough
        _discard_output()
        return 128 + 13  # what a shell gives a program that SIGPIPE ended


def _run(arguments: Sequence[str] | None) -> int:
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        return options.run(options) or 0
    except BrokenPipeError:
        raise
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"minillm: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("minillm: interrupted", file=sys.stderr)
        return 130


def _discard_output() -> None:
    """Send what is still to be written nowhere, or Python would complain of it at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


# ---- what can be typed -----------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see: {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, _not_one_of(action.choices, value))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    if not arguments:
        parser.parse_args(["--help"])
    options, unknown = parser.parse_known_args(list(arguments))
    if unknown and not unknown[0].startswith("-") and getattr(options, "prompt", None) == "":
        options.prompt = unknown.pop(0)  # argparse looks for it before the options only: RUN --int8 "text"
    if unknown:
        known = [name for action in _actions_of(parser, options.command) for name in action.option_strings]
        near = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f" (see: minillm {options.command} --help)"
        raise ValueError(f"unknown option {unknown[0]}{hint}")
    return options


def _actions_of(parser: argparse.ArgumentParser, command: str) -> list[argparse.Action]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[command]._actions
    return []


def _choice(*names: str) -> Any:
    """A type for options with a few values; suggests the nearest."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(_not_one_of(names, text))
        return text

    return read


def _not_one_of(names: Iterable[str], text: str) -> str:
    near = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
    return f"expected one of {', '.join(names)}; got {text!r}" + (f"; did you mean {near[0]}?" if near else "")


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = _Parser(prog="minillm", description="Train a small language model on a CPU, and let it speak.")
    parser.add_argument("--version", action="version", version=f"minillm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _add_train(commands)
    _add_generate(commands)
    _add_eval(commands)
    _add_quantize(commands)
    _add_info(commands)
    _add_tokenize(commands)
    _add_encode(commands)
    return parser


def _add_train(commands: Any) -> None:
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
    p.add_argument("--resume", action="store_true", help="go on with the run in --out, bit for bit as if uninterrupted")
    p.add_argument("--model", type=_choice("llama", "gpt2", "rnn"), help="llama, gpt2 or rnn; default: llama")
    p.add_argument("--tokenizer", type=_choice("bpe", "char"), help="bpe or char; default: bpe")
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
    p.add_argument("--threads", type=int, metavar="N", help="threads for the kernels; default: all cores")
    p.set_defaults(run=_train)


def _add_generate(commands: Any) -> None:
    p = commands.add_parser(
        "generate",
        help="let a model continue a text",
        description="Stream the continuation of a prompt, and say why it ended.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, or any model folder in Hugging Face's layout")
    p.add_argument("prompt", nargs="?", default="", help="the text to continue; default: nothing, a new text")
    for name, what in (
        ("--temperature", "below 1 bolder, above 1 more varied, 0 the most likely token"),
        ("--top-p", "only the most likely tokens that reach this probability together"),
        ("--min-p", "only tokens at least this times as likely as the most likely one"),
        ("--repetition-penalty", "above 1: make tokens that came already less likely"),
    ):
        p.add_argument(name, type=float, metavar="X", help=what)
    p.add_argument("--top-k", type=int, metavar="N", help="only the N most likely tokens; 0: all")
    p.add_argument("--max-new-tokens", type=int, metavar="N", help="write at most N tokens; default 256")
    p.add_argument("--int8", action="store_true", help="round the weights to one byte first: less memory, more speed")
    p.add_argument("--stop", action="append", metavar="TEXT", help="end when this text comes up (may be given again)")
    p.add_argument(
        "--seed", type=int, metavar="N", help="the same seed gives the same text; default: another each time"
    )
    p.add_argument("--threads", type=int, metavar="N", help="threads for the kernels; default: all cores")
    p.set_defaults(run=_generate)


def _add_eval(commands: Any) -> None:
    p = commands.add_parser(
        "eval",
        help="measure a model on a text",
        description="Print loss, perplexity, bits per byte and tokens per second; without --data for a run on made-up "
        "stories, on its validation stories, against their exact floor.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, or any model folder in Hugging Face's layout")
    p.add_argument(
        "--data", metavar="PATH", help="a UTF-8 text file, a folder of .txt files, or of what minillm encode made"
    )
    p.add_argument("--context", type=int, metavar="N", help="tokens in a row; default: all that the model sees")
    p.add_argument("--batch-size", type=int, default=16, metavar="N", help="rows in a batch; default 16")
    p.add_argument("--threads", type=int, metavar="N", help="threads for the kernels; default: all cores")
    p.set_defaults(run=_eval)


def _add_quantize(commands: Any) -> None:
    p = commands.add_parser(
        "quantize",
        help="make a model four times smaller: weights in one byte",
        description="Round the weights of a model to int8, and write it to another folder, which every other command "
        "opens. Tells what that changes: the perplexity, on --data or on what the run was validated with, and the "
        "error of each matrix, with a picture where matplotlib is installed.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, or any model folder in Hugging Face's layout")
    p.add_argument("--out", metavar="FOLDER", help="the folder to make; default: RUN-int8")
    p.add_argument("--data", metavar="PATH", help="a UTF-8 text file or a folder of .txt files to measure on")
    p.add_argument("--context", type=int, metavar="N", help="tokens in a row; default: all that the model sees")
    p.add_argument("--threads", type=int, metavar="N", help="threads for the kernels; default: all cores")
    p.set_defaults(run=_quantize)


def _add_info(commands: Any) -> None:
    p = commands.add_parser(
        "info",
        help="describe a model folder, or this installation",
        description="Describe a model folder: architecture, parameters by part, memory, tokenizer. Without one: "
        "versions, threads, and which way the matrix products take.",
    )
    p.add_argument(
        "folder", metavar="RUN", nargs="?", help="a run folder, or any model folder in Hugging Face's layout"
    )
    p.set_defaults(run=_info)


def _add_tokenize(commands: Any) -> None:
    p = commands.add_parser(
        "tokenize",
        help="show how a text is cut into tokens",
        description="Show the tokens of a text with their ids and bytes, in colours where the output is a terminal "
        "and NO_COLOR is not set.",
    )
    p.add_argument("tokenizer", metavar="RUN_OR_FILE", help="a run folder or a tokenizer.json")
    p.add_argument("text", help="the text to cut")
    p.add_argument(
        "--merges",
        "--lattice",
        action="store_true",
        help="show how each piece came about: BPE merge by merge; Unigram (T5) as a lattice, all pieces that fit into "
        "a word with their log-probabilities, the best way through it marked",
    )
    p.set_defaults(run=_tokenize)


def _add_encode(commands: Any) -> None:
    p = commands.add_parser(
        "encode",
        help="turn a large text into token ids on the disk, to train on",
        description="Encode a text of any size into a folder of token ids, which minillm train --data reads from the "
        "disk as it needs them. Neither command ever holds the whole text in memory.",
    )
    p.add_argument("text", metavar="TEXT", help="a UTF-8 text file or a folder of .txt files")
    p.add_argument("out", metavar="FOLDER", help="the folder to make")
    p.add_argument("--tokenizer", metavar="RUN_OR_FILE", help="a run folder or a tokenizer.json; default: a new one")
    p.add_argument("--vocab-size", type=int, metavar="N", help="tokens of the new tokenizer; default 1024")
    p.add_argument(
        "--validation", type=float, default=0.1, metavar="X", help="the share of the documents held out; default 0.1"
    )
    p.add_argument("--threads", type=int, metavar="N", help="threads for the kernels; default: all cores")
    p.set_defaults(run=_encode)


# ---- what is done ----------------------------------------------------------------------------------------------------


def _set_threads(options: argparse.Namespace) -> None:
    if options.threads is not None:
        from . import kernels

        kernels.set_num_threads(options.threads)


def _train(options: argparse.Namespace) -> int:
    from .recipe import Ingredients, Recipe
    from .run import Run
    from .tokenizer import load
    from .trainer import Trainer

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
        recipe = Recipe(**run.settings).completed()
        saved = load(run.path) if (run.path / "tokenizer.json").exists() else None
    else:
        data = None if options.data is None else str(Path(options.data).resolve())
        recipe, saved = Recipe(data=data, **chosen).completed(), None
        out = Path(options.out) if options.out else _free_name("stories" if data is None else Path(data).stem)
        Run.refuse_existing(out)
    _set_threads(options)
    _say("writing stories, and learning their tokens" if recipe.data is None else f"reading {recipe.data}")
    made = Ingredients.prepare(recipe, saved)
    if not options.resume:
        run = Run.create(out, recipe.to_dict(), made.about)
    _say(
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
    if options.resume:
        trainer.resume()
    result = trainer.run()
    if result.stopped != "finished":
        return 130 if result.stopped == "Ctrl-C" else 143
    _say("\nand now it speaks:\n")
    _speak(made.model, made.tokenizer, "", _sampling(recipe.seed))
    _say(f'\nmore: minillm generate {run.path} "{_first_words(result.sample)}"')
    return 0


def _free_name(name: str) -> Path:
    """runs/NAME, or runs/NAME-2, -3 ... where that exists."""
    path, number = Path("runs") / name, 2
    while path.exists():
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return path


def _first_words(text: str | None) -> str:
    words = (text or "Once upon a time").split()[:3]
    return " ".join(words).replace('"', "")


def _sampling(seed: int) -> Any:
    from .generate import GenerationConfig

    return GenerationConfig(temperature=0.8, top_p=0.95, max_new_tokens=300, seed=seed)


def _sample(model: Any, tokenizer: Any, seed: int) -> str:
    from .generate import generate

    return generate(model, tokenizer, "", _sampling(seed)).text


def _generate(options: argparse.Namespace) -> int:
    from . import models
    from .run import load_run

    _set_threads(options)
    loaded = load_run(options.folder)
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "seed")
    changes = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.stop:
        changes["stop"] = tuple(options.stop)
    if loaded.generation.temperature == 0 and {"top_k", "top_p", "min_p"} & changes.keys():
        changes.setdefault("temperature", 1.0)  # who narrows the choice wants one
    config = loaded.generation.replace(**changes)
    model = loaded.model
    if options.int8 and not isinstance(model, models.QuantizedModel):
        model = models.quantize(model)
    if options.prompt and not model.is_encoder_decoder:  # an answer does not continue its question
        print(options.prompt, end="", flush=True)
    _speak(model, loaded.tokenizer, options.prompt, config)
    return 0


def _speak(model: Any, tokenizer: Any, prompt: str, config: Any) -> None:
    """Stream a text to standard output, and to standard error why it ended."""
    import time

    from .generate import stream

    begun, tokens, reason = time.perf_counter(), 0, None
    for piece in stream(model, tokenizer, prompt, config):
        print(piece.text, end="", flush=True)
        tokens += len(piece.ids)
        reason = piece.finish_reason
    print(flush=True)
    speed = tokens / max(time.perf_counter() - begun, 1e-9)
    _say(f"[{reason}: {FINISH_REASONS.get(reason or '', 'ended')}, after {tokens} tokens at {speed:,.0f} a second]")


def _eval(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from .evaluate import evaluate
    from .recipe import evaluation_data
    from .run import load_run

    _set_threads(options)
    loaded = load_run(options.folder)
    context = options.context or loaded.model.context
    batches, floor = evaluation_data(options.folder, options.data, loaded.tokenizer, context, options.batch_size)
    progress = tqdm(list(batches), unit="batch", disable=not sys.stderr.isatty(), leave=False)
    result = evaluate(loaded.model, progress, tokenizer=loaded.tokenizer, floor=floor)
    print(result.table())
    floor_says = "; the floor is the least that any model can reach" if result.floor is not None else ""
    _say(f"[loss in nats per token; perplexity: as unsure as between so many equally likely tokens{floor_says}]")
    return 0


def _quantize(options: argparse.Namespace) -> int:
    from .quantize import quantize_folder

    _set_threads(options)
    report = quantize_folder(options.folder, options.out, data=options.data, context=options.context)
    print(report)
    if report.before is None:
        _say("perplexity was not measured: give a text with --data")
    return 0


def _info(options: argparse.Namespace) -> int:
    from . import info

    print(info.of_folder(options.folder) if options.folder else info.of_installation())
    return 0


def _tokenize(options: argparse.Namespace) -> int:
    from .tokenizer import load
    from .tokenizer.show import render

    loaded = load(options.tokenizer)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(render(loaded, options.text, merges=options.merges, color=color))
    return 0


def _encode(options: argparse.Namespace) -> int:
    from . import data
    from .tokenizer import BPETokenizer, load

    if options.tokenizer is not None and options.vocab_size is not None:
        raise ValueError("--vocab-size is for a new tokenizer: leave it out, or leave --tokenizer out")
    files, out = data.text_files(options.text), Path(options.out)
    if out.exists():
        raise FileExistsError(f"{out} exists already, and nothing in it is overwritten: choose another name")
    _set_threads(options)
    size = sum(file.stat().st_size for file in files)
    if options.tokenizer is not None:
        tokenizer = load(options.tokenizer)
    else:
        with _bytes_bar("reading", size) as bar:
            parts = data.corpus_parts(files, options.validation, progress=bar.update)
            texts = (part.text for part in parts if not part.held_out)
            tokenizer = BPETokenizer.train(texts, 1024 if options.vocab_size is None else options.vocab_size)
        _say(f"learned {tokenizer.vocab_size:,} tokens")
    with _bytes_bar("encoding", size) as bar:
        train, held_out = data.encode_files(files, out, tokenizer, options.validation, progress=bar.update)
    _say(
        f"{out}: {train:,} tokens to train on, {held_out:,} held out, {size / (train + held_out):.2f} bytes per token\n"
        f"more: minillm train --data {out}"
    )
    return 0


def _bytes_bar(what: str, size: int) -> Any:
    """A progress bar over the bytes of a text; where standard error is no terminal, nothing."""
    from tqdm import tqdm

    return tqdm(total=size, desc=what, unit="B", unit_scale=True, disable=not sys.stderr.isatty(), leave=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
