"""What the commands that tune a model have in common: their settings, and how a run goes on."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .computing import add_threads
from .terminal import say
from .values import Number, name_of_something

if TYPE_CHECKING:
    from ..training.run import LoadedRun, Run
    from ..training.trainer import Trainer


def add_options(p: Any, what: str, data: str, numbers: Sequence[tuple[str, Number, str]]) -> None:
    """The run to begin with, the data, the run to make, and numbers: option, type, what it is.

    what: is added to the name of the run to begin with. data: how a line of the file looks.
    """
    p.add_argument(
        "folder", metavar="RUN", help="the run folder, or model folder in Hugging Face's layout, to begin with"
    )
    p.add_argument("--data", type=name_of_something, metavar="FILE", help=f"a JSONL file, on each line {data}")
    p.add_argument(
        "--out",
        type=name_of_something,
        metavar="RUN",
        help=f"the run folder to make; default: RUN-{what}, RUN-{what}-2 ...",
    )
    p.add_argument(
        "--resume", action="store_true", help="go on with the run in RUN, bit for bit as if uninterrupted"
    )
    for name, kind, told in numbers:
        p.add_argument(name, type=kind, metavar="N" if kind.kind is int else "X", help=told)
    add_threads(p)


def settings_of(
    options: argparse.Namespace, usual: Mapping[str, Any], added: Mapping[str, Any] = MappingProxyType({})
) -> tuple[dict[str, Any], Run | None]:
    """The settings, and the run that goes on with them, if one does: those that were typed, or what
    is usual; or those in its folder.

    added: those that older runs do not name, as they were then.

    Raises ValueError for a run of another kind, and for settings that are typed with --resume.
    """
    from ..training.run import Run

    typed = {name: value for name in usual if (value := getattr(options, name)) is not None}
    if not options.resume:
        if "data" in typed:
            typed["data"] = str(Path(typed["data"]).resolve())
        return {"command": options.command, "start": str(Path(options.folder).resolve()), **usual, **typed}, None
    if given := [name for name in ("out", *usual) if getattr(options, name) is not None]:
        raise ValueError(
            f"--resume goes on in RUN with the run's own settings; leave --{given[0].replace('_', '-')} out"
        )
    run = Run.open(options.folder)
    if run.command != options.command:
        raise ValueError(f"{run.path} was not made by minillm {options.command}; go on with: {run.resume_command}")
    settings = {**added, **run.settings}
    if settings.keys() != {"command", "start", *usual}:
        raise ValueError(f"{run.path}: its settings are not those of minillm {options.command} of this version")
    return settings, run


def start_of(settings: Mapping[str, Any]) -> LoadedRun:
    """The model to begin with. Raises ValueError for one that does not go on with a text, and as
    `open_start` does.
    """
    from ..files import shell_path
    from ..training.start import open_start

    folder = settings["start"]
    loaded = open_start(folder)
    if loaded.model.is_encoder_decoder:
        raise ValueError(
            f"{folder}: a {type(loaded.model).__name__} answers each question by itself, and learns from pairs: "
            f"minillm train --from {shell_path(folder)} --data PAIRS"
        )
    return loaded


def unchanged(read: Sequence[Any], path: str, run: Run | None) -> str:
    """The SHA-256 of what was read from --data. Raises ValueError where the run began with another.
    """
    from ..data.digest import text_digest

    found = text_digest([json.dumps(item) for item in read])
    if run is not None and run.sha256 not in (None, found):
        raise ValueError(
            f"{path} is no longer what {run.path} began with (its SHA-256 differs): put the old file back, or begin "
            "a new run"
        )
    return found


def new_folder(options: argparse.Namespace, what: str) -> Path:
    """Where the new run goes: --out, or RUN-what, RUN-what-2, -3 ... where that exists.

    Raises FileExistsError when something is there.
    """
    from ..training.run import Run

    base = Path(options.folder)
    path, number = Path(options.out) if options.out else base.with_name(f"{base.name}-{what}"), 2
    while path.exists() and not options.out:
        path, number = base.with_name(f"{base.name}-{what}-{number}"), number + 1
    Run.refuse_existing(path)
    return path


def resume(trainer: Trainer) -> None:
    """Go back to the last checkpoint, or say that there is none."""
    if trainer.resume() == 0:
        say("the run ended before its first checkpoint: it begins anew")
