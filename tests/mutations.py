"""Small changes of a function, each of which a good test must notice.

``mutants(source, inside)`` gives, one at a time, the tree of the function with one change:

* *sign*: what is returned is negated; a minus is left out; ``+`` becomes ``-`` and the other way round;
* *term*: one operand of ``+ - * / **`` is dropped; a statement that adds something in (``dx[i] += ...``) is left out;
* *sum*: a sum or mean becomes its first term; ``unbroadcast`` takes one copy instead of the sum over all;
* *number*: a constant is changed;
* *choice*: a comparison, or the condition of an ``if``, is turned round; of ``<`` and ``<=`` the other one is taken.

Indices, shapes, messages and checks of arguments are left alone: what is wrong there breaks loudly, or not at all.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

Change = tuple[str, ast.Module]
OTHER_SIDE: dict[type, type] = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq}
OTHER_SIDE |= {there: here for here, there in OTHER_SIDE.items()}
NEIGHBOUR: dict[type, type] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
SHAPES = set(
    "reshape transpose arange zeros ones empty full range swapaxes expand_dims moveaxis astype view with_axes".split()
)
SUMS = {"sum", "mean", "total"}


def mutants(source: str, only_backward: bool) -> Iterator[Change]:
    """(what was done, the changed module) for each single change of a function, or of the ``backward`` inside it."""
    original = ast.parse(source)
    for part in range(len(_parts(original, only_backward))):
        root = _parts(original, only_backward)[part]
        parents = _parents(root)
        for i, node in enumerate(ast.walk(root)):
            for k, told in enumerate(_changes(node, parents, root)):
                tree = copy.deepcopy(original)
                twin_root = _parts(tree, only_backward)[part]
                twin = list(ast.walk(twin_root))[i]
                twin_parents = _parents(twin_root)
                what, change = list(_made(twin, twin_parents, twin_root))[k]
                assert what == told
                change()
                yield told, ast.fix_missing_locations(tree)


def _parents(root: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: parent for parent in ast.walk(root) for child in ast.iter_child_nodes(parent)}


def _parts(tree: ast.Module, only_backward: bool) -> list[ast.FunctionDef]:
    """The function itself, or the functions inside it whose name ends in ``backward``."""
    inside = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    return [n for n in inside[1:] if n.name.endswith("backward")] if only_backward else inside[:1]


def _changes(node: ast.AST, parents: dict, root: ast.AST) -> list[str]:
    return [told for told, _ in _made(node, parents, root)]


def _made(node: ast.AST, parents: dict, root: ast.AST) -> Iterator[tuple[str, Any]]:
    """(what is done, a function that does it) for each change that begins at ``node``."""
    if _left_alone(node, parents, root):
        return
    text = ast.unparse(node)

    def instead(new: ast.AST) -> Any:
        return lambda: _replace(parents[node], node, new)

    def parsed(expression: str) -> ast.AST:
        return ast.parse(expression, mode="eval").body

    if isinstance(node, ast.Return) and node.value is not None and not _is_nothing(node.value):
        yield f"sign: {text}", lambda: setattr(node, "value", parsed(f"_minus({ast.unparse(node.value)})"))
        elements = node.value.elts if isinstance(node.value, ast.Tuple) else []
        for j, element in enumerate(elements if len(elements) > 1 else []):
            if not isinstance(element, (ast.Starred, ast.Constant)):
                minus = parsed(f"_minus({ast.unparse(element)})")
                yield f"sign: of {ast.unparse(element)} in {text}", lambda j=j, m=minus: elements.__setitem__(j, m)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        yield f"sign: {text}", instead(node.operand)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)):
        yield f"term: {text} -> {ast.unparse(node.left)}", instead(node.left)
        if isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
            yield f"term: {text} -> {ast.unparse(node.right)}", instead(node.right)
        if isinstance(node.op, (ast.Add, ast.Sub)):
            other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield f"sign: {text}", lambda: setattr(node, "op", other)
    elif isinstance(node, ast.AugAssign):
        yield f"term: {text} left out", instead(ast.Pass())
        if isinstance(node.op, (ast.Add, ast.Sub)):
            other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield f"sign: {text}", lambda: setattr(node, "op", other)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"term: {text} left out", instead(ast.Pass())
    elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "unbroadcast":
        yield f"sum: {text}", instead(parsed("_one_copy(" + ", ".join(map(ast.unparse, node.args)) + ")"))
    elif isinstance(node, ast.Call) and _called(node) in SUMS:
        on = [node.func.value] if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) != "np" else []
        arguments = [*map(ast.unparse, [*on, *node.args]), *map(ast.unparse, node.keywords)]
        yield f"sum: {text}", instead(parsed(f"_first_term({', '.join(arguments)})"))
    elif isinstance(node, ast.Constant) and type(node.value) in (int, float):
        changed = node.value + 1 if type(node.value) is int else node.value * 1.25 + 0.125
        yield f"number: {text} -> {changed:g} in {_line(node, parents)}", instead(ast.Constant(changed))
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OTHER_SIDE:
        for table in (OTHER_SIDE, NEIGHBOUR):
            if new := table.get(type(node.ops[0])):
                told = ast.unparse(ast.Compare(node.left, [new()], node.comparators))
                yield f"choice: {text} -> {told}", lambda new=new: node.ops.__setitem__(0, new())
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)) and not isinstance(node.test, (ast.Compare, ast.Constant)):
        test = ast.unparse(node.test)
        yield f"choice: if {test}", lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))


def _left_alone(node: ast.AST, parents: dict, root: ast.AST) -> bool:
    """Indices, shapes, annotations, docstrings, messages and checks: not the mathematics."""
    while node is not root:
        parent = parents[node]
        if isinstance(parent, ast.Subscript) and node is parent.slice:
            return True
        if isinstance(parent, ast.Call) and node is not parent.func and _called(parent) in SHAPES:
            return True
        if isinstance(parent, ast.keyword) and parent.arg in ("axis", "dtype", "keepdims", "minlength", "copy"):
            return True
        if isinstance(parent, (ast.arguments, ast.arg, ast.Raise, ast.Assert, ast.JoinedStr)):
            return True
        if isinstance(parent, ast.AnnAssign) and node is parent.annotation:
            return True
        if parent is root and node not in root.body:  # type: ignore[attr-defined]
            return True
        if isinstance(parent, ast.If) and isinstance(parent.body[0], ast.Raise):
            return True
        if isinstance(node, ast.If) and isinstance(node.body[0], ast.Raise):
            return True
        node = parent
    return False


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_nothing(value: ast.expr) -> bool:
    """None, or zeros, whose sign does not matter."""
    first = value.elts[0] if isinstance(value, ast.Tuple) and len(value.elts) == 1 else value
    return ast.unparse(first) == "None" or (isinstance(first, ast.Call) and _called(first) in ("zeros", "zeros_like"))


def _line(node: ast.AST, parents: dict) -> str:
    while node in parents and not isinstance(node, ast.stmt):
        node = parents[node]
    return ast.unparse(node).split("\n")[0]


def _replace(parent: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for field, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, field, new)
        elif isinstance(value, list) and any(v is old for v in value):
            value[[v is old for v in value].index(True)] = new


# ---- what stands in the changed code ---------------------------------------------------------------------------------


def _minus(x: Any) -> Any:
    """The negative of a result: of an array, a number, or each in a tuple or list."""
    if isinstance(x, (tuple, list)):
        return type(x)(_minus(part) for part in x)
    if isinstance(x, np.ndarray) and x.dtype == bool:
        return ~x
    return None if x is None else -x


def _one_copy(dy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """What is left when the sum over the copies is forgotten: the gradient of one of them."""
    one = dy[(0,) * (dy.ndim - len(shape))]
    return one[tuple(slice(0, n) for n in shape)].reshape(shape)


def _first_term(x: Any, axis: Any = None, keepdims: bool = False, **options: Any) -> Any:
    """The first of the terms of a sum."""
    if isinstance(x, np.ndarray) and x.size:
        axes = range(x.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        axes = tuple(a % x.ndim for a in axes)
        first = x[tuple(slice(0, 1) if a in axes else slice(None) for a in range(x.ndim))]
        return first if keepdims else first.reshape([n for a, n in enumerate(x.shape) if a not in axes])
    return next(iter(x), 0) if not isinstance(x, np.ndarray) else x.sum(axis=axis, keepdims=keepdims)


HELPERS = {"_minus": _minus, "_one_copy": _one_copy, "_first_term": _first_term}
