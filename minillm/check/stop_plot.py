"""A picture of how a text came to its end: how likely it was to stop, token by token."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .figure import COLOURS, GREY, INK, MARKERS, PALE, PLAIN, finished, new_figure, plain_axes, readable

__all__ = ["stopping"]

MOST = 600  # tokens in a picture
PER_PANEL = 60
LEAST = 1e-6  # where the axis begins


def stopping(
    curves: Mapping[str, Sequence[float] | np.ndarray],
    tokens: Sequence[str],
    before: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    title: str = "",
    path: str | os.PathLike[str] | None = None,
) -> Any:
    """Show the probability of each way to stop at each token of a text.

    curves: N probabilities for each way, by its name, as `stop_curves` gives them. tokens: the N
    texts that were written; of more than 600 the last are shown. before: the same curves of another
    model, such as the one before its tuning; they are dashed. Returns the figure, and saves it
    where a path is given. Raises ValueError for lengths that do not fit.
    """
    N = len(tokens)
    shown = {}
    for word, line, those in (("after" if before else "", "-", curves), ("before", "--", before or {})):
        for colour, (name, p) in enumerate(those.items()):
            shown[f"{name}, {word}".removesuffix(", ")] = np.asarray(p), colour, line
    for name, (p, _, _) in shown.items():
        if p.shape != (N,) or not N:
            raise ValueError(f"plot.stopping: {name!r} must be one probability for each of {N} tokens; got {p.shape}")
    start = max(0, N - MOST)
    panels = -(-(N - start) // PER_PANEL)
    figure = new_figure(max(5.5, 1.5 + 0.2 * min(N - start, PER_PANEL)), 0.8 + 0.2 * len(shown) + 2.6 * panels)
    for panel, axes in enumerate(figure.subplots(panels, 1, squeeze=False)[:, 0]):
        first = start + panel * PER_PANEL
        x = np.arange(first, min(N, first + PER_PANEL))
        plain_axes(axes)
        axes.set_ylabel("probability of stopping\n(logarithmic)", color=GREY, fontsize=9)
        axes.set_yscale("log")
        axes.set_ylim(LEAST / 1.5, 2)
        axes.set_yticks([10.0**-e for e in range(6, -1, -2)], ["0.0001 %", "0.01 %", "1 %", "100 %"])
        axes.minorticks_off()
        axes.grid(axis="y", color=PALE, linewidth=0.8)
        axes.set_xlim(first - 0.6, first + max(len(x), min(N - start, PER_PANEL)) - 0.4)
        axes.set_xticks(
            x, [readable(token, 14) for token in tokens[x[0] : x[-1] + 1]], rotation=90, fontsize=8, **PLAIN
        )
        for name, (p, colour, line) in shown.items():
            label = f"{name}: {100 * p[-1]:.2f} % at the last token" if panel == 0 else None
            axes.plot(
                x, np.clip(p[x], LEAST, 1), line, color=COLOURS[colour % len(COLOURS)], label=label, linewidth=1.3,
                marker=MARKERS[colour % len(MARKERS)], markersize=4, markerfacecolor="white" if line == "--" else None,
            )  # fmt: skip
    last = axes.get_xticklabels()[-1]
    last.set_color(INK)
    last.set_fontweight("bold")
    figure.legend(loc="outside upper left", fontsize=8, frameon=False, labelcolor=INK, title=title or None,
                  alignment="left", title_fontproperties={"size": 10})  # fmt: skip
    figure.supxlabel("the token that was written", color=GREY, fontsize=9)
    return finished(figure, path)
