"""``minillm generate``: a model continues a text."""

from __future__ import annotations

import argparse
from typing import Any

from .parser import add_ignore_unknown, add_threads, set_threads
from .terminal import say

FINISH_REASONS = {
    "eos": "the model wrote its end-of-text token",
    "end_of_turn": "the model ended its turn",
    "stop": "a stop string came up",
    "length": "--max-new-tokens was reached",
    "context": "the model's context is full",
    "cancelled": "cancelled",
    "criterion": "a criterion was met",
}


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "generate",
        help="let a model continue a text",
        description="Stream the continuation of a prompt, and say why it ended.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, any folder in Hugging Face's layout, or a GGUF file")
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
    add_ignore_unknown(p)
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from .. import models
    from ..training.run import load_run

    set_threads(options)
    loaded = load_run(options.folder, options.ignore_unknown)
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
    speak(model, loaded.tokenizer, options.prompt, config)
    return 0


def speak(model: Any, tokenizer: Any, prompt: str, config: Any) -> None:
    """Stream a text to standard output, and to standard error why it ended."""
    import time

    from ..generation import stream

    begun, tokens, reason = time.perf_counter(), 0, None
    for piece in stream(model, tokenizer, prompt, config):
        print(piece.text, end="", flush=True)
        tokens += len(piece.ids)
        reason = piece.finish_reason
    print(flush=True)
    speed = tokens / max(time.perf_counter() - begun, 1e-9)
    say(f"[{reason}: {FINISH_REASONS.get(reason or '', 'ended')}, after {tokens} tokens at {speed:,.0f} a second]")
