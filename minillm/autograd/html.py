"""How tensors and modules look in a notebook: short tables, in which nothing but text is taken from
outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

EDGE = 4  # rows and columns that are shown at each side of an array


def table(rows: Iterable[Sequence[str]], head: Sequence[str] = (), below: str = "") -> str:
    """Rows of cells as an HTML table, with a line ``below`` it."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f"<table>{top}<tbody>{body}</tbody></table><p>{escape(below)}</p>"


def array_table(array: np.ndarray, below: str) -> str:
    """An array of one or two axes, its middle left out where it is long."""
    rows = array if array.ndim == 2 else array[None]

    def shown(i: int | None, j: int | None) -> str:
        return "…" if i is None or j is None else f"{rows[i, j]:.4g}" if rows.dtype.kind == "f" else str(rows[i, j])

    return table([[shown(i, j) for j in _ends(rows.shape[1])] for i in _ends(rows.shape[0])], below=below)


def _ends(n: int) -> list[int | None]:
    """The places of the first and the last few of n, None for those between."""
    return list(range(n)) if n <= 2 * EDGE + 1 else [*range(EDGE), None, *range(n - EDGE, n)]
