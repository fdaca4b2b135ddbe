"""``minillm generate``: a model continues a text."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

from .computing import add_threads, computing
from .parser import add_ignore_unknown, in_words_of_the_command
from .probabilities import table
from .terminal import say
from .values import between, name_of_something, positive, seed, whole

FINISH_REASONS = {
    "eos": "the model wrote its end-of-text token",
    "end_of_turn": "the model ended its turn",
    "stop": "a stop string came up",
    "length": "--max-new-tokens was reached",
    "context": "the model's context is full",
    "cancelled": "cancelled",
    "criterion": "a criterion was met",
}

A_MILLION = 1_000_000
NUMBERS = (  # option, its type, what it does: parameters of GenerationConfig
    ("--temperature", between(0, 100), "below 1 bolder, above 1 more varied, 0 the most likely token"),
    ("--top-k", whole(0, 2**31 - 1), "only the N most likely tokens; 0: all"),
    ("--top-p", between(0, 1), "only the most likely tokens that reach this probability together"),
    ("--min-p", between(0, 1), "only tokens at least this times as likely as the most likely one"),
    ("--typical-p", between(0, 1), "only tokens whose surprise is nearest to the expected one, reaching this together"),
    ("--repetition-penalty", between(0.01, 100), "above 1: make tokens that came already less likely"),
    ("--frequency-penalty", between(-100, 100), "take this from the score of a token for each time it was written"),
    ("--presence-penalty", between(-100, 100), "take this from the score of a token that was written"),
    ("--no-repeat-ngram-size", whole(0, A_MILLION), "never write the same N tokens in a row twice; 0: off"),
    ("--max-new-tokens", whole(0, A_MILLION), "write at most N tokens; default 256"),
    ("--min-new-tokens", whole(0, A_MILLION), "write at least N tokens before the text may end"),
    ("--n", positive(1024), "write N texts"),
    ("--beams", positive(1024), "search for the most likely text with N candidates, instead of sampling"),
    ("--logprobs", whole(0, 1024), "show how likely each token was, and the N most likely ones in its place"),
    ("--seed", seed, "the same seed gives the same text; default: another each time"),
)
SWITCHES = ("slide", "special")
PARAMETERS = [name.strip("-").replace("-", "_") for name, _, _ in NUMBERS] + list(SWITCHES)
OPTIONS = {{"beams": "num_beams"}.get(name, name): f"--{name.replace('_', '-')}" for name in [*PARAMETERS, "stop"]}
SAMPLING = {"temperature", "top_k", "top_p", "min_p", "typical_p"}


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "generate",
        help="let a model continue a text",
        description="Stream the continuation of a prompt, and say why it ended. What is not chosen here is as the "
        "folder's generation_config.json says.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, any folder in Hugging Face's layout, or a GGUF file")
    p.add_argument(
        "prompt", nargs="?", default="", help="the text to continue; -: standard input; default: nothing, a new text"
    )
    p.add_argument("--file", type=name_of_something, metavar="F", help="the text to continue is in this UTF-8 file")
    for name, kind, what in NUMBERS:
        p.add_argument(name, type=kind, metavar="N" if kind.kind is int else "X", help=what)
    p.add_argument("--stop", action="append", metavar="TEXT", help="end when this text comes up (may be given again)")
    p.add_argument(
        "--slide", action="store_true", help="when the context is full, forget its older half and go on, without end"
    )
    p.add_argument(
        "--special", action="store_true", help="special tokens written in the prompt count as such, not as plain text"
    )
    p.add_argument("--int8", action="store_true", help="round the weights to one byte first: less memory, more speed")
    add_ignore_unknown(p)
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from .. import models
    from ..generation import GenerationConfig
    from ..training.run import load_run

    changes = _parameters(options)
    with in_words_of_the_command(OPTIONS):
        GenerationConfig(**changes)  # what cannot be is refused before a model is read
    prompt = _prompt(options)
    with computing(options) as notice:
        loaded = load_run(options.folder, options.ignore_unknown, stored=not options.int8)
        if loaded.generation.temperature == 0 and SAMPLING & changes.keys():
            changes.setdefault("temperature", 1.0)  # who narrows the choice wants one
        with in_words_of_the_command(OPTIONS):
            config = loaded.generation.replace(**changes)
        model = loaded.model
        if options.int8 and not isinstance(model, models.QuantizedModel):
            model = models.quantize(model)
        with in_words_of_the_command(OPTIONS):
            if config.n > 1 or config.num_beams > 1:
                reasons = write_all(model, loaded.tokenizer, prompt, config, options.logprobs is not None)
            else:
                reasons = {speak(model, loaded.tokenizer, prompt, config, notice, options.logprobs is not None)}
    if config.temperature == 0 and "temperature" not in changes:
        _tell_greedy(Path(options.folder))
    if "context" in reasons and config.num_beams == 1:
        say("[--slide goes on where the context is full, and forgets its older half]")
    return 0


def _parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters of generation that the command line chooses."""
    chosen = {name: getattr(options, name) for name in [*PARAMETERS, "stop"]}
    changes = {name: value for name, value in chosen.items() if value is not None and value is not False}
    if options.beams is not None:
        changes["num_beams"] = changes.pop("beams")
        if options.beams > 1 and not SAMPLING & changes.keys():
            changes["temperature"] = 0.0  # a search samples nothing, whatever the folder says
    if options.stop:
        changes["stop"] = tuple(options.stop)
    return changes


def _prompt(options: argparse.Namespace) -> str:
    """The text to continue, from where it stands; a line end at its very end is not part of it."""
    from ..files import read_text

    if options.file is None and options.prompt != "-":
        return options.prompt
    if options.file is not None and options.prompt:
        raise ValueError("the prompt and --file both give the text to continue: leave one of them out")
    if options.file not in (None, "-"):
        text = read_text(options.file, limit=100_000_000)
    elif sys.stdin is None:
        raise ValueError("there is no standard input to read the prompt from")
    else:
        if sys.stdin.isatty():
            say("[type the text to continue; Ctrl-D on a line of its own ends it]")
        try:
            text = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"standard input is not UTF-8: {error}") from None
    return text.replace("\r\n", "\n").removesuffix("\n")


def _tell_greedy(folder: Path) -> None:
    if (folder / "generation_config.json").exists():
        say("[greedy, as generation_config.json says; --temperature 1 samples]")
    else:
        say("[greedy, as there is no generation_config.json; --temperature 1 samples]")


def speak(model: Any, tokenizer: Any, prompt: str, config: Any, notice: Any, logprobs: bool = False) -> str:
    """Stream a text to standard output, and to standard error why it ended; returns the reason.

    notice: speaks of kernels that compile before the first two tokens.
    """
    from ..generation import stream

    pieces = stream(model, tokenizer, prompt, config)  # which refuses a prompt that is too long
    seen = list(itertools.islice(pieces, 2))  # kernels of reading and of writing compile before anything is shown
    notice.finish()
    begun = time.perf_counter()
    print(_shown(model, prompt) + "".join(piece.text for piece in seen), end="", flush=True)
    try:
        for piece in pieces:
            print(piece.text, end="", flush=True)
            seen.append(piece)
    except KeyboardInterrupt:
        print(flush=True)
        raise
    print(flush=True)
    if logprobs:
        print(table(seen, tokenizer), flush=True)
    tokens = sum(len(piece.ids) for piece in seen)
    speed = f" at {(tokens - 2) / max(time.perf_counter() - begun, 1e-9):,.0f} a second" if tokens > 2 else ""
    say(f"[{_reason(seen[-1])}, after {tokens} tokens{speed}]")
    return seen[-1].finish_reason or ""


def write_all(model: Any, tokenizer: Any, prompt: str, config: Any, logprobs: bool = False) -> set[str]:
    """Write several texts, or search for the best, and print each when all are done; returns why
    they ended.
    """
    from ..generation import generate_batch

    texts = generate_batch(model, tokenizer, [prompt], config)
    for number, text in enumerate(texts, start=1):
        print(_shown(model, prompt) + text.text, flush=True)
        if logprobs:
            print(table([text], tokenizer), flush=True)
        score = "" if text.score is None else f", log-probability {sum(text.logprobs):.2f}, score {text.score:.3f}"
        say(f"[{number} of {len(texts)}: {_reason(text)}, after {len(text.ids)} tokens{score}]")
        if number < len(texts):
            print(flush=True)
    return {text.finish_reason or "" for text in texts}


def _shown(model: Any, prompt: str) -> str:
    """What is printed before a text: an answer does not continue its question."""
    return "" if model.is_encoder_decoder else prompt


def _reason(text: Any) -> str:
    return f"{text.finish_reason}: {FINISH_REASONS.get(text.finish_reason or '', 'ended')}"
