"""A run folder: all that a training leaves behind.

    config.json model.safetensors           the model, in Hugging Face's layout: `transformers` can open it
    tokenizer.json generation_config.json   how text becomes ids, and how it is drawn
    log.jsonl                               a line per logged step
    checkpoints/                            to go on from, see checkpoint.py
    training.json                           what the training was started with
    README.md                               a model card, see model_card.py
    loss.png                                where matplotlib is installed, see plot.py

The model is written anew with each checkpoint, and holds the same weights.
"""  # noqa: W505

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import files
from ..generation.config import GenerationConfig
from .model_card import model_card

__all__ = ["LoadedRun", "Run", "load_run"]

TRAINING, LOG = "training.json", "log.jsonl"


class LoadedRun(NamedTuple):
    """What `load_run` found."""

    model: Any
    tokenizer: Any
    generation: GenerationConfig


class Run:
    """A run folder: `Run.create` makes a new one, `Run.open` goes back to one that is there.

    path: the folder. settings: what the training was started with, as JSON can hold it. about: what
    the data is, a few words for the model card.
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], about: str) -> None:
        self.path = Path(path)
        self.settings, self.about = dict(settings), about

    @classmethod
    def create(cls, path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, about: str = "") -> Run:
        """Make a new run folder. Raises FileExistsError when something is there: nothing is ever
        overwritten.
        """
        cls.refuse_existing(path)
        run = cls(path, settings or {}, about)
        run.path.mkdir(parents=True, exist_ok=True)
        files.write_json(run.path / TRAINING, {"settings": run.settings, "about": about})
        return run

    @classmethod
    def refuse_existing(cls, path: str | os.PathLike[str]) -> None:
        """Raise FileExistsError when there is anything but an empty folder at ``path``."""
        path = Path(path)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
        try:
            other_way = f", or go on with: {cls.open(path).resume_command}"
        except (ValueError, OSError):  # it is no run
            other_way = ""
        raise FileExistsError(
            f"{path} exists already, and nothing in it is overwritten: choose another name{other_way}"
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Go back to a run folder. Raises FileNotFoundError when there is none, ValueError when it
        is not ours.
        """
        path = Path(path)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such run folder")
        if not (path / TRAINING).is_file():
            raise ValueError(f"{path} is not a run folder: it has no {TRAINING}")
        content = files.read_json(path / TRAINING)
        settings, about = content.get("settings"), content.get("about")
        if not isinstance(settings, dict) or not isinstance(about, str):
            raise ValueError(f"{path / TRAINING}: expected the entries 'settings' (a table) and 'about' (a text)")
        return cls(path, settings, about)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def resume_command(self) -> str:
        """What to type to go on: in a shell, or in Python where the run was not started by the
        command line.
        """
        if self.settings:
            return f"minillm train --out {files.shell_path(self.path)} --resume"
        return f"trainer = Trainer(..., run=Run.open({str(self.path)!r})); trainer.resume(); trainer.run()"

    # ---- what the trainer writes -----------------------------------------------------------------

    def save_model(self, model: Any, tokenizer: Any) -> None:
        """Write the model, its tokenizer and how to generate with them, in Hugging Face's layout,
        whole or not at all.

        A model that does not know how to save itself (one that a learner wrote) lives in the
        checkpoints alone.
        """
        if not hasattr(model, "save_pretrained"):
            return
        generation = None
        if not (self.path / "generation_config.json").exists():
            generation = GenerationConfig(eos_token_id=None if tokenizer is None else tokenizer.eos_id)
        model.save_pretrained(self.path, tokenizer=tokenizer, generation_config=generation)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a line to log.jsonl."""
        with open(self.path / LOG, "ab") as file:
            file.write(files.to_json(record) + b"\n")

    def records(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl; a last line that a crash cut short is left out.

        Raises ValueError, with the line's number, when another one is damaged.
        """
        path = self.path / LOG
        if not path.exists():
            return []
        lines = path.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        return [files.parse_json(line, f"{path}, line {i}") for i, line in enumerate(whole, start=1)]

    def cut_log(self, step: int) -> list[dict[str, Any]]:
        """Keep the lines up to ``step``, and return them: what came after is done again."""
        records = [record for record in self.records() if record.get("step", 0) <= step]
        path = self.path / LOG
        if path.exists():
            with files.durable_file(path.with_suffix(".new")) as file:
                file.write(b"".join(files.to_json(record) + b"\n" for record in records))
            os.replace(path.with_suffix(".new"), path)
        return records

    def write_card(self, trainer: Any, result: Any) -> None:
        """Write README.md, the model card."""
        files.write_text(self.path / "README.md", files.shown(model_card(self, trainer, result)))


def load_run(path: str | os.PathLike[str], ignore_unknown: Collection[str] = ()) -> LoadedRun:
    """Load model, tokenizer and generation settings from a run folder, from any folder in Hugging
    Face's layout, or from a GGUF file.

    ignore_unknown: names of fields and tensors to read on without, see ``models.from_pretrained``.
    A tokenizer that is larger than the model is warned about: the model does not know its last
    tokens.

    Raises FileNotFoundError when there is no such folder, ValueError, with the file, when it is no
    model folder, the training was killed before its first checkpoint, or something is damaged.
    """
    from .. import models, tokenizer
    from ..models.folder import gguf

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run folder")
    if files.is_gguf(path):
        fields = gguf.generation_fields(files.open_gguf(path))
        generation = GenerationConfig.from_dict(fields, source=str(path))
        return LoadedRun(models.from_pretrained(path, ignore_unknown=ignore_unknown), tokenizer.load(path), generation)
    if not (path / "config.json").is_file():
        raise _incomplete(path, "config.json", "it has no config.json (the configuration)")
    model = models.from_pretrained(path, ignore_unknown=ignore_unknown)
    try:
        words = tokenizer.load(path)
    except FileNotFoundError as error:
        raise _incomplete(path, "tokenizer.json", str(error)) from None
    if words.vocab_size > model.config.vocab_size:
        warnings.warn(
            f"{path}: the tokenizer has {words.vocab_size} tokens, the model only {model.config.vocab_size}: "
            "if they do not belong together, the text will be nonsense",
            stacklevel=2,
        )
    return LoadedRun(model, words, GenerationConfig.load(path))


def _incomplete(path: Path, name: str, why: str) -> ValueError:
    """What to say of a folder that lacks a file."""
    if (path / TRAINING).is_file():
        resume = Run.open(path).resume_command
        return ValueError(f"{path}: no {name}: the training ended before it was saved; go on with: {resume}")
    return ValueError(f"{path} is not a run folder: {why}")
