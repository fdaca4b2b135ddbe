"""``minillm plot``: how runs went, drawn on the terminal and as a picture."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .charts import chart
from .terminal import say
from .values import name_of_something

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..training.curves import Curves

ENDINGS = (".png", ".svg", ".pdf")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "plot",
        help="draw how runs went, over each other",
        description="Draw loss (between a guess and the floor), learning rate, gradient and speed of one run or of "
        "several: on the terminal, and as a picture where matplotlib is installed.",
    )
    p.add_argument(
        "folders", metavar="RUN", nargs="+", type=name_of_something, help="run folders, also while they are trained"
    )
    p.add_argument(
        "--out",
        type=name_of_something,
        metavar="PATH",
        help="the picture, .png, .svg or .pdf; default: plot.png in the first run's folder",
    )
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from ..training.curves import notes_on, plot_runs, read_curves

    if options.out is not None and Path(options.out).suffix.lower() not in ENDINGS:
        raise ValueError(f"--out must end in {', '.join(ENDINGS)}; got {options.out!r:.60}")
    if len(options.folders) > len(LETTERS):
        raise ValueError(f"at most {len(LETTERS)} runs fit into one picture; got {len(options.folders)}")
    runs = read_curves(options.folders)
    print(terminal_text(runs, min(shutil.get_terminal_size().columns, 100), writes_unicode()))
    for note in notes_on(runs):
        say(f"[{note}]")
    path = Path(options.folders[0]) / "plot.png" if options.out is None else Path(options.out)
    try:
        plot_runs(runs, path)
    except ImportError:
        if options.out is not None:
            raise ImportError(
                "--out: pictures are drawn by matplotlib, which is not here: pip install matplotlib"
            ) from None
        say("[no picture: pip install matplotlib]")
    else:
        say(f"[picture: {os.fspath(path)}]")
    return 0


def writes_unicode() -> bool:
    """Whether standard output can show lines and dots."""
    try:
        "│⣿╌".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def terminal_text(runs: Sequence[Curves], columns: int, unicode: bool = True) -> str:
    """The curves of runs in characters: of one run as fine dots, of several as a letter for each.
    """
    from ..training.curves import PANELS, is_logarithmic, lines_of, value_range

    parts = []
    if len(runs) > 1:
        named = [f"{letter}  {_named(run)}" for letter, run in zip(LETTERS, runs, strict=False)]
        parts.append("\n".join(textwrap.fill(text, columns, subsequent_indent="   ") for text in named))
    else:
        parts.append(textwrap.fill(_named(runs[0]), columns))
    for what, name in PANELS.items():
        curves = [(letter if len(runs) > 1 else "", *run.curves[what])
                  for letter, run in zip(LETTERS, runs, strict=False) if what in run.curves]  # fmt: skip
        if not curves:
            continue
        points = [run.curves["val_loss"] for run in runs if what == "loss" and "val_loss" in run.curves]
        logarithmic = is_logarithmic(runs, what)
        parts.append(
            name + (" (log)" if logarithmic else "") + "\n"
            + chart(
                curves,
                points if len(runs) == 1 else [],
                lines_of(runs) if what == "loss" else [],
                value_range(runs, what),
                (columns, 12 if what == "loss" else 5),
                logarithmic,
                unicode,
            )
        )  # fmt: skip
    return "\n\n".join(parts)


def _named(run: Curves) -> str:
    told = [f"{name} {value:.3f}" for name, value in (("training", run.last("loss")),
            ("validation", run.last("val_loss")), ("floor", run.floor)) if value is not None]  # fmt: skip
    return f"{run.name}: {', '.join(told)}"
