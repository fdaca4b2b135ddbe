"""What the logs of runs hold, as curves; and their picture, several runs over each other.

The loss stands between two lines: what a guess costs that takes every token to be equally likely,
ln V, and the floor, below which no model can come, where it is known.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from .plot import drawable
from .run import LOG, Run

PANELS = {  # what a log holds -> how a picture calls it
    "loss": "loss, nats per token",
    "lr": "learning rate",
    "grad_norm": "gradient norm, before clipping",
    "tokens_per_s": "tokens per second",
}
SKIPPED = 0.05  # of a run: its first plunge may leave the picture where it is not of interest
MARGIN = 0.06
DASHES = ("-", (0, (4, 2)), (0, (1, 1)))  # of lines that share a colour

Curve = tuple[np.ndarray, np.ndarray]  # steps, values


@dataclass(frozen=True)
class Curves:
    """What one run's log holds. guess: ln V, nats per token; None where config.json does not say V.
    """

    name: str
    curves: dict[str, Curve]  # by the names of PANELS, and val_loss
    floor: float | None
    guess: float | None

    def last(self, what: str) -> float | None:
        """The last value of a curve."""
        return float(self.curves[what][1][-1]) if what in self.curves else None


def read_curves(paths: Sequence[str | os.PathLike[str]]) -> list[Curves]:
    """The curves of run folders. A run may go on meanwhile: what it has logged is read.

    Runs are called by their folders, or by their whole paths where two folders have one name.
    Raises FileNotFoundError when there is no such folder, ValueError when it is no run folder,
    nothing was logged yet, or a log is damaged.
    """
    runs = []
    names = [files.shown(Path(path).resolve().name) for path in paths]
    for path, name in zip(paths, names, strict=True):
        records = Run.open(path).records()
        if not records:
            raise ValueError(f"{files.shown(path)}: nothing was logged yet, there is no line in {LOG}")
        curves = {what: _curve(records, what, Path(path) / LOG) for what in (*PANELS, "val_loss")}
        floor = records[-1].get("floor")
        runs.append(Curves(
            name if names.count(name) == 1 else files.shown(path),
            {what: curve for what, curve in curves.items() if len(curve[0])},
            float(floor) if floor is not None and _is_number(floor) else None, _guess(Path(path)),
        ))  # fmt: skip
    return runs


def _curve(records: Sequence[dict[str, Any]], what: str, path: Path) -> Curve:
    """Steps and values of one entry of the records, where they have it."""
    pairs = []
    for i, record in enumerate(records, start=1):
        step, value = record.get("step"), record.get(what)
        if not _is_number(step) or not (value is None or _is_number(value)):
            wrong, name = (value, what) if _is_number(step) else (step, "step")
            raise ValueError(f"{files.shown(path)}, line {i}: {name} must be a number; got {wrong!r:.40}")
        if value is not None:
            pairs.append((step, value))
    steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
    return steps, values


def _is_number(x: Any) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and abs(x) < 1e300


def _guess(path: Path) -> float | None:
    """ln V, from the configuration of the model; before the first checkpoint there is none."""
    if not (path / "config.json").is_file():
        return None
    V = files.read_json(path / "config.json").get("vocab_size")
    return math.log(V) if isinstance(V, int) and 1 < V < 2**31 else None


def lines_of(runs: Sequence[Curves]) -> list[tuple[float, str]]:
    """The horizontal lines in the panel of the loss, each once: (height, name)."""
    floors = {run.floor for run in runs if run.floor is not None}
    guesses = {run.guess for run in runs if run.guess is not None}
    return [*((y, "a guess") for y in sorted(guesses)), *((y, "floor") for y in sorted(floors))]


def notes_on(runs: Sequence[Curves]) -> list[str]:
    """What must be said of the runs: what their logs lack, and what cannot be compared."""
    notes = []
    for what, name in PANELS.items():
        lacking = [run.name for run in runs if what not in run.curves]
        if lacking:
            notes.append(f"no {name.split(',')[0]} in the log of {', '.join(lacking)}: older runs did not write it")
    if len({run.guess for run in runs if run.guess is not None}) > 1:
        notes.append("the vocabularies differ in size: losses per token cannot be compared")
    return notes


def value_range(runs: Sequence[Curves], what: str) -> tuple[float, float]:
    """Where the vertical axis begins and ends: at what came after the first plunge, and, of the
    loss, at all of it.
    """
    found = []
    for run in runs:
        for name in (what, "val_loss") if what == "loss" else (what,):
            if name in run.curves:
                _, values = run.curves[name]
                found.append(values if what == "loss" else values[int(SKIPPED * len(values)) :])
    if what == "loss":
        found.append(np.array([y for y, _ in lines_of(runs)]))
    if what == "tokens_per_s":
        found.append(np.zeros(1))
    values = np.concatenate(found)
    return float(values.min()), float(values.max())


def is_logarithmic(runs: Sequence[Curves], what: str) -> bool:
    """Whether an axis is better logarithmic: for positive values over more than a factor of 4."""
    low, high = value_range(runs, what)
    return what in ("loss", "grad_norm") and low > 0 and high / low > 4


def plot_runs(runs: Sequence[Curves], path: str | os.PathLike[str]) -> None:
    """Draw the loss with its two lines, and below learning rate, gradient and speed.

    path: the picture; its ending says which kind. Raises ImportError without matplotlib.
    """
    from ..check.figure import COLOURS, GREY, INK, PALE, PLAIN, finished, new_figure

    figure = new_figure(10.5, 7.5)
    panels = figure.subplot_mosaic([["loss"] * 3, ["lr", "grad_norm", "tokens_per_s"]], height_ratios=[1.7, 1])
    drawn: dict[str, Any] = {}
    for what, axes in panels.items():
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(GREY)
        axes.tick_params(colors=GREY, labelsize=8.5, length=0, pad=5, which="both")
        axes.grid(axis="y", color=PALE, linewidth=0.8)
        thick = " (thin: training, with dots: validation)" if any("val_loss" in run.curves for run in runs) else ""
        axes.set_title(PANELS[what] + thick * (what == "loss"), loc="left", color=INK, fontsize=10, **PLAIN)
        axes.set_xlabel("step", color=GREY, fontsize=9)
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        axes.yaxis.set_major_formatter(_tick)
        axes.locator_params(axis="both", nbins=8 if what == "loss" else 5)
        having = [(i, run) for i, run in enumerate(runs) if what in run.curves]
        if not having:
            axes.text(0.5, 0.5, "not in the log", color=GREY, ha="center", transform=axes.transAxes, fontsize=9)
            axes.set_yticks([])
            continue
        for i, run in having:
            evaluated = what == "loss" and "val_loss" in run.curves
            turn, colour = divmod(i, len(COLOURS))
            look: dict[str, Any] = {"color": COLOURS[colour], "linestyle": DASHES[turn % len(DASHES)]}
            width, alpha = (1.1, 0.55) if evaluated else (1.4, 0.9)
            (drawn[run.name],) = axes.plot(*run.curves[what], **look, linewidth=width, alpha=alpha)
            if evaluated:
                look |= {"linewidth": 1.8, "marker": "o", "markersize": 3.5}
                (drawn[run.name],) = axes.plot(*run.curves["val_loss"], **look)
        _set_range(axes, runs, what)
    axes = panels["loss"]
    for y, name in lines_of(runs):
        axes.axhline(y, color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(f"{name} {y:.3f}", (1, y), xycoords=axes.get_yaxis_transform(), xytext=(6, 0),
                      textcoords="offset points", color=INK, fontsize=9, va="center")  # fmt: skip
    if drawn:
        names = [f"{drawable(files.shown(run.name))}{_ending(run)}" for run in runs if run.name in drawn]
        legend = figure.legend([drawn[run.name] for run in runs if run.name in drawn], names, loc="outside upper left",
                               ncols=1 if len(runs) < 4 else 2, frameon=False, fontsize=9, labelcolor=INK)  # fmt: skip
        for text in legend.get_texts():
            text.set(**PLAIN)
    finished(figure, path)


def _ending(run: Curves) -> str:
    """How a run ended, in a few words."""
    told = [f"{what} {value:.3f}" for what, name in (("training", "loss"), ("validation", "val_loss"))
            if (value := run.last(name)) is not None]  # fmt: skip
    loss = run.last("val_loss")
    if loss is not None and run.floor is not None:
        told.append(f"{abs(loss - run.floor):.3f} {'above' if loss >= run.floor else 'below'} the floor")
    return f": {', '.join(told)}" if told else ""


def _tick(y: float, place: Any) -> str:
    return f"{y:,.0f}" if abs(y) >= 1000 else f"{y:.4g}"


def _set_range(axes: Any, runs: Sequence[Curves], what: str) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = value_range(runs, what)
    if is_logarithmic(runs, what):
        axes.set_yscale("log")
        axes.set_ylim(low / (high / low) ** MARGIN, high * (high / low) ** MARGIN)
        axes.yaxis.set_major_locator(FixedLocator(round_numbers(low, high)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(_tick)
    else:
        room = high - low or abs(high) or 1.0
        axes.set_ylim(max(0.0, low - MARGIN * room) if low >= 0 else low - MARGIN * room, high + MARGIN * room)


def round_numbers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, ... from low to high; the tens alone where those are many."""
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    many = [m * 10.0**e for e in tens for m in (1, 2, 5)]
    found = [y for y in many if low <= y <= high]
    return found if len(found) < 9 else [10.0**e for e in tens]
