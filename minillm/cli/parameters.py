"""The parameters of generation as options of a command, and the ends of a text in its words."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from .parser import add_ignore_unknown, in_words_of_the_command
from .values import between, positive, seed, whole

if TYPE_CHECKING:
    from ..training.run import LoadedRun

__all__ = ["OPTIONS", "add_parameters", "chosen_parameters", "open_model", "reason"]

FINISH_REASONS = {
    "eos": "the model wrote its end-of-text token",
    "end_of_turn": "the model ended its turn",
    "stop": "a stop string came up",
    "length": "--max-new-tokens was reached",
    "context": "the model's context is full",
    "cancelled": "Ctrl-C ended it",
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
    ("--max-new-tokens", whole(0, A_MILLION), "write at most N tokens; default 256, in minillm chat 1024"),
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


def add_parameters(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """Teach a command all options that say how a text is written, but for some."""
    for name, kind, what in NUMBERS:
        if name not in without:
            parser.add_argument(name, type=kind, metavar="N" if kind.kind is int else "X", help=what)
    parser.add_argument(
        "--stop", action="append", metavar="TEXT", help="end when this text comes up (may be given again)"
    )
    parser.add_argument(
        "--int8", action="store_true", help="round the weights to one byte first: less memory, more speed"
    )
    add_ignore_unknown(parser)


def chosen_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The parameters of generation that the command line chooses. Raises ValueError for what cannot
    be, before a model is read.
    """
    from ..generation import GenerationConfig

    chosen = {name: getattr(options, name, None) for name in [*PARAMETERS, "stop"]}
    changes = {name: value for name, value in chosen.items() if value is not None and value is not False}
    if "beams" in changes:
        changes["num_beams"] = changes.pop("beams")
        if changes["num_beams"] > 1 and not SAMPLING & changes.keys():
            changes["temperature"] = 0.0  # a search samples nothing, whatever the folder says
    if options.stop:
        changes["stop"] = tuple(options.stop)
    with in_words_of_the_command(OPTIONS):
        GenerationConfig(**changes)
    return changes


def open_model(options: argparse.Namespace, changes: Mapping[str, Any]) -> LoadedRun:
    """The model of a command, its tokenizer, and its settings with the changes that were chosen."""
    from .. import models
    from ..training.run import LoadedRun, load_run

    model, tokenizer, config = load_run(options.folder, options.ignore_unknown, stored=not options.int8)
    if config.temperature == 0 and SAMPLING & changes.keys():
        config = config.replace(temperature=1.0)  # who narrows the choice wants one
    with in_words_of_the_command(OPTIONS):
        config = config.replace(**changes)
    if options.int8 and not isinstance(model, models.QuantizedModel):
        try:
            model = models.quantize(model)
        except ValueError as error:
            raise ValueError(f"{error}; leave --int8 out") from None
    return LoadedRun(model, tokenizer, config)


def reason(text: Any) -> str:
    """Why a text ended, in a sentence: "eos: the model wrote its end-of-text token"."""
    return f"{text.finish_reason}: {FINISH_REASONS.get(text.finish_reason or '', 'ended')}"
