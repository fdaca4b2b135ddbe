"""How minillm/ is built: its floors, its files, who imports whom.

    python -m tests.house            # all of it
    python -m tests.house floors     # the floors alone, as they stand in the README

A file imports only from floors below its own, or from its own; test_architecture.py sees to it.
"""

from __future__ import annotations

import ast
import io
import sys
import textwrap
import tokenize
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import fill

HOME = Path(__file__).parents[1] / "minillm"

# From the ground up: the rooms of a floor, what they hold. Rooms on one floor may know each other.
FLOORS = (
    ("files", "safetensors and JSON, read strictly and written safely"),
    ("kernels", "compiled loops: arrays in, arrays out"),
    ("autograd", "the engine; shapes that broadcast"),
    ("tensor", "an array that remembers how it was made"),
    ("functional", "operations: definition and chain rule side by side"),
    ("nn", "layers: functions with parameters of their own"),
    ("check", "is a gradient right, where did a NaN come from"),
    ("models", "GPT-2, Llama, T5, recurrent: each like its paper"),
    ("tokenizer data optim", "beside all this: they know no model and no layer"),
    ("training generation", "the loop and what keeps a run; from scores to text"),
    ("chat finetune", "a model that answers and stops; one that learns more for little: LoRA, preferences"),
    ("cli", "what a person types"),
)
FLOOR = {room: level for level, (rooms, _) in enumerate(FLOORS) for room in rooms.split()}
SIDE_ROOMS = {  # what may be imported there, though more lies below
    "tokenizer": {"files", "kernels"},
    "data": {"files", "kernels", "autograd", "tokenizer"},
    "optim": {"kernels", "autograd", "tensor"},
}
NO_ROOMS = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}  # of the package itself; all else is an entry
OF_THE_PACKAGE = {HOME / "__init__.py", HOME / "__main__.py"}  # which gather from all floors, and hand on to cli


@dataclass(frozen=True)
class Lines:
    """The lines of a file: those with code, those of docstrings and comments; empty ones count as neither."""

    code: int
    docs: int


def entries() -> list[str]:
    """What stands at the top of minillm/."""
    return sorted(path.name for path in HOME.iterdir() if path.name not in NO_ROOMS)


@cache
def modules() -> list[Path]:
    """Every file of the package but its own two."""
    return sorted(set(HOME.rglob("*.py")) - OF_THE_PACKAGE)


def room_of(path: Path) -> str:
    """tensor.py -> tensor, functional/conv.py -> functional."""
    return path.relative_to(HOME).parts[0].removesuffix(".py")


@cache
def lines_of(path: Path) -> Lines:
    """A line is code if anything on it is code; a docstring is a string that stands alone as a statement."""
    text = path.read_text(encoding="utf-8")
    strings = {
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    code, comments = set(), set()
    silent = (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.add(token.start[0])
        elif token.type not in silent:
            code |= set(range(token.start[0], token.end[0] + 1))
    written = {number for number, line in enumerate(text.splitlines(), 1) if line.strip()}
    code = (code - strings) & written
    return Lines(len(code), len(((strings | comments) & written) - code))


@cache
def imports_of(path: Path, lazy: bool = True) -> frozenset[Path]:
    """The files of minillm/ that a file imports; imports for types alone do not count.

    lazy: also those inside functions, which happen when the function is called.
    """
    package = path.relative_to(HOME).parent.parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[Path] = set()
    for node in _statements(tree, lazy):
        if isinstance(node, ast.ImportFrom):
            name = tuple((node.module or "").split(".")) if node.module else ()
            if node.level:
                base = package[: len(package) - node.level + 1] + name
            elif name[:1] == ("minillm",):
                base = name[1:]
            else:
                continue
            for alias in node.names:
                found |= _file((*base, alias.name)) or _file(base)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                name = tuple(alias.name.split("."))
                found |= _file(name[1:]) if name[0] == "minillm" else set()
    return frozenset(found - {path} - OF_THE_PACKAGE)


def _statements(tree: ast.AST, lazy: bool) -> list[ast.AST]:
    """All nodes but those for type checkers, and, unless ``lazy``, those inside functions."""
    found, asked = [], [tree]
    while asked:
        node = asked.pop()
        found.append(node)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            asked += node.orelse
        elif lazy or not isinstance(node, (ast.FunctionDef, ast.Lambda)):
            asked += ast.iter_child_nodes(node)
    return found


def _file(parts: tuple[str, ...]) -> set[Path]:
    """The file of a dotted name."""
    path = HOME.joinpath(*parts)
    candidates = (path.with_suffix(".py"), path / "__init__.py") if parts else (HOME / "__init__.py",)
    return {candidate for candidate in candidates if candidate.is_file()}


def circle(graph: dict[Path, frozenset[Path]]) -> list[Path]:
    """Files that import each other round in a circle, or none."""
    done: set[Path] = set()
    for start in sorted(graph):
        way: list[Path] = []
        stack = [(start, iter(sorted(graph.get(start, ()))))]
        while stack:
            node, following = stack[-1]
            if node not in way:
                way.append(node)
            after = next((other for other in following if other not in done), None)
            if after is None:
                done.add(node)
                way.pop()
                stack.pop()
            elif after in way:
                return way[way.index(after) :]
            else:
                stack.append((after, iter(sorted(graph.get(after, ())))))
    return []


# ---- printed ---------------------------------------------------------------------------------------------------------


def floors() -> str:
    """The floors, the ground at the bottom."""
    width = max(len(rooms.replace(" ", ", ")) for rooms, _ in FLOORS)
    return "\n".join(f"{rooms.replace(' ', ', '):{width}}  {told}" for rooms, told in reversed(FLOORS))


def sizes() -> str:
    """For each room its files, the longest first: lines of code, lines of docstrings and comments."""
    rows = []
    for rooms, _ in reversed(FLOORS):
        for room in rooms.split():
            files = [(lines_of(path), path) for path in modules() if room_of(path) == room]
            files.sort(key=lambda row: (-row[0].code, row[1]))
            rows.append(f"{room:40}{sum(n.code for n, _ in files):6}{sum(n.docs for n, _ in files):6}")
            if len(files) > 1:
                rows += [f"  {path.relative_to(HOME / room)!s:38}{n.code:6}{n.docs:6}" for n, path in files]
    all_lines = [lines_of(path) for path in modules()]
    total = f"{'all':40}{sum(n.code for n in all_lines):6}{sum(n.docs for n in all_lines):6}"
    return "\n".join([f"{'':40}{'code':>6}{'docs':>6}", *rows, total])


def between_rooms() -> str:
    """Who imports whom, and how often."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in modules():
        counts.update((room_of(path), room_of(other)) for other in imports_of(path) if room_of(other) != room_of(path))
    rows = []
    for room in sorted(FLOOR, key=lambda room: -FLOOR[room]):
        others = sorted(
            ((n, to) for (here, to), n in counts.items() if here == room), key=lambda x: (-FLOOR[x[1]], x[1])
        )
        told = ", ".join(f"{to} {n}" for n, to in others) or "-"
        rows += textwrap.wrap(told, 100, initial_indent=f"{room:12}", subsequent_indent=" " * 12)
    return "\n".join(rows)


def main(what: str = "") -> None:
    """Print the floors, or everything."""
    if what == "floors":
        print(floors())
        return
    print("Floors (a file imports from its own and from those below)\n\n" + floors())
    print(f"\nEntries of minillm/: {len(entries())} (of at most 16)\n\n" + fill(" ".join(entries()), 100))
    print("\nLines\n\n" + sizes())
    long = sorted(((lines_of(p).code, str(p.relative_to(HOME))) for p in modules()), reverse=True)
    print("\nOver 300 lines of code\n\n" + ("\n".join(f"{name:40}{n:6}" for n, name in long if n > 300) or "none"))
    print("\nImports between rooms, and in how many places\n\n" + between_rooms())


if __name__ == "__main__":
    main(*sys.argv[1:])
