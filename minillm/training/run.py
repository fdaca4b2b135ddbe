"""A run folder: all that a training leaves behind.

    config.json model.safetensors           the model, in Hugging Face's layout: `transformers` can open it
    tokenizer.json generation_config.json   how text becomes ids, and how it is drawn
    log.jsonl                               a line per logged step
    checkpoints/                            to go on from, see checkpoint.py
    training.json                           what the training was started with, and a hash of its text
    training.lock                           while it is trained: the number of the process, see lock.py
    README.md                               a model card, see model_card.py
    loss.png                                where matplotlib is installed, see plot.py

The model is written anew with each checkpoint, and holds the same weights. One that a learner wrote
is there too, but minillm does not know how to build it: config.json has its name alone.
"""  # noqa: W505

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import files
from ..generation.config import GenerationConfig
from ..models.folder.saving import OWN_MODEL, save_pretrained
from ..tokenizer import Tokenizer
from .checkpoint import newest_step
from .lock import LOCK, training_lock
from .model_card import model_card
from .recipe import Recipe

__all__ = ["LoadedRun", "Run", "load_run"]

TRAINING, LOG = "training.json", "log.jsonl"
TUNING = ("sft", "dpo")  # commands, beside train, that say in the settings who they are


class LoadedRun(NamedTuple):
    """What `load_run` found."""

    model: Any
    tokenizer: Any
    generation: GenerationConfig


class Run:
    """A run folder: `Run.create` makes a new one, `Run.open` goes back to one that is there.

    path: the folder. settings: what the training was started with, as JSON can hold it. about: what
    the data is, a few words for the model card. sha256: of the text, where it may change meanwhile.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any], about: str, sha256: str | None = None
    ) -> None:
        self.path = Path(path)
        self.settings, self.about, self.sha256 = dict(settings), about, sha256
        self.generation = GenerationConfig()  # how the model is to draw, where nobody says otherwise
        self._is_locked = False

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any] | None = None,
        about: str = "",
        sha256: str | None = None,
    ) -> Run:
        """Make a new run folder. Raises FileExistsError when something is there: nothing is ever
        overwritten.
        """
        cls.refuse_existing(path)
        run = cls(path, settings or {}, about, sha256)
        run.path.mkdir(parents=True, exist_ok=True)
        with run.lock():
            cls.refuse_existing(path)  # another process may have had the same idea
            files.write_json(run.path / TRAINING, run._content())
        return run

    def change(self, **settings: Any) -> None:
        """Go on with other settings: training.json holds the old ones or the new ones, also after a
        crash.
        """
        self.settings |= settings
        new = self.path / f"{TRAINING}.new"
        files.write_json(new, self._content())
        os.replace(new, self.path / TRAINING)

    def _content(self) -> dict[str, Any]:
        content = {"settings": self.settings, "about": self.about}
        return content if self.sha256 is None else content | {"sha256": self.sha256}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Inside, nobody else trains here; whoever has this very Run may ask again. Raises
        BlockingIOError when another process, or another Run, trains here.
        """
        if self._is_locked:
            yield
            return
        with training_lock(self.path):
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    @classmethod
    def refuse_existing(cls, path: str | os.PathLike[str]) -> None:
        """Raise FileExistsError when there is anything but an empty folder at ``path``."""
        path = Path(path)
        if not path.exists() or (path.is_dir() and all(item.name == LOCK for item in path.iterdir())):
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
        try:
            content = files.read_json(path / TRAINING)
        except ValueError as error:
            raise ValueError(f"{error}; {cls._without_settings(path)}") from None
        settings, about, sha256 = content.get("settings"), content.get("about"), content.get("sha256")
        if not isinstance(settings, dict) or not isinstance(about, str) or not isinstance(sha256, str | None):
            raise ValueError(
                f"{path / TRAINING}: expected the entries 'settings' (a table), 'about' and, where the text has one, "
                f"'sha256' (texts); {cls._without_settings(path)}"
            )
        return cls(path, settings, about, sha256)

    @staticmethod
    def _without_settings(path: Path) -> str:
        """How to go on where training.json is damaged."""
        anew = "without it the training cannot go on: train anew, in another folder"
        holds_model = (path / "model.safetensors").exists()
        return f"{anew}; the model that lies there can be used once {TRAINING} is deleted" if holds_model else anew

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def saved_step(self) -> int | None:
        """The step of the newest checkpoint, None before the first one.

        Raises FileNotFoundError when a model was saved and there is no checkpoint: to begin anew
        would overwrite it.
        """
        step = newest_step(self.checkpoints)
        if step is None and self.holds_model:
            raise FileNotFoundError(
                f"{self.checkpoints}: no checkpoint to go on from, though a model was saved beside it, which a new "
                "beginning would overwrite; it can be used as it is, or trained anew in another folder"
            )
        return step

    @property
    def has_recipe(self) -> bool:
        """Whether the settings are a `Recipe`'s, so that the data can be made anew from them."""
        return bool(self.settings) and self.settings.keys() <= Recipe.__dataclass_fields__.keys()

    @property
    def command(self) -> str | None:
        """The command that trains here, which can make the data anew from the settings; None for a
        Python program.
        """
        if self.has_recipe:
            return "train"
        command = self.settings.get("command")
        return command if command in TUNING else None

    @property
    def resume_command(self) -> str:
        """What to type to go on: in a shell, or in Python where the run was not started by the
        command line.
        """
        if self.has_recipe:
            return f"minillm train --out {files.shell_path(self.path)} --resume"
        if self.command is not None:
            return f"minillm {self.command} {files.shell_path(self.path)} --resume"
        return f"trainer = Trainer(..., run=Run.open({str(self.path)!r})); trainer.resume(); trainer.run()"

    # ---- what the trainer writes -----------------------------------------------------------------

    def save_model(self, model: Any, tokenizer: Any) -> None:
        """Write the model, its tokenizer and how to generate with them, in Hugging Face's layout,
        whole or not at all. The tokenizer and both configurations say how texts begin.
        """
        generation, extras = self.generation, dict[str, Any]()
        ends = generation.eos_token_id or ()
        if tokenizer is not None and tokenizer.eos_id is not None and tokenizer.eos_id not in ends:
            generation = generation.replace(eos_token_id=(tokenizer.eos_id, *ends))
        if isinstance(tokenizer, Tokenizer):
            bos, before_prompts = tokenizer.bos_id, tokenizer.begins_prompts
            generation = generation.replace(bos_token_id=bos, add_bos=before_prompts)
            if bos is not None:
                extras["config_fields"] = {"bos_token_id": bos if bos in tokenizer.special_tokens.values() else None}
            tokenizer = tokenizer.as_trained()
        if not (self.path / "generation_config.json").exists():
            extras["generation_config"] = generation
        if hasattr(model, "save_pretrained"):
            model.save_pretrained(self.path, tokenizer=tokenizer, **extras)
        else:  # one that a learner wrote
            save_pretrained(model, self.path, tokenizer=tokenizer, **extras)

    @property
    def holds_model(self) -> bool:
        """Whether a model was saved here."""
        return (self.path / "model.safetensors").exists()

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


def load_run(
    path: str | os.PathLike[str], ignore_unknown: Collection[str] = (), stored: bool = False
) -> LoadedRun:
    """Load model, tokenizer and generation settings from a run folder, from any folder in Hugging
    Face's layout, or from a GGUF file.

    ignore_unknown: names of fields and tensors to read on without; stored: keep the matrices of a
    GGUF file in its blocks, to read them faster; for both see ``models.from_pretrained``.
    A tokenizer that is larger than the model is warned about: the model does not know its last
    tokens.

    Raises FileNotFoundError when there is no such folder, ValueError, with the file and how to go
    on, when it is no model folder, the training was killed before its first checkpoint, the model
    is of a class that minillm does not have, there is no tokenizer, or something is damaged.
    """
    loaded = load_model(path, ignore_unknown, stored)
    if loaded.tokenizer is None:
        path = Path(path)
        if not (path / TRAINING).is_file():
            raise ValueError(f"{path} is not a run folder: it has no tokenizer.json, and no vocab.json with merges.txt")
        raise ValueError(
            f"{path}: no tokenizer.json: the model was trained on token ids; put the tokenizer that made them there, "
            f"in Python: tokenizer.save({str(path)!r})"
        )
    return loaded


def load_model(
    path: str | os.PathLike[str], ignore_unknown: Collection[str] = (), stored: bool = False
) -> LoadedRun:
    """The same, where a tokenizer may be missing (None)."""
    from .. import models, tokenizer
    from ..models.folder import gguf
    from ..tokenizer.from_gguf import from_settings

    if files.is_gguf(path):
        file = files.open_gguf(path)  # once, for all three
        generation = GenerationConfig.from_dict(gguf.generation_fields(file), source=str(file.path))
        model = models.from_pretrained(file, ignore_unknown=ignore_unknown, stored=stored)
        return LoadedRun(model, from_settings(file), generation)
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(files.no_such_folder(path, "run folder"))
    if not (path / "config.json").is_file():
        raise _without_model(path)
    content = files.read_json(path / "config.json")
    if content.get("model_type") == OWN_MODEL:
        raise ValueError(
            f"{path} holds the weights of {content.get('class')}, a class of your own that minillm cannot build: make "
            "one in Python, then model.load_state_dict(minillm.files.read_safetensors"
            f"({str(path / 'model.safetensors')!r}))"
        )
    model = models.from_pretrained(path, ignore_unknown=ignore_unknown)
    try:
        words = tokenizer.load(path)
    except FileNotFoundError:
        return LoadedRun(model, None, GenerationConfig.load(path))
    if words.vocab_size > model.config.vocab_size:
        warnings.warn(
            f"{path}: the tokenizer has {words.vocab_size} tokens, the model only {model.config.vocab_size}: "
            "if they do not belong together, the text will be nonsense",
            stacklevel=3,
        )
    return LoadedRun(model, words, GenerationConfig.load(path))


def _without_model(path: Path) -> ValueError:
    """What to say of a folder without config.json."""
    if not (path / TRAINING).is_file():
        what = "it is a file" if path.is_file() else "it has no config.json (the configuration)"
        return ValueError(
            f"{path} is not a run folder: {files.about_adapters(path) or files.about_pickles(path) or what}"
        )
    resume = Run.open(path).resume_command
    return ValueError(f"{path}: no config.json: the training ended before it was saved; go on with: {resume}")
