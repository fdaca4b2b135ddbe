"""The model card, README.md of a run folder: data, settings, loss against the floor, a sample."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .. import files
from ..models.folder.pretrained import FAMILIES
from .best import best_of

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
        _commands(run, trainer, result),
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
        best = best_of(run.path)
        kept = "" if best is None else f" The weights here are those of the lowest validation loss: {best}."
        return f"All {result.steps:,} steps were done.{kept}"
    return f"After step {result.step:,} of {result.steps:,}: {result.stopped}. It can go on, see below."


def _table(config: Any, title: str) -> str:
    """A configuration as a table."""
    if not dataclasses.is_dataclass(config):
        return ""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    rows = [f"| {name} | {'automatic' if value is None else value} |" for name, value in values.items()]
    return "\n".join([f"| {title} | |", "|---|---|", *rows])


def _commands(run: Run, trainer: Any, result: Any) -> str:
    """What can be done with this folder: no command that would only say what it lacks."""
    folder, notes = files.shell_path(run.path), ""
    shell: list[str] = []
    python: list[str] = []
    if type(trainer.model) not in {family.model for family in FAMILIES.values()}:
        notes = "The model is of a class of your own: make one in Python, and give it its weights."
        weights = str(run.path / "model.safetensors")
        python = ["from minillm.files import read_safetensors", f"model.load_state_dict(read_safetensors({weights!r}))"]
    elif trainer.tokenizer is None:
        notes = (
            "The model was trained on token ids. To generate and evaluate, put the tokenizer that made them into the "
            f"folder, in Python: `tokenizer.save({str(run.path)!r})`."
        )
        shell = [f"minillm info {folder}"]
    else:
        prompt = _prompt(trainer, result)
        shell = [f"minillm generate {folder} {files.shell_word(prompt)}" if prompt else f"minillm generate {folder}"]
        if run.has_recipe:
            shell.append(f"minillm eval {folder}")
        elif trainer.model.is_encoder_decoder:
            shell.append(f"minillm info {folder}")
        else:
            shell.append(f"minillm eval {folder} --data YOUR_TEXT.txt")
    if result.resume_command:
        (shell if run.command else python).append(result.resume_command)
    blocks = [
        "\n".join([f"```{language}", *lines, "```"]) for language, lines in (("", shell), ("python", python)) if lines
    ]
    return "\n\n".join([notes, *blocks] if notes else blocks)


def _prompt(trainer: Any, result: Any) -> str:
    """A few words that the tokenizer can read and a person can type; none where there are none."""
    text = result.sample or ""
    sample = text.split("\n")[0] if trainer.model.is_encoder_decoder else " ".join(text.split()[:4])
    for words in (sample.lstrip("-"), "Once upon a time"):  # a dash would make an option of it
        if words and words.isprintable() and "\ufffd" not in words:
            try:
                trainer.tokenizer.encode(words)
            except ValueError:  # letters that it does not have
                continue
            return words
    return "..." if trainer.model.is_encoder_decoder else ""


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.strip().splitlines())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
