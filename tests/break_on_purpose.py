"""Break every backward rule in turn, and see whether the tests notice.

    python tests/break_on_purpose.py       # N of N noticed, or the list of those that were not

For each function ``backward`` in tensor.py and functional/, and for each of its returned gradients:

* *sign*: all gradients are negated, then each by itself where they are spelled out;
* *term*: one operand of one ``+``, ``-`` or ``*`` in the rule is dropped, or a call that adds something in;
* *broadcast*: a call of ``unbroadcast`` (or a sum over the broadcast axes) is left out.

The rule is changed in memory, compiled, put in the place of the right one, and the rows of the table of operations that
use it are checked against small changes (``gradcheck``). A change after which all still pass is one that no test would
notice.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import minillm.functional as F  # noqa: E402
from minillm import Tensor, gradcheck, tensor  # noqa: E402
from tests.opspec import OPS, Op  # noqa: E402


def owners() -> Iterator[tuple[Any, str, FunctionType]]:
    """(where it lives, its name, the function) of everything that has a ``backward`` inside."""
    for name, function in list(vars(Tensor).items()):
        alias = name in ("__radd__", "__rmul__", "backward")  # the same code as add and mul; the engine itself
        if inspect.isfunction(function) and not alias and "def backward" in inspect.getsource(function):
            yield Tensor, name, function
    rooms = [importlib.import_module(f"minillm.functional.{p.stem}") for p in Path(F.__file__).parent.glob("*.py")]
    for room in [tensor, *rooms]:
        for name, function in list(vars(room).items()):
            if inspect.isfunction(function) and function.__module__ == room.__name__:
                if "def backward" in inspect.getsource(function) and name != "backward":
                    yield room, name, function


def rules_of(tree: ast.AST) -> list[ast.FunctionDef]:
    """``backward``, and the other rule of an operation with two results."""
    inside = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)][1:]
    return [n for n in inside if n.name.endswith("backward")]


def mutants(source: str) -> Iterator[tuple[str, ast.Module]]:
    """(what was done, the changed tree) for each single change of the rule."""
    original = ast.parse(source)
    places = [(r, i) for r, rule in enumerate(rules_of(original)) for i in range(len(list(ast.walk(rule))))]
    for r, i in places:
        for kind in ("sign", "one sign", "left", "right", "broadcast"):
            tree = copy.deepcopy(original)
            rule = rules_of(tree)[r]
            node = list(ast.walk(rule))[i]
            told = change(rule, node, kind)
            if told:
                yield told, ast.fix_missing_locations(tree)


def change(rule: ast.FunctionDef, node: ast.AST, kind: str) -> str | None:
    if kind == "sign" and isinstance(node, ast.Return) and node.value is not None:
        before = ast.unparse(node.value)
        if before.startswith("(np.zeros_like("):
            return None  # minus zero is zero
        node.value = ast.parse(f"_negated({before})", mode="eval").body
        return f"sign: return {before}"
    if kind == "one sign":
        returned = [n.value for n in ast.walk(rule) if isinstance(n, ast.Return) and isinstance(n.value, ast.Tuple)]
        if any(node in value.elts and len(value.elts) > 1 for value in returned) and not isinstance(node, ast.Starred):
            before = ast.unparse(node)
            replace(rule, node, ast.parse(f"_negated(({before},))[0]", mode="eval").body)
            return f"sign: of {before} alone"
    if kind == "left" and isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        replace(rule, node, ast.Pass())
        return f"term: {ast.unparse(node)} left out"
    if kind in ("left", "right") and isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        if any(node in ast.walk(sub) for sub in ast.walk(rule) if isinstance(sub, ast.Subscript)):
            return None  # arithmetic on indices breaks loudly
        kept = node.left if kind == "left" else node.right
        told = f"term: {ast.unparse(node)} -> {ast.unparse(kept)}"
        replace(rule, node, kept)
        return told
    if kind == "broadcast" and isinstance(node, ast.Call) and getattr(node.func, "id", "") == "unbroadcast":
        told = f"broadcast: {ast.unparse(node)}"
        replace(
            rule,
            node,
            ast.parse(f"_first_copy({ast.unparse(node.args[0])}, {ast.unparse(node.args[1])})", mode="eval").body,
        )
        return told
    return None


def replace(root: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(root):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list) and old in value:
                value[value.index(old)] = new  # type: ignore[index]


def _negated(gradients: Any) -> Any:
    return type(gradients)(None if g is None else -g for g in gradients)


def _first_copy(dy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What is left when the sum over the copies is forgotten: the gradient of one of them."""
    extra = dy.ndim - len(shape)
    one = dy[(0,) * extra]
    return one[tuple(slice(0, n) for n in shape)].reshape(shape)


def compiled(function: FunctionType, tree: ast.Module) -> FunctionType:
    namespace = dict(function.__globals__, _negated=_negated, _first_copy=_first_copy)
    tree.body[0].decorator_list = []  # type: ignore[attr-defined]
    exec(compile(tree, function.__code__.co_filename, "exec"), namespace)
    made = namespace[tree.body[0].name]  # type: ignore[attr-defined]
    return FunctionType(made.__code__, function.__globals__, made.__name__, made.__defaults__, made.__closure__)


def survives(ops: list[Op]) -> bool:
    """Whether every row still passes."""
    for op in ops:
        for arrays in op.inputs:
            if (
                any(len(set(a.reshape(-1).tolist())) == 1 and a.size > 1 for a in arrays)
                or sum(a.size for a in arrays) > 300
            ):
                continue
            try:
                gradcheck(op.call, [Tensor(a) for a in arrays])
            except Exception:  # noqa: BLE001 - however it fails, it was noticed
                return False
    return True


def main() -> int:
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    noticed, missed = 0, []
    for where, name, function in owners():
        rows = rows_for(where, name)
        original = inspect.getattr_static(where, name)
        code = function.__code__
        for told, tree in mutants(textwrap.dedent(inspect.getsource(function))):
            broken = compiled(function, tree)
            if broken.__code__.co_freevars != code.co_freevars:
                continue
            function.__globals__.update(_negated=_negated, _first_copy=_first_copy)
            function.__code__ = broken.__code__  # everywhere at once, however the function was imported
            try:
                alive = survives(rows)
            finally:
                function.__code__ = code
            assert inspect.getattr_static(where, name) is original
            label = f"{getattr(where, '__name__', where)}.{name}: {told}"
            if not alive:
                noticed += 1
            else:
                missed.append(label)
    print(f"{noticed} of {noticed + len(missed)} noticed")
    for label in missed:
        print("  not noticed:", label)
    return 1 if missed else 0


def rows_for(where: Any, name: str) -> list[Op]:
    """The rows that exercise a function: its own, those of its aliases; of a shared helper, all that might use it."""
    own = {f"Tensor.{name}"} if where is Tensor else {name}
    own |= {"__add__": {"Tensor.__radd__"}, "__mul__": {"Tensor.__rmul__"}}.get(name, set())
    shared = {
        "_extremum": {"Tensor.max", "Tensor.min"},
        "_choose": {"maximum", "minimum"},
        "_additive_attention": {"past_attention"},
        "_self_attention": {"self_attention"},
    }
    own |= shared.get(name, set())
    return [op for op in OPS if op.name in own]


if __name__ == "__main__":
    sys.exit(main())
