"""Checkpoints: a training that is killed goes on, to the same result as if nothing had happened.

Each checkpoint is a folder, whole or absent (``files.atomic_folder``)::

    checkpoints/step-00000300/tensors.safetensors     parameters, and the optimiser's averages of each of them
                              trainer_state.json      the step, what the trainer counts, what it ran on, and the
                                                      SHA-256 of everything

Where the data stands and the random generators need not be stored: both are functions of
(seed, step).

A disk may lose bits long after it said that it has them. So the reader believes nothing that does
not match its checksum: it takes the newest checkpoint that is whole, else the one before, and says
which it skipped and why.

"The same result" is meant bit for bit. What the bits depend on (environment.py) is stored, and a
difference is warned about.
"""  # noqa: W505

from __future__ import annotations

import hashlib
import json
import operator
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from .environment import changes, environment

__all__ = ["Checkpoint", "CheckpointError", "load_checkpoint", "newest_step", "save_checkpoint"]

FORMAT = "minillm checkpoint 1"
TENSORS, STATE = "tensors.safetensors", "trainer_state.json"


class CheckpointError(ValueError):
    """There are checkpoints, and all of them are damaged; the message says how."""


@dataclass(frozen=True)
class Checkpoint:
    """What ``save_checkpoint`` was given: the arrays come memory-mapped, and are the caller's to
    change.
    """

    step: int
    tensors: dict[str, np.ndarray]
    state: dict[str, Any]
    path: Path


def save_checkpoint(
    folder: files.Pathlike, step: int, tensors: Mapping[str, np.ndarray], state: Mapping[str, Any], keep: int = 2
) -> Path:
    """Save a checkpoint durably, then remove all but the newest ``keep``; return its folder.

    tensors: arrays by name, of any dtype but float16. state: whatever JSON can hold (numbers of
    NumPy too). A failure, even of the power, at any moment leaves the earlier checkpoints as they
    were.

    Raises OSError when the disk fails, ValueError when the state holds NaN or infinity, or when the
    folder holds a whole checkpoint of a later step: it belongs to another run, or to a future that
    this run has left.
    """
    folder = Path(folder)
    if not isinstance(step, int | np.integer) or step < 0 or keep < 1:
        raise ValueError(f"save_checkpoint: expected step >= 0 and keep >= 1; got step={step!r}, keep={keep!r}")
    if halves := [name for name, array in tensors.items() if array.dtype == np.float16]:
        raise ValueError(f"save_checkpoint: float16 is read back as float32, so it is not saved; got {halves[:3]}")
    step, plain_state = operator.index(step), _as_json(state)
    present = sorted(_found(folder))
    for other, _, path in present:
        if other > step and _is_whole(path):
            raise ValueError(f"save_checkpoint: {path} is later than step {step}: go on from there, or save elsewhere")
    # The name of this step is taken when its checkpoint was damaged and the run went back to the
    # one before.
    attempt = 1 + max((attempt for other, attempt, _ in present if other == step), default=0)
    path = folder / (f"step-{step:08}" if attempt == 1 else f"step-{step:08}.{attempt}")

    with files.atomic_folder(path) as staging:
        files.write_safetensors(staging / TENSORS, tensors)
        content = {
            "format": FORMAT,
            "step": step,
            "state": plain_state,
            "environment": environment(),
            "files": {TENSORS: _sha256(staging / TENSORS)},
        }
        files.write_json(staging / STATE, content | {"sha256": _seal(content)})

    files.remove_stale(folder)
    earlier = [item for item in present if item[0] < step]
    kept = earlier[max(0, len(earlier) + 1 - keep) :]
    for item in present:
        if item not in kept:
            files.remove_folder(item[2])
    return path


def load_checkpoint(folder: files.Pathlike) -> Checkpoint:
    """Load the newest checkpoint that is whole, with a warning for each newer one that is not.

    Warns too when versions, processor, kernels or number of threads differ from those it was saved
    with; set the number of threads before. Raises FileNotFoundError when there is no checkpoint,
    CheckpointError when all are damaged.
    """
    found = sorted(_found(Path(folder)), reverse=True)
    if not found:
        raise FileNotFoundError(f"{folder}: no checkpoint here")
    damages = []
    for _, _, path in found:
        try:
            content = _read_state(path)
            tensors = files.read_safetensors(path / TENSORS)
        except (ValueError, OSError) as error:
            damages.append(str(error))
            continue
        for damage in damages:
            warnings.warn(f"skipped a damaged checkpoint, went back to {path.name}: {damage}", stacklevel=2)
        if changed := changes(content["environment"], environment()):
            warnings.warn(f"{path}: {changed}: the run goes on, but not bit for bit", stacklevel=2)
        return Checkpoint(content["step"], tensors, content["state"], path)
    raise CheckpointError(f"{folder}: every checkpoint is damaged: " + "; ".join(damages))


def newest_step(folder: Path) -> int | None:
    """The step of the newest checkpoint, whole or not; None when there is none."""
    return max((step for step, _, _ in _found(folder)), default=None)


def _found(folder: Path) -> list[tuple[int, int, Path]]:
    """(step, attempt, path) of each folder that is named like a checkpoint."""
    if not folder.is_dir():
        return []
    matches = ((re.fullmatch(r"step-(\d{8,18})(?:\.(\d{1,9}))?", path.name), path) for path in folder.iterdir())
    return [(int(match[1]), int(match[2] or 1), path) for match, path in matches if match]


def _is_whole(path: Path) -> bool:
    try:
        _read_state(path)
    except (ValueError, OSError):
        return False
    return True


def _read_state(path: Path) -> dict[str, Any]:
    """Read ``trainer_state.json``, and check it and every other file against its SHA-256."""
    content = files.read_json(path / STATE, limit=100_000_000)
    if content.pop("sha256", None) != _seal(content):
        raise ValueError(f"{path / STATE}: does not match its own SHA-256")
    if content.get("format") != FORMAT:
        raise ValueError(f"{path / STATE}: expected the format {FORMAT!r}; got {content.get('format')!r}")
    for name, expected in content["files"].items():
        if _sha256(path / name) != expected:
            raise ValueError(f"{path / name}: does not match its SHA-256")
    return content


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(content: dict[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever its spaces and the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _as_json(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state as it will be read back: numbers of NumPy become Python's, tuples lists, keys
    texts.
    """
    try:
        return json.loads(files.to_json(state))
    except (ValueError, TypeError) as error:
        raise ValueError(f"save_checkpoint: state cannot be stored: {error}; arrays belong into tensors") from None
