"""The walk in the wrong order: what comes out when a tensor passes its gradient on too early."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...autograd import Node
from .record import Kept, Recording


def hasty(recording: Recording) -> None:
    """Walk depth first: each tensor passes on what it has when the *first* gradient reaches it.

    What reaches it later is kept at a parameter, where all must be added; an operation has passed
    on already, and the late share is lost on its way to the parameters. The sums are kept in the
    entries.
    """
    loss = next(node for node, entry in recording.nodes.items() if entry is recording.loss)
    sums = {loss: recording.seed}

    def passed(node: Node) -> Iterator[tuple[Node, np.ndarray | None]]:
        inputs, backward = recording.backwards[node]
        return iter(() if backward is None else zip(inputs, backward(sums[node]), strict=True))

    with np.errstate(all="ignore"):
        stack = [passed(loss)]
        while stack:
            t, g = next(stack[-1], (None, None))
            if t is None:
                stack.pop()
            elif g is not None and t.requires_grad:
                first = t not in sums
                sums[t] = np.asarray(g, t._data.dtype) if first else sums[t] + g
                if first:
                    stack.append(passed(t))
    for node, total in sums.items():
        recording.nodes[node].hasty = Kept(total)

