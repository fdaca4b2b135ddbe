"""What every lesson of the course uses: pictures, exercises that check themselves, and the table
that grows by a row from lesson to lesson.

A lesson is a script of cells (``# %%``), which editors open as a notebook. It makes a `Lesson`,
which knows the time and where pictures go:

    lesson = Lesson("01_neuron")
    lesson.picture("learning", draw, alt="what is to be seen, for those who do not see it")
    lesson.prove("final error", loss, at_most=0.02)
    lesson.end(changed="one neuron", parameters=2, read=["minillm/tensor.py"])

``--solutions`` puts the answers of solutions/ in place of the reader's. ``--record`` keeps what
this run measured, and its pictures, for the tables in README.md and README.fr.md.
"""

from __future__ import annotations

import argparse
import json
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from minillm import Recipe, Run
    from minillm.training.run import LoadedRun

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
PICTURES = HERE / "pictures"
LIGHT, DARK = (
    {"paper": "#ffffff", "ink": "#2b2b33", "grey": "#6f6f78", "pale": "#e3e3e7",
     "colours": ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b07800", "#56b4e9"]},
    {"paper": "#1b1b1f", "ink": "#ececf1", "grey": "#a9a9b3", "pale": "#3a3a42",
     "colours": ["#56b4e9", "#ff8a4c", "#2fc49a", "#e59cc7", "#e6b800", "#8fd0ff"]},
)  # fmt: skip


@dataclass
class Lesson:
    """One lesson: its clock, its pictures, its exercises, its row in the table."""

    name: str  # of its file, without .py
    started: float = field(default_factory=time.perf_counter)
    proofs: dict[str, float] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)  # name -> what is to be seen
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = Path(sys.argv[0]).stem == self.name  # a notebook has arguments of its own
        self.options = _options(self.name).parse_args(None if own else [])
        self.out = PICTURES if self.options.record else Path(self.options.out)
        path = HERE / "solutions" / f"{self.name}.py"
        self._solutions = runpy.run_path(str(path)) if self.options.solutions else {}

    # ---- pictures --------------------------------------------------------------------------------

    def picture(self, name: str, draw: Callable[[Any], None], alt: str, size: tuple[float, float] = (7, 4)) -> None:
        """Save a picture, for light and for dark pages, as PNG and SVG.

        draw: puts axes into the figure it is given, in the colours "C0", "C1" ... and
        ``lesson.grey``. alt: the text for those who do not see it.
        """
        self.pictures[name] = alt
        try:
            import matplotlib
            from matplotlib.figure import Figure
        except ImportError:
            print('no picture: they are drawn by matplotlib, which is not here: pip install -e ".[plot]"')
            return
        self.out.mkdir(parents=True, exist_ok=True)
        for look, suffix in ((LIGHT, ""), (DARK, "-dark")):
            self.grey, self.pale, self.ink, self.paper = (str(look[n]) for n in ("grey", "pale", "ink", "paper"))
            with matplotlib.rc_context(_style(look)):
                figure = Figure(figsize=size, layout="constrained")
                draw(figure)
                for kind in ("png",) if self.options.record else ("png", "svg"):
                    path = self.out / f"{self.name}_{name}{suffix}.{kind}"
                    figure.savefig(path, metadata=None if kind == "png" else {"Description": alt, "Date": None})
        if "ipykernel" in sys.modules:  # a notebook shows it at once
            from IPython.display import Image, display

            display(Image(filename=str(self.out / f"{self.name}_{name}.png")))
        print(f"picture: {self.out / f'{self.name}_{name}.png'} (light and dark, .png and .svg)")
        print(f"         {alt}")

    def file(self, name: str) -> Path:
        """Where a file of the lesson that is no picture goes: into the folder of ``--out``."""
        folder = Path(self.options.out)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name

    # ---- exercises -------------------------------------------------------------------------------

    def exercise(self, check: Callable[[Any], None]) -> Callable[[Any], Any]:
        """A function that the reader completes; ``check`` raises AssertionError with a sentence for
        what it does wrong. Says at once whether it is right; the lesson goes on in any case.
        """

        def checked(function: Any) -> Any:
            function = self._solutions.get(function.__name__, function)
            name = function.__name__
            try:
                check(function)
                print(_coloured(f"exercise {name}: right", 32))
            except Exception as error:  # whatever the reader's code does, the lesson goes on
                unwritten = isinstance(error, NotWritten)
                empty = "yours to write (it returns nothing)"
                said = empty if unwritten else f"not yet: {error or type(error).__name__}"
                print(_coloured(f"exercise {name}: {said}", 31))
                self.failed.append(name)
            return function

        return checked

    # ---- what was shown --------------------------------------------------------------------------

    def prove(self, what: str, value: float, at_least: float = -np.inf, at_most: float = np.inf) -> None:
        """The number that the lesson is about. Raises AssertionError where it is not as taught."""
        self.proofs[what] = float(value)
        print(f"{what}: {shown(value)}")
        assert at_least <= value <= at_most, f"{what} is {value}, not from {at_least} to {at_most}"

    def end(
        self,
        changed: str,
        parameters: int = 0,
        loss: float | None = None,
        floor: float | None = None,
        read: tuple[str, ...] | list[str] = (),
    ) -> None:
        """Print the table up to this lesson, and what to read next.

        changed: since the lesson before, in a few words. loss, floor: nats per token, where the
        lesson trains a language model. read: the source files that it used.
        """
        seconds = time.perf_counter() - self.started
        row = {"changed": changed, "parameters": parameters, "seconds": round(seconds, 1), "loss": loss, "floor": floor}
        results = load_results() | {self.name: {**row, "proofs": self.proofs, "pictures": self.pictures}}
        if self.options.record:
            RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")
        print(f"\n{table({name: r for name, r in results.items() if name <= self.name})}")
        print("\nread next: " + ", ".join(read))
        if self.options.solutions and self.failed:
            sys.exit(f"the solutions of {', '.join(self.failed)} are wrong")


# ---- the model that lessons 10 to 13 share -------------------------------------------------------


def story_run(lesson: Lesson, recipe: Recipe) -> Run:
    """The run folder of lesson 10: the one that is there, when it was begun with this recipe, or an
    empty one.
    """
    from minillm import Run

    folder = lesson.file("10_run")
    if folder.exists() and (lesson.options.record or Run.open(folder).settings != recipe.to_dict()):
        shutil.rmtree(folder)
    return Run.open(folder) if folder.exists() else Run.create(folder, recipe.to_dict(), "made-up stories")


def story_model(lesson: Lesson) -> LoadedRun:
    """The model of lesson 10, its tokenizer and settings. Where it is not there, or not trained to
    the end, lesson 10 runs first.
    """
    from minillm import Run, load_run

    folder = lesson.file("10_run")
    run = Run.open(folder) if folder.exists() else None
    if run is None or run.saved_step() != run.settings["steps"]:
        print("the model of lesson 10 is not there yet: that lesson runs first, for about half a minute", flush=True)
        command = [sys.executable, str(HERE / "10_language_model.py"), "--out", lesson.options.out]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load_run(folder)


# ---- comparing, and tables -----------------------------------------------------------------------


class NotWritten(Exception):
    """The reader has not completed an exercise."""


def close(got: Any, wanted: Any, where: str, tolerance: float = 1e-4) -> None:
    """Raise AssertionError where two numbers or arrays differ; ``where`` says of which case."""
    if got is None or got is ...:
        raise NotWritten
    got, wanted = np.asarray(got, dtype=float), np.asarray(wanted, dtype=float)
    assert got.shape == wanted.shape, f"{where}: expected the shape {wanted.shape}, got {got.shape}"
    assert np.allclose(got, wanted, rtol=tolerance, atol=tolerance), f"{where}: expected {wanted}, got {got}"


def same(got: Any, wanted: Any, where: str) -> None:
    """Raise AssertionError where two things are not equal."""
    if got is None or got is ...:
        raise NotWritten
    assert got == wanted, f"{where}: expected {wanted!r}, got {got!r}"


def load_results() -> dict[str, dict[str, Any]]:
    """What was measured when the lessons were recorded: name -> row, proofs, pictures."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def table(results: dict[str, dict[str, Any]]) -> str:
    """The table that grows: what changed, parameters, seconds, loss, distance to the floor."""
    lines = [f"{'lesson':18} {'what changed':38} {'parameters':>10} {'seconds':>7} {'loss':>6} {'above floor':>11}"]
    for name, r in sorted(results.items()):
        loss, above = ("" if v is None else f"{v:.3f}" for v in (r["loss"], above_floor(r)))
        lines.append(
            f"{name:18} {r['changed'][:38]:38} {r['parameters']:10,} {r['seconds']:7.1f} {loss:>6} {above:>11}"
        )
    return "\n".join(lines)


def above_floor(row: dict[str, Any]) -> float | None:
    """Nats per token that a better model could still save."""
    return None if row["loss"] is None or row["floor"] is None else row["loss"] - row["floor"]


def shown(value: float) -> str:
    """A number as a person reads it."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _options(name: str) -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog=f"python examples/{name}.py")
    p.add_argument("--solutions", action="store_true", help="put the answers of solutions/ into the exercises")
    p.add_argument("--out", default="lessons", metavar="FOLDER", help="where pictures go; default: lessons")
    p.add_argument("--record", action="store_true", help="keep figures and pictures for the tables of the course")
    return p


def _style(look: dict[str, Any]) -> dict[str, Any]:
    """matplotlib's settings for one paper."""
    from cycler import cycler

    ink, grey, paper = look["ink"], look["grey"], look["paper"]
    return {
        **{f"{part}.facecolor": paper for part in ("figure", "axes", "savefig", "legend")},
        **{name: grey for name in ("axes.edgecolor", "xtick.color", "ytick.color")},
        "text.color": ink, "axes.labelcolor": ink, "axes.titlecolor": ink, "axes.titlelocation": "left",
        "axes.titlesize": 10, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8,
        "legend.frameon": False,
        "axes.spines.top": False, "axes.spines.right": False, "grid.color": look["pale"],
        "axes.prop_cycle": cycler(color=look["colours"]), "savefig.dpi": 110, "svg.hashsalt": "minillm",
        "svg.fonttype": "path",
    }  # fmt: skip


def _coloured(text: str, colour: int) -> str:
    return f"\033[{colour}m{text}\033[0m" if sys.stdout.isatty() else text
