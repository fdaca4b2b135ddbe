"""``minillm generate``: a model continues a text."""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

from .computing import add_threads, computing
from .parameters import OPTIONS, add_parameters, chosen_parameters, open_model, reason
from .parser import in_words_of_the_command
from .probabilities import table
from .terminal import say, write
from .values import name_of_something


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
    add_parameters(p)
    p.add_argument(
        "--slide", action="store_true", help="when the context is full, forget its older half and go on, without end"
    )
    p.add_argument(
        "--special", action="store_true", help="special tokens written in the prompt count as such, not as plain text"
    )
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    changes = chosen_parameters(options)
    prompt = _prompt(options)
    with computing(options) as notice:
        model, tokenizer, config = open_model(options, changes)
        with in_words_of_the_command(OPTIONS):
            if config.n > 1 or config.num_beams > 1:
                reasons = write_all(model, tokenizer, prompt, config, options.logprobs is not None)
            else:
                reasons = {speak(model, tokenizer, prompt, config, notice, options.logprobs is not None)}
    if config.temperature == 0 and "temperature" not in changes:
        _tell_greedy(Path(options.folder))
    if "context" in reasons and config.num_beams == 1:
        say("[--slide goes on where the context is full, and forgets its older half]")
    if not options.special and tokenizer.chat_format is not None:
        say(f"[this model has learned to answer: minillm chat {options.folder}]")
    return 0


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
    write(_shown(model, prompt) + "".join(piece.text for piece in seen))
    try:
        for piece in pieces:
            write(piece.text)
            seen.append(piece)
    except KeyboardInterrupt:
        print(flush=True)
        raise
    print(flush=True)
    if logprobs:
        print(table(seen, tokenizer), flush=True)
    tokens = sum(len(piece.ids) for piece in seen)
    speed = f" at {(tokens - 2) / max(time.perf_counter() - begun, 1e-9):,.0f} a second" if tokens > 2 else ""
    say(f"[{reason(seen[-1])}, after {tokens} tokens{speed}]")
    return seen[-1].finish_reason or ""


def write_all(model: Any, tokenizer: Any, prompt: str, config: Any, logprobs: bool = False) -> set[str]:
    """Write several texts, or search for the best, and print each when all are done; returns why
    they ended.
    """
    from ..generation import generate_batch

    texts = generate_batch(model, tokenizer, [prompt], config)
    for number, text in enumerate(texts, start=1):
        write(_shown(model, prompt) + text.text + "\n")
        if logprobs:
            print(table([text], tokenizer), flush=True)
        score = "" if text.score is None else f", log-probability {sum(text.logprobs):.2f}, score {text.score:.3f}"
        say(f"[{number} of {len(texts)}: {reason(text)}, after {len(text.ids)} tokens{score}]")
        if number < len(texts):
            print(flush=True)
    return {text.finish_reason or "" for text in texts}


def _shown(model: Any, prompt: str) -> str:
    """What is printed before a text: an answer does not continue its question."""
    return "" if model.is_encoder_decoder else prompt
