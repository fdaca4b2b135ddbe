"""Curves of the cases that have a place on an axis."""

from __future__ import annotations

from pathlib import Path

from .harness import Outcome
from .report import median, sgemm_rate


def draw(name: str, outcomes: list[Outcome], folder: Path) -> Path | None:
    """Write ``folder/name.png``: share of the sgemm rate, and memory, along each axis; None if there is no axis."""
    axes = list(dict.fromkeys(outcome.case.axis[0] for outcome in outcomes if outcome.case.axis))
    if not axes:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(axes), 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(axes), squeeze=False)
    for column, axis in enumerate(axes):
        along = [outcome for outcome in outcomes if outcome.case.axis and outcome.case.axis[0] == axis]
        for contestant in dict.fromkeys(run.name for outcome in along for run in outcome.runs):
            for row, value in enumerate((_share, _memory)):
                points = [(o.case.axis[1], y) for o in along if (y := value(o, contestant)) is not None]
                panels[row, column].plot(*zip(*points, strict=True), "o-", label=contestant) if points else None
        for row, label in enumerate(("share of the sgemm rate", "peak memory, MB")):
            panels[row, column].set(xscale="log", xlabel=axis, ylabel=label, ylim=(0, None))
            panels[row, column].legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(path := folder / f"{name}.png")
    return path


def _share(outcome: Outcome, name: str) -> float | None:
    run = next(run for run in outcome.runs if run.name == name)
    rate = sgemm_rate(outcome)
    return outcome.case.flops / median(run) / rate if run.seconds and rate else None


def _memory(outcome: Outcome, name: str) -> float | None:
    run = next(run for run in outcome.runs if run.name == name)
    return run.memory.get(outcome.case.memory)
