"""Whether a run can go on, and with which recipe."""

from __future__ import annotations

from pathlib import Path

from .recipe import Recipe
from .run import Run

__all__ = ["resumed_recipe"]


def resumed_recipe(run: Run, steps: int | None = None, data: str | None = None) -> Recipe:
    """The recipe of a run that goes on, perhaps to other steps, or with its text at another place.

    Raises ValueError or FileNotFoundError, with the way on, before any work: when the run was not
    started by the command line, its checkpoints are gone, all those steps are done, or its text is
    not there.
    """
    if run.command not in (None, "train"):
        raise ValueError(f"{run.path} was made by minillm {run.command}; go on with: {run.resume_command}")
    if not run.has_recipe or not {"data", "model", "steps"} <= run.settings.keys():
        python = f"trainer = Trainer(..., run=Run.open({str(run.path)!r})); trainer.resume(); trainer.run()"
        raise ValueError(f"{run.path} was trained by a Python program, whose model and data only it can make: {python}")
    done = run.saved_step() or 0
    if steps is not None and steps <= done:
        raise ValueError(f"{run.path} has done {done} steps already; --steps must be above that; got {steps}")
    recipe = Recipe.from_settings(run.settings)
    if data is not None:
        if recipe.data is None:
            raise ValueError(f"{run.path} learns from made-up stories; leave --data out")
        recipe = recipe.replace(data=str(Path(data).resolve()))
    if recipe.data is not None and not Path(recipe.data).exists():
        command = f"{run.resume_command} --data PATH"
        raise FileNotFoundError(f"{recipe.data}, the text of the run, is not there; where it has moved: {command}")
    return recipe if steps is None else recipe.replace(steps=steps)
