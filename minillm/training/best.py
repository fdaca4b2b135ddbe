"""The weights of the lowest validation loss, kept while a run goes on past them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import files
from .callbacks import Callback
from .evaluate import Evaluation

__all__ = ["Best", "KeepBest", "best_of"]

FILE, FIGURES, WEIGHTS = "best.safetensors", "best", "model."  # beside the checkpoints


class Best(NamedTuple):
    """Where the validation loss was lowest."""

    step: int
    loss: float

    def __str__(self) -> str:
        return f"{self.loss:.4f} after step {self.step:,}"


class KeepBest(Callback):
    """Gives the run folder the weights of the lowest validation loss when all steps are done.

    They lie beside the checkpoints meanwhile, so that a run that is interrupted goes on with them;
    the checkpoints themselves are what they always are. Needs a run folder.
    """

    def on_evaluate(self, trainer: Any, evaluation: Evaluation) -> None:
        """Keep the weights if the loss was never lower."""
        folder = trainer.run_folder.path
        before = best_of(folder)
        if evaluation.loss < (math.inf if before is None else before.loss):
            tensors = {f"{WEIGHTS}{name}": array for name, array in trainer.model.state_dict().items()}
            figures = np.array([trainer.step, evaluation.loss], np.float64)
            with files.atomic_file(_file(folder)) as staging:
                files.write_safetensors(staging, tensors | {FIGURES: figures})

    def on_finish(self, trainer: Any) -> None:
        """Put them into the model, and that into the folder; what is told at the end is of them."""
        run = trainer.run_folder
        best = best_of(run.path)
        if best is not None and best.step != trainer.step:
            stored = files.open_safetensors(_file(run.path))
            weights = {name.removeprefix(WEIGHTS): tensor for name, tensor in stored.items() if name != FIGURES}
            trainer.model.load_state_dict(weights)
            run.save_model(trainer.model, trainer.tokenizer)
            trainer.measure()


def best_of(folder: Path) -> Best | None:
    """Where the validation loss of a run was lowest; None where its best weights are not kept."""
    if not _file(folder).exists():
        return None
    step, loss = files.open_safetensors(_file(folder))[FIGURES].read()
    return Best(int(step), float(loss))


def _file(folder: Path) -> Path:
    return folder / "checkpoints" / FILE
