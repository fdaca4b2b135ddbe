"""Break every definition and every backward function in turn, and see whether the tests notice.

    python tests/break_on_purpose.py            # N of N noticed, or the list of those that were not
    python tests/break_on_purpose.py softmax    # only what has this in its file or name

What is broken: each function ``backward`` in tensor.py and functional/, and the whole of each NumPy definition that a
kernel stands in for (``kernels.DEFINITIONS``: forward, backward, the optimiser's update, BPE ...), with the helpers
that it calls in its own file. How: see mutations.py. The function is changed in memory, compiled, and put in the place
of the right one; then whatever passes through it is checked:

* the rows of the table of operations (opspec.py): values against NumPy, gradients against small changes;
* the answers of known_answers.py.

A change after which all still pass is one that no test would notice: it is listed, and the exit code is 1. So is a
function without a change, one that no check passes through, a check that fails before anything is changed, and an
exception below that no longer occurs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import multiprocessing
import os
import pkgutil
import signal
import sys
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

os.environ["MINILLM_KERNELS"] = "numpy"  # the definitions themselves run
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import minillm
from minillm import Tensor, gradcheck, kernels
from tests.known_answers import CHECKS
from tests.mutations import HELPERS, mutants
from tests.opspec import OPS, Op

PATIENCE = 5.0  # seconds of computing, however busy the machine is: a change may make a loop endless

# Changes that change nothing: "file function: change" -> why.
EQUIVALENT: dict[str, str] = {
    "functional/reductions.py logsumexp: number: 0 -> 1 in weights = np.exp(a - np.where(np.isneginf(y), 0, y))": (
        "a is -inf there, and e^-inf is 0 whatever is taken off"
    ),
    "functional/reductions.py norm: number: 1 -> 2 in return "
    "(with_axes(dy, axis, keepdims, a.ndim) * a / np.where(y == 0, 1, y),)": "a is 0 there",
    "functional/reductions.py std: number: 1 -> 2 in return (dy * centred / np.where(y == 0, 1, n * y),)": (
        "centred is 0 there"
    ),
    "functional/reductions.py std: number: 0 -> 1 in "
    "dy = np.where(y == 0, dy.dtype.type(0), with_axes(dy, axis, keepdims, a.ndim))": "centred is 0 there",
}


@dataclass(frozen=True)
class Target:
    """A function to be broken: all of it, or only the ``backward`` inside."""

    function: FunctionType
    name: str
    only_backward: bool

    @property
    def file(self) -> str:
        return str(Path(self.function.__code__.co_filename).relative_to(Path(minillm.__file__).parent))

    @property
    def source(self) -> str:
        return textwrap.dedent(inspect.getsource(self.function))

    def __str__(self) -> str:
        return f"{self.file} {self.name}"


# ---- what is broken --------------------------------------------------------------------------------------------------


def targets() -> list[Target]:
    """Every backward function, every definition, and the helpers of both."""
    found: dict[CodeType, Target] = {}
    for module in _modules():
        for holder in (module, *[v for v in vars(module).values() if inspect.isclass(v) and v is Tensor]):
            for name, value in vars(holder).items():
                function = inspect.unwrap(value) if inspect.isfunction(value) else None
                if isinstance(function, FunctionType) and _has_backward(function) and function.__name__ == name:
                    found.setdefault(function.__code__, Target(function, name, only_backward=True))
    for name, (_, quiet) in kernels.DEFINITIONS.items():
        definition = inspect.unwrap(quiet)
        found[definition.__code__] = Target(definition, name, only_backward=False)
    for target in list(found.values()):
        for helper in _helpers(target):
            found.setdefault(helper.__code__, Target(helper, helper.__name__, only_backward=False))
    return sorted(found.values(), key=str)


def _modules() -> list[ModuleType]:
    """All of minillm but kernels/ and what only a person runs: importing them registers the definitions."""
    names = [m.name for m in pkgutil.walk_packages(minillm.__path__, "minillm.")]
    modules = [importlib.import_module(name) for name in names if ".kernels" not in name and ".cli" not in name]
    return [m for m in modules if m.__name__ == "minillm.tensor" or m.__name__.startswith("minillm.functional")]


def _has_backward(function: FunctionType) -> bool:
    inside = [c for c in function.__code__.co_consts if isinstance(c, CodeType)]
    return function.__name__ != "backward" and any(c.co_name.endswith("backward") for c in inside)


def _helpers(target: Target) -> Iterator[FunctionType]:
    """The private functions of the same file that a definition calls, and those that they call."""
    asked, seen = [target.function], {target.function}
    registered = {inspect.unwrap(definition) for _, definition in kernels.DEFINITIONS.values()}
    while asked and not target.only_backward:
        function = asked.pop()
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            helper = function.__globals__.get(node.id) if isinstance(node, ast.Name) else None
            helper = inspect.unwrap(helper) if inspect.isfunction(helper) else None
            if helper is None or helper in seen or helper in registered or helper.__module__ != function.__module__:
                continue
            seen.add(helper)
            if isinstance(helper, FunctionType) and not _has_backward(helper):
                asked.append(helper)
                yield helper


def broken(function: FunctionType, tree: ast.Module) -> CodeType | None:
    """The code of a changed function; None where it cannot take the place of the right one."""
    made = tree.body[0]
    assert isinstance(made, ast.FunctionDef)
    made.decorator_list, made.args.defaults, made.args.kw_defaults = [], [], [None for _ in made.args.kw_defaults]
    namespace: dict[str, Any] = {}
    exec(compile(tree, function.__code__.co_filename, "exec"), function.__globals__ | {"__name__": "broken"}, namespace)
    code = namespace[made.name].__code__
    return code if code.co_freevars == function.__code__.co_freevars else None


# ---- what should notice ----------------------------------------------------------------------------------------------


def checks() -> dict[str, Callable[[], None]]:
    """Every row of the table, values and gradients, and every known answer."""
    found: dict[str, Callable[[], None]] = {}
    for op in OPS:
        for i, arrays in enumerate(op.inputs):
            found[f"value of {op.id} {i}"] = lambda op=op, arrays=arrays: _value(op, arrays)
            tie = any(len(set(a.reshape(-1).tolist())) == 1 and a.size > 1 for a in arrays)
            if not tie and sum(a.size for a in arrays) <= 300:
                found[f"gradient of {op.id} {i}"] = lambda op=op, arrays=arrays: _gradient(op, arrays)
    return found | {check.__name__: check for check in CHECKS}


def _value(op: Op, arrays: tuple[np.ndarray, ...]) -> None:
    np.testing.assert_allclose(op.call(*map(Tensor, arrays)).data, op.numpy(*arrays), rtol=1e-9, atol=1e-11)


def _gradient(op: Op, arrays: tuple[np.ndarray, ...]) -> None:
    gradcheck(op.call, [Tensor(a) for a in arrays])


def passed_through(check: Callable[[], None]) -> set[tuple[str, str, int]]:
    """The functions that run in a check: (file, name, first line)."""
    seen = set()

    def look(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            code = frame.f_code
            seen.add((code.co_filename, code.co_name, code.co_firstlineno))

    sys.setprofile(look)
    try:
        check()
    finally:
        sys.setprofile(None)
    return seen


def places(target: Target) -> set[tuple[str, str, int]]:
    """Where to look for a target among the functions that ran: itself, or the backward functions inside it."""
    code = target.function.__code__
    inside = [c for c in code.co_consts if isinstance(c, CodeType) and c.co_name.endswith("backward")]
    return {(c.co_filename, c.co_name, c.co_firstlineno) for c in (inside if target.only_backward else [code])}


# ---- one after the other ---------------------------------------------------------------------------------------------


def _quiet() -> None:
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")


def survivors(target: Target, asked: list[Callable[[], None]]) -> tuple[int, list[str]]:
    """How many changes were tried, and those that no check noticed."""
    function, code = target.function, target.function.__code__
    function.__globals__.update(HELPERS)
    tried, missed = 0, []
    for told, tree in mutants(target.source, target.only_backward):
        changed = broken(function, tree)
        if changed is None:
            continue
        tried += 1
        function.__code__ = changed  # everywhere at once, however the function was imported
        try:
            if not any(_notices(check) for check in asked):
                missed.append(told)
        finally:
            function.__code__ = code
    return tried, missed


def _notices(check: Callable[[], None]) -> bool:
    signal.setitimer(signal.ITIMER_PROF, PATIENCE)
    try:
        check()
    except (Exception, MemoryError):  # however it fails, it was noticed
        return True
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return False


def _too_long(*_: Any) -> None:
    raise TimeoutError("an endless loop")


def _work(number: int) -> tuple[int, int, list[str]]:
    _quiet()
    signal.signal(signal.SIGPROF, _too_long)
    tried, missed = survivors(TARGETS[number], ASKED[number])
    return number, tried, missed


TARGETS: list[Target] = []
ASKED: list[list[Callable[[], None]]] = []  # for each target, the checks that pass through it, the quickest first


def main(wanted: str = "") -> int:
    """Break everything whose name has ``wanted`` in it; returns the exit code."""
    _quiet()
    TARGETS[:] = [target for target in targets() if wanted in str(target)]
    through, failing = [], []
    for name, check in checks().items():
        begin = time.perf_counter()
        try:
            seen = passed_through(check)
            through.append((time.perf_counter() - begin, check, seen))
        except Exception as error:  # noqa: BLE001 - it is told below, and notices nothing
            failing.append(f"{name}: {error!r:.100}")
    through.sort(key=lambda row: row[0])
    ASKED[:] = [[check for _, check, seen in through if seen & places(target)] for target in TARGETS]
    unseen = [str(target) for target, asked in zip(TARGETS, ASKED, strict=True) if not asked]
    tried, noticed, missed, without, excused = Counter[str](), Counter[str](), [], [], set()
    with multiprocessing.get_context("fork").Pool(min(2, os.cpu_count() or 1)) as pool:
        for number, n, lost in pool.imap_unordered(_work, range(len(TARGETS))):
            target = TARGETS[number]
            if not n:
                without.append(str(target))
            labels = [f"{target}: {told}" for told in lost]
            excused |= EQUIVALENT.keys() & set(labels)
            same = sum(label in EQUIVALENT for label in labels)
            missed += [label for label in labels if label not in EQUIVALENT and str(target) not in unseen]
            tried[target.file] += n - same
            noticed[target.file] += n - len(labels)
    for file in sorted(tried):
        print(f"{file:32} {noticed[file]:5} of {tried[file]}")
    print(f"{noticed.total()} of {tried.total()} noticed, in {len(TARGETS)} functions; {len(excused)} change nothing")
    stale = [] if wanted else sorted(EQUIVALENT.keys() - excused)
    for title, lines in (
        ("fails with nothing changed", failing),
        ("not noticed", sorted(missed)),
        ("no check passes through", sorted(unseen)),
        ("nothing to change in", sorted(without)),
        ("no longer a change that changes nothing", stale),
    ):
        for line in lines:
            print(f"  {title}: {line}")
    return 1 if failing or missed or unseen or without or stale else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
