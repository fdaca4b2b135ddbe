"""``minillm why``: why a text stops where it does."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .computing import add_threads, computing
from .parameters import OPTIONS, add_parameters, chosen_parameters, open_model, reason
from .parser import in_words_of_the_command
from .probabilities import stop_chart
from .terminal import say, write
from .values import name_of_something, not_one_of

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

PICTURES = (".png", ".svg", ".pdf")


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "why",
        allow_abbrev=False,  # --n would be --no-repeat-ngram-size
        help="show why a text stops: how likely the model was to stop at each token",
        description="Let a model answer, say which of the seven reasons ended the text, and show the probability of "
        "its end-of-text and end-of-turn tokens at each position, in the terminal and as a picture. The question is "
        "put into the chat template of a model that has one.",
    )
    p.add_argument("folder", metavar="RUN", help="a run folder, any folder in Hugging Face's layout, or a GGUF file")
    p.add_argument("prompt", help="the question, or the text to continue")
    p.add_argument(
        "--before", type=name_of_something, metavar="RUN0",
        help="show the model that RUN was tuned from too: how likely it is to stop in the same text",
    )  # fmt: skip
    p.add_argument(
        "--out",
        type=_picture,
        metavar="FILE",
        help="the picture, .png, .svg or .pdf; default: why.png in RUN, in the current folder where RUN is a GGUF file",
    )
    p.add_argument("--raw", action="store_true", help="the prompt is read as it is, also by a chat model")
    add_parameters(p, without=("--n", "--beams", "--logprobs"))
    add_threads(p)
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from .. import chat
    from ..generation import generate
    from ..generation.stop_curves import stop_curves, stopping_ids

    changes = chosen_parameters(options)
    if changes.get("max_new_tokens") == 0:
        raise ValueError("--max-new-tokens must be at least 1: a text without tokens stops nowhere")
    path = options.out or Path(options.folder if Path(options.folder).is_dir() else ".") / "why.png"
    if not path.parent.is_dir():
        raise FileNotFoundError(f"--out: {path.parent}: no such folder")
    with computing(options):
        model, tokenizer, config = open_model(options, changes)
        config = config.replace(n=1)
        before = None if options.before is None else _before(options, tokenizer)
        prompt = options.prompt
        if tokenizer.chat_format is not None and not options.raw:
            prompt = chat.prompt([{"role": "user", "content": prompt}], tokenizer)
        with in_words_of_the_command(OPTIONS):
            text = generate(model, tokenizer, prompt, config)
        groups = stopping_ids(tokenizer, config)
        after = stop_curves(model, tokenizer, prompt, text.ids, groups, config)
        earlier = None if before is None else stop_curves(before, tokenizer, prompt, text.ids, groups, config)
    told = f"{reason(text)}, after {len(text.ids):,} tokens"
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    titles = {group: f"{group} ({', '.join(names.get(id, f'token {id}') for id in groups[group])})" for group in groups}
    picture = _draw(path, after, earlier, titles, text.ids, tokenizer, told)
    write(f"{text.text}\n\n{told}\n")
    for where, curves in (("", after), (f", before, in {options.before}", earlier)):
        for group, curve in (curves or {}).items():
            print(f"\n{titles[group]}{where}:\n{stop_chart(curve.tolist(), text.ids, tokenizer)}")
    sys.stdout.flush()
    say(picture)
    return 0


def _before(options: argparse.Namespace, tokenizer: Tokenizer) -> Any:
    """The model before its tuning, as the tuning began: with rows for the tokens that it lacked."""
    from .. import models
    from ..chat.sft import with_rows
    from ..training.run import load_run

    loaded = load_run(options.before, options.ignore_unknown)
    old, new = loaded.tokenizer.vocab_size, tokenizer.vocab_size
    if old > new or any(loaded.tokenizer.token_bytes(id) != tokenizer.token_bytes(id) for id in range(old)):
        raise ValueError(
            f"--before: {options.before} has other tokens than {options.folder}: name the model that it was tuned from"
        )
    if isinstance(loaded.model, models.QuantizedModel) and loaded.model.config.vocab_size < new:
        raise ValueError(f"--before: {options.before} is in int8, and cannot get the tokens that it lacks")
    return with_rows(loaded.model, tokenizer)


def _draw(path: Path, after: Any, before: Any, titles: Any, ids: list[int], tokenizer: Tokenizer, told: str) -> str:
    """Draw the curves, if somebody can; returns what to say about it."""
    if not after:
        return "[no token ends the texts of this model: only their length does]"
    if importlib.util.find_spec("matplotlib") is None:
        return "[no picture: it is drawn by matplotlib, which is not here: pip install matplotlib]"
    from ..check.stop_plot import stopping

    tokens = [tokenizer.token_bytes(id).decode("utf-8", "replace") for id in ids]
    named = [None if curves is None else {titles[name]: p for name, p in curves.items()} for curves in (after, before)]
    stopping(named[0] or {}, tokens, named[1], told, path)
    return f"[a picture: {path}]"


def _picture(text: str) -> Path:
    path = Path(name_of_something(text))
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(not_one_of(PICTURES, path.suffix).replace("must be", "must end in"))
    return path
