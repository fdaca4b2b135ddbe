"""The course: its lessons, all of them at once, as notebooks, and the tables of its README.

    python -m examples                       # list the lessons
    python -m examples 3                     # lesson 3
    python -m examples run                   # all, with the solutions: each must prove its number
    python -m examples notebook 3 --french   # lesson 3 as a notebook, its prose in French
    python -m examples tables                # write the tables of README.md and README.fr.md anew
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import signal
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

from .course import HERE, above_floor, load_results, shown

HEADS = {
    "": ("lesson", "what changed", "picture", "what it proves", "parameters", "seconds", "loss", "above floor"),
    ".fr": ("leçon", "ce qui change", "image", "ce qu'elle prouve", "paramètres", "secondes", "perte",
            "au-dessus du plancher"),
}  # fmt: skip


def lessons() -> list[Path]:
    """The scripts of the course, in order."""
    return sorted(HERE.glob("[0-9][0-9]_*.py"))


def number(path: Path) -> int:
    """3 for the third."""
    return int(path.stem[:2])


def title(path: Path) -> str:
    """Lesson 3 in one line: what its docstring says after the number."""
    said = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(said.split("\n\n")[0].split())


def cells(path: Path) -> list[tuple[str, str]]:
    """A lesson's cells: (kind, text), the kind "markdown" or "code"."""
    found = []
    for part in re.split(r"^# %%", path.read_text(), flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            found.append(("markdown", "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))))
        else:
            found.append(("code", body))
    return [(kind, text.strip()) for kind, text in found]


def french(path: Path) -> dict[str, str]:
    """The parts of a lesson's French companion: "cell 1", "proof", "changed", "picture NAME"."""
    parts = re.split(r"^<!-- (.+?) -->$", path.with_suffix(".fr.md").read_text(), flags=re.M)
    return {"title": parts[0].strip().removeprefix("# ")} | {
        name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def notebook(path: Path, in_french: bool) -> dict[str, Any]:
    """A lesson as a notebook of version 4."""
    said, number, found = french(path) if in_french else {}, 0, []
    for i, (kind, text) in enumerate(cells(path)):
        if kind == "markdown":
            number += 1
            text = said.get(f"cell {number}", text)
        cell = {"cell_type": kind, "id": f"cell-{i}", "metadata": {}, "source": text.splitlines(keepends=True)}
        found.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    return {"cells": found, "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}


def one_line(text: str) -> str:
    """A text as it may stand in a cell of a table, between quotation marks."""
    return escape(" ".join(text.split()), quote=True).replace("&#x27;", "'").replace("|", "&#124;")


def course_table(suffix: str) -> str:
    """The table of README.md ("") or README.fr.md (".fr"): a row for each recorded lesson."""
    lines = [f"| {' | '.join(HEADS[suffix])} |", "|" + "---|" * len(HEADS[suffix])]
    for path in lessons():
        if (r := load_results().get(path.stem)) is None:
            continue
        said = french(path) if suffix else {}
        pictures = []
        for name, alt in r["pictures"].items():
            source = f"pictures/{path.stem}_{name}"
            pictures.append(
                f'<picture><source media="(prefers-color-scheme: dark)" srcset="{source}-dark.png">'
                f'<img src="{source}.png" width="260" alt="{one_line(said.get(f"picture {name}", alt))}"></picture>'
            )
        colon = " : " if suffix else ": "
        proofs = [f"{said.get('proof', what)}{colon}{shown(value)}" for what, value in list(r["proofs"].items())[:1]]
        loss, above = ("" if v is None else f"{v:.3f}" for v in (r["loss"], above_floor(r)))
        name = said.get("title") or title(path).split(". ", 1)[-1].split(":")[0].rstrip(".")
        lines.append(
            f"| [{path.stem[:2]} {name}]({path.name}) | {said.get('changed', r['changed'])} | {' '.join(pictures)} "
            f"| {'; '.join(proofs)} | {r['parameters']:,} | {r['seconds']:.1f} | {loss} | {above} |"
        )
    return "\n".join(lines)


def write_tables() -> None:
    """Put the tables between their marks."""
    for suffix in HEADS:
        path = HERE / f"README{suffix}.md"
        before, _, rest = path.read_text().partition("<!-- table -->")
        after = rest.partition("<!-- end of table -->")[2]
        path.write_text(f"{before}<!-- table -->\n{course_table(suffix)}\n<!-- end of table -->{after}")


def main() -> int:
    """Do what was asked; returns the exit code."""
    if sys.argv[1:] and sys.argv[1].isdigit():  # a lesson's number: that lesson, with its own options
        for path in lessons():
            if number(path) == int(sys.argv[1]):
                return subprocess.run([sys.executable, str(path), *sys.argv[2:]]).returncode
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who reads only the first lines has no use for a traceback
    p = argparse.ArgumentParser(prog="python -m examples", description="The course, from one neuron on.")
    commands = p.add_subparsers(dest="command")
    run = commands.add_parser("run", help="run all lessons with their solutions; each must prove its number")
    run.add_argument("--record", action="store_true", help="keep figures and pictures for the tables")
    run.add_argument("--only", metavar="N", type=int, nargs="+", help="these lessons alone")
    book = commands.add_parser("notebook", help="write a lesson as a notebook")
    book.add_argument("lesson", type=int)
    book.add_argument("--french", action="store_true", help="its prose in French")
    commands.add_parser("tables", help="write the tables of README.md and README.fr.md anew")
    options = p.parse_args()
    asked = {"run": getattr(options, "only", None) or [], "notebook": [getattr(options, "lesson", None)]}
    there = [number(path) for path in lessons()]
    if unknown := [n for n in asked.get(options.command, []) if n not in there]:
        p.error(f"no lesson {unknown[0]}; there are {', '.join(map(str, there))}")
    if options.command is None:
        for path in lessons():
            print(f"python examples/{path.name:26} {title(path)}")
    elif options.command == "tables":
        write_tables()
    elif options.command == "notebook":
        path = next(path for path in lessons() if number(path) == options.lesson)
        out = path.with_suffix(".fr.ipynb" if options.french else ".ipynb")
        out.write_text(json.dumps(notebook(path, options.french), indent=1, ensure_ascii=False))
        print(out)
    else:
        for path in lessons():
            if options.only is None or number(path) in options.only:
                print(f"\n==== {path.name}", flush=True)
                more = ["--record"] if options.record else []
                done = subprocess.run([sys.executable, str(path), "--solutions", *more])
                if done.returncode:
                    print(f"{path.name} failed", file=sys.stderr)
                    return 1
        if options.record:
            write_tables()
    return 0


if __name__ == "__main__":
    sys.exit(main())
