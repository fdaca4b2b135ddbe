"""What the tensors of a graph are called: by the reader's own variables, by their paths in a
module, else t1, t2, ... in the order in which they were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FrameType

from ...autograd import Node
from ...nn import Module
from ...tensor import Tensor
from .record import Entry
from .rules import expression


def variables(frame: FrameType) -> dict[str, Tensor | Module]:
    """The tensors and modules among the variables that can be seen from a line of code, its own
    first; those that begin with an underscore are nobody's.
    """
    own = dict(frame.f_locals)
    seen = own | {name: x for name, x in frame.f_globals.items() if name not in own}
    return {
        name: x
        for name, x in seen.items()
        if isinstance(x, (Tensor, Module)) and name.isidentifier() and not name.startswith("_")
    }


def give_names(nodes: Mapping[Node, Entry], names: Mapping[str, Tensor | Module]) -> None:
    """Give every entry its name, its path and its expression."""
    paths: dict[Node, str] = {}
    for name, value in names.items():
        if isinstance(value, Tensor):
            paths.setdefault(value, name)
    for name, value in names.items():
        if isinstance(value, Module):
            for path, parameter in value.named_parameters():
                paths.setdefault(parameter, f"{name}.{path}")
    short = _shortest([paths[t] for t in nodes if t in paths])
    taken = set(short.values())
    count, last = 0, list(nodes)[-1]
    for t, entry in nodes.items():
        if t in paths:
            entry.path, entry.name = paths[t], short[paths[t]]
        elif entry.op is None and not entry.needs_gradient:
            one = entry.value.size == 1
            entry.name = entry.path = f"{entry.value.values[0]:.4g}" if one else f"array {entry.value.shape}"
        elif t is last and "loss" not in taken:
            entry.name = entry.path = "loss"
        else:
            count += 1
            while f"t{count}" in taken:
                count += 1
            entry.name = entry.path = f"t{count}"
        entry.expression = expression(entry)


def _shortest(paths: Iterable[str]) -> dict[str, str]:
    """path -> the shortest end of it, of two parts or more, that no other path has:
    model.layers.0.weight -> 0.weight.
    """
    paths = list(dict.fromkeys(paths))
    short = {}
    for path in paths:
        parts = path.split(".")
        for n in range(2, len(parts) + 1):
            end = ".".join(parts[-n:])
            if sum(other == end or other.endswith(f".{end}") for other in paths) == 1:
                short[path] = end
                break
        else:
            short[path] = path
    return short
