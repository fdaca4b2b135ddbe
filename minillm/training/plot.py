"""Pictures of a training, for those who have matplotlib: `pip install matplotlib`.

The curve of the loss says little alone: is 1.4 good? So the floor is drawn with it, where it is
known, and the distance that is left is written beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..check.figure import GREY, INK, PALE, PLAIN, new_figure
from ..files import shown
from .callbacks import Callback

__all__ = ["LossPlot", "empty_figure", "plot_loss"]

TRAINING, VALIDATION, FLOOR = "#9db4cc", "#1f4e79", "#b5573a"


class LossPlot(Callback):
    """Draws loss.png into the run folder when a training ends; does nothing where matplotlib is not
    installed.
    """

    decorates = True

    def on_end(self, trainer: Any, result: Any) -> None:
        """Draw what the log holds."""
        if trainer.run_folder is None or len(trainer.history) < 2:
            return
        try:
            import matplotlib  # noqa: F401
        except ImportError:
            return
        folder = trainer.run_folder.path
        plot_loss(trainer.history, folder / "loss.png", title=shown(folder.resolve().name))


def plot_loss(records: Sequence[Mapping[str, Any]], path: str | os.PathLike[str], title: str = "") -> None:
    """Draw the training and validation loss of a log, and its floor.

    records: the lines of a log.jsonl, with step, loss, val_loss (or None) and floor (or None).
    path: the file of the picture; its ending says which kind. Raises ImportError without
    matplotlib, ValueError when there are no records.
    """
    if not records:
        raise ValueError("plot_loss: records must hold at least one line of a log; got none")
    steps = np.array([record["step"] for record in records])
    losses = np.array([record["loss"] for record in records])
    evaluated = [(record["step"], record["val_loss"]) for record in records if record.get("val_loss") is not None]
    floor = records[-1].get("floor")

    figure, axes = empty_figure(title, "loss, nats per token", "step")
    axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axes.set_xlim(0, 1.008 * steps[-1])
    axes.set_ylim(*_range(losses, [loss for _, loss in evaluated], floor))
    axes.plot(steps, losses, color=TRAINING, linewidth=1.3, solid_capstyle="round", zorder=2)
    labels = [(losses[-1], "training", TRAINING)]
    if evaluated:
        axes.plot(*zip(*evaluated, strict=True), color=VALIDATION, linewidth=2, marker="o", markersize=4, zorder=3)
        labels.append((evaluated[-1][1], f"validation {evaluated[-1][1]:.3f}", VALIDATION))
    if floor is not None:
        axes.axhline(floor, color=FLOOR, linewidth=1.5, linestyle=(0, (5, 3)), zorder=1)
        labels.append((floor, f"floor {floor:.3f}", FLOOR))
    _label_lines(axes, labels)
    if floor is not None and evaluated:
        _mark_gap(axes, *evaluated[-1], floor)
    figure.savefig(path)


def empty_figure(title: str, what: str, below: str) -> tuple[Any, Any]:
    """A figure and its axes, with only the ink that says something.

    title: taken as it stands, dollar signs too; a character that the font lacks becomes a box.
    what: is shown, in which unit. below: the name of the horizontal axis.
    """
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(colors=GREY, labelsize=9, length=0, pad=6)
    axes.grid(axis="y", color=PALE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(below, color=GREY, fontsize=9)
    name = f"{drawable(title)}\n" if title else ""
    axes.set_title(name, loc="left", color=INK, fontsize=12, fontweight="bold", **PLAIN)
    axes.text(0, 1.02, what, transform=axes.transAxes, color=GREY, fontsize=9)
    return figure, axes


def drawable(text: str) -> str:
    """The text with a box for each character that the font of the pictures does not have."""
    from matplotlib.font_manager import FontProperties, findfont
    from matplotlib.ft2font import FT2Font

    known = FT2Font(findfont(FontProperties())).get_charmap()
    return "".join(c if ord(c) in known else "□" for c in text)


def _range(losses: np.ndarray, evaluated: Sequence[float], floor: float | None) -> tuple[float, float]:
    """Where the vertical axis begins and ends: the first plunge may leave at the top, what follows
    is of interest.
    """
    lowest = min([losses.min(), *evaluated] + ([] if floor is None else [floor]))
    highest = losses[len(losses) // 10 :].max()
    room = max(highest - lowest, 0.01)
    return max(0.0, lowest - 0.12 * room), highest + 0.05 * room


def _label_lines(axes: Any, labels: list[tuple[float, str, str]]) -> None:
    """Write each line's name at its right end, and push apart those that would overlap."""
    low, high = axes.get_ylim()
    gap = 0.055 * (high - low)
    ordered = sorted(labels)  # from below
    heights = [height for height, _, _ in ordered]
    for _ in range(100):  # neighbours that are too near each step back by half
        for i in range(len(heights) - 1):
            overlap = gap - (heights[i + 1] - heights[i])
            if overlap > 1e-9:
                heights[i], heights[i + 1] = heights[i] - overlap / 2, heights[i + 1] + overlap / 2
    for height, (_, text, color) in zip(heights, ordered, strict=True):
        axes.annotate(text, (1, height), xycoords=axes.get_yaxis_transform(), xytext=(12, 0),
                      textcoords="offset points", color=color, fontsize=10, va="center")  # fmt: skip


def _mark_gap(axes: Any, step: float, loss: float, floor: float) -> None:
    """Write how far the validation loss is above the floor: beside the gap, or under it when it is
    narrow.
    """
    text = f"{loss - floor:.3f} above the floor" if loss >= floor else f"{floor - loss:.3f} below the floor"
    low, high = axes.get_ylim()
    wide = abs(loss - floor) > 0.12 * (high - low)
    axes.plot([step, step], [floor, loss], color=INK, linewidth=1, zorder=2)
    axes.annotate(text, (step, (loss + floor) / 2 if wide else floor), xytext=(-8, 0) if wide else (-8, -13),
                  textcoords="offset points", color=INK, fontsize=10, ha="right", va="center")  # fmt: skip
