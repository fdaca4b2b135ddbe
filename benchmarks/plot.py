"""Curves of the cases that have a place on an axis."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .harness import Outcome, Run
from .report import median, sgemm_rate

Value = Callable[[Outcome, str], float | None]  # of a contestant in a case


def draw(name: str, outcomes: list[Outcome], folder: Path) -> Path | None:
    """Write ``folder/name.png``: speed, and memory where it was measured, along each axis; None if there is no axis."""
    axes = list(dict.fromkeys(outcome.case.axis[0] for outcome in outcomes if outcome.case.axis))
    if not axes:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    placed = [outcome for outcome in outcomes if outcome.case.axis]
    rows: list[tuple[str, Value]] = [
        ("share of the sgemm rate", _share) if any(o.case.flops for o in placed) else ("tokens/s", _tokens_per_second)
    ]
    if any(o.case.memory for o in placed):
        rows.append(("peak memory, MB", _memory))
    figure = Figure(figsize=(5 * len(axes), 3.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), len(axes), squeeze=False)
    for column, axis in enumerate(axes):
        along = [outcome for outcome in placed if outcome.case.axis[0] == axis]
        for row, (label, value) in enumerate(rows):
            panel = panels[row, column]
            for contestant in dict.fromkeys(run.name for outcome in along for run in outcome.runs):
                points = [(o.case.axis[1], y) for o in along if (y := value(o, contestant)) is not None]
                panel.plot(*zip(*points, strict=True), "o-", label=contestant) if points else None
            panel.set(xscale="log", xlabel=axis, ylabel=label)
            panel.set(yscale="log") if value is _tokens_per_second else panel.set_ylim(0)
            places = sorted({o.case.axis[1] for o in along})
            panel.set_xticks(places, [f"{round(place, 1):,g}" for place in places])
            panel.set_xticks([], minor=True)
            if value is _tokens_per_second:  # plain numbers, between the powers of ten too where there are few of those
                low, high = panel.get_ylim()
                panel.yaxis.set_major_formatter("{x:,.0f}")
                panel.yaxis.set_minor_formatter("{x:,.0f}" if high < 10 * low else "")
            panel.legend()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(path := folder / f"{name}.png")
    return path


def _run(outcome: Outcome, name: str) -> Run | None:
    return next((run for run in outcome.runs if run.name == name and run.seconds), None)


def _share(outcome: Outcome, name: str) -> float | None:
    run, rate = _run(outcome, name), sgemm_rate(outcome)
    return outcome.case.flops / median(run) / rate if run and rate else None


def _tokens_per_second(outcome: Outcome, name: str) -> float | None:
    run = _run(outcome, name)
    return outcome.case.tokens / median(run) if run else None


def _memory(outcome: Outcome, name: str) -> float | None:
    run = _run(outcome, name)
    return run.memory.get(outcome.case.memory) if run else None
