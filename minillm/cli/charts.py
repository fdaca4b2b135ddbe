"""Curves in the characters of a terminal: braille patterns, eight dots to a character, or letters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

BRAILLE = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # the dots of U+2800 by column and row
ASCII = str.maketrans("│╌└─◆", "|-+-o")


def chart(
    curves: Sequence[tuple[str, np.ndarray, np.ndarray]],
    points: Sequence[tuple[np.ndarray, np.ndarray]],
    lines: Sequence[tuple[float, str]],
    span: tuple[float, float],
    size: tuple[int, int],
    logarithmic: bool = False,
    unicode: bool = True,
) -> str:
    """A chart of ``size`` (columns, rows), and a line for the horizontal axis.

    curves: (letter, x, y) each; without a letter, as dots. points: (x, y), marked one by one.
    lines: (height, name), horizontal. span: the least and the greatest height. unicode: else
    letters, ``|`` and ``-`` alone.
    """
    low, high = (math.log(max(y, 1e-300)) if logarithmic else y for y in span)
    room = (high - low) or abs(high) or 1.0
    low, high = (low, high) if high > low else (low - room / 2, low + room / 2)
    rows = size[1]
    labels = {row: _number(_height(row, rows, low, high, logarithmic)) for row in {0, rows // 2, rows - 1}}
    gutter = max(map(len, labels.values())) + 1
    columns = max(8, size[0] - gutter - 1)
    first = min(float(x[0]) for _, x, _ in curves)
    last = max(float(x[-1]) for _, x, _ in curves)

    def across(x: np.ndarray, n: int) -> np.ndarray:
        return (x - first) / max(last - first, 1e-300) * (n - 1)

    def down(y: np.ndarray, n: int) -> np.ndarray:
        """Places from the top in n rows; what is beyond them stays at the edge."""
        y = np.log(np.maximum(y, 1e-300)) if logarithmic else y
        return np.clip((high - y) / (high - low), 0, 1) * (n - 1)

    cells = [[" "] * columns for _ in range(rows)]
    for height, _ in lines:
        cells[round(float(down(np.array(height), rows)))][:] = "╌" * columns
    taken: dict[tuple[int, int], str] = {}
    for letter, x, y in curves:
        letter = letter or ("" if unicode else "*")
        if not letter:
            _dots(cells, across(x, 2 * columns), down(y, 4 * rows))
            continue
        places, heights = across(x, columns), down(y, rows)
        for column in range(math.floor(places[0]), math.ceil(places[-1]) + 1):
            at = round(float(np.interp(column, places, heights))), column
            cells[at[0]][column] = taken[at] = letter if taken.get(at, letter) == letter else "*"
    for x, y in points:
        for place, depth in zip(across(x, columns), down(y, rows), strict=True):
            cells[round(depth)][round(place)] = "◆"
    for height, name in lines:  # their names where no curve is, at the right if there is room
        row, text = cells[round(float(down(np.array(height), rows)))], f" {name} {height:.3f} "
        for place in (columns - len(text), 2, columns // 2):
            if place >= 0 and set(row[place : place + len(text)]) == {"╌"}:
                row[place : place + len(text)] = text
                break
    out = [f"{labels.get(i, ''):>{gutter}}│{''.join(row)}".rstrip() for i, row in enumerate(cells)]
    left, right = f"{first:,.0f}", f"step {last:,.0f}"
    out.append(f"{'':{gutter}}└{'─' * columns}")
    out.append(f"{'':{gutter + 1}}{left}{right:>{columns - len(left)}}")
    text = "\n".join(out)
    return text if unicode else text.translate(ASCII)


def _dots(cells: list[list[str]], x: np.ndarray, y: np.ndarray) -> None:
    """A curve through the points (x, y), in dots, into cells of 2 x 4 dots each."""
    columns = np.arange(math.floor(x[0]), math.ceil(x[-1]) + 1)
    heights = np.rint(np.interp(columns, x, y)).astype(int)
    before = heights[0]
    for column, height in zip(columns, heights, strict=True):
        step = 1 if height >= before else -1
        for row in range(before + step if before != height else height, height + step, step):
            cell = cells[row // 4]
            old = ord(cell[column // 2])
            pattern = old - 0x2800 if 0x2800 <= old < 0x2900 else 0
            cell[column // 2] = chr(0x2800 + (pattern | BRAILLE[column % 2][row % 4]))
        before = height


def _height(row: int, rows: int, low: float, high: float, logarithmic: bool) -> float:
    y = high - (high - low) * row / (rows - 1)
    return math.exp(y) if logarithmic else y


def _number(y: float) -> str:
    return f"{y:,.0f}" if abs(y) >= 1000 else f"{y:.3g}"
