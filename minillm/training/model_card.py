"""The model card, README.md of a run folder: data, settings, loss against the floor, a sample."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .. import files

if TYPE_CHECKING:
    from .run import Run

__all__ = ["model_card"]


def model_card(run: Run, trainer: Any, result: Any) -> str:
    """The card of a run that has ended, in Markdown."""
    from .. import __version__

    parts = [
        f"# {run.path.resolve().name}",
        f"A language model of {sum(p.size for p in trainer.model.parameters()):,} parameters "
        f"({type(trainer.model).__name__}), trained with minillm {__version__}.",
        _figures(result),
        "![The loss while training](loss.png)" if (run.path / "loss.png").exists() else "",
        "## A sample",
        _quoted(result.sample) if result.sample else "None was drawn.",
        "## How the training ended",
        _ending(run, result),
        "## Data",
        run.about or "Not described.",
        f"{trainer.dataset.tokens_per_epoch:,} tokens to learn from, {trainer.dataset.validation_tokens:,} held out.",
        "## Settings",
        _table(getattr(trainer.model, "config", None), "model"),
        _table(trainer.config, "training"),
        "## Going on",
        _commands(run, result),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _figures(result: Any) -> str:
    """The table of losses, and the other figures in a sentence."""
    e = result.evaluation
    rows = [("training loss, last steps", result.loss)]
    if e is not None:
        rows.append(("validation loss", e.loss))
        if e.floor is not None:
            rows += [
                ("floor: the entropy of the text, no model can do better", e.floor),
                ("above the floor", e.above_floor),
            ]
    in_nats = e is None or e.in_nats
    unit, what = ("nats per token", "tokens") if in_nats else ("own loss", "targets")
    lines = [f"| | {unit} |", "|---|---|", *(f"| {name} | {value:.4f} |" for name, value in rows)]
    sentence = [f"{result.tokens:,} {what} learned from in {result.step:,} steps and {_duration(result.seconds)}"]
    if e is not None and in_nats:
        sentence.append(f"perplexity {e.perplexity:,.2f}")
        if e.bits_per_byte is not None:
            sentence.append(f"{e.bits_per_byte:.3f} bits per byte")
    return "\n".join(lines) + f"\n\n{'; '.join(sentence)}."


def _ending(run: Run, result: Any) -> str:
    if result.stopped == "finished":
        return f"All {result.steps:,} steps were done."
    return f"After step {result.step:,} of {result.steps:,}: {result.stopped}. It can go on, see below."


def _table(config: Any, title: str) -> str:
    """A configuration as a table."""
    if not dataclasses.is_dataclass(config):
        return ""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    rows = [f"| {name} | {'automatic' if value is None else value} |" for name, value in values.items()]
    return "\n".join([f"| {title} | |", "|---|---|", *rows])


def _commands(run: Run, result: Any) -> str:
    folder = files.shell_path(run.path)
    lines = [f'minillm generate {folder} "Once upon a time"', f"minillm eval {folder}"]
    if result.resume_command:
        lines.append(result.resume_command)
    return "\n".join(["```", *lines, "```"])


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.strip().splitlines())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
