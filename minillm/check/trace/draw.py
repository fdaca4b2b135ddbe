"""The graph as SVG: cards with their values and gradients, and the edges between them.

What the page reveals step by step carries ``data-step``: the number of the step at which it comes.
Without JavaScript all of it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from .folding import Card
from .layout import Layout, lay_out
from .record import MOST_VALUES, Entry, Kept
from .steps import Step, number

WIDTH, HEAD, LINE, PAD = 206.0, 30.0, 18.0, 10.0
GRID = 84.0  # the widest that a grid of values gets
LEVELS = 4  # of colour on each side of zero
LETTERS = 24  # that fit on a card


def graph_svg(cards: Sequence[Card], steps: Sequence[Step], loss: Entry) -> str:
    """The whole graph. (cards of `folding`, steps of `steps`)"""
    number_of = {card: i for i, card in enumerate(cards)}
    step_of = {step.card: i for i, step in enumerate(steps, start=1)}
    edges = [(number_of[source], i) for i, card in enumerate(cards) for source in card.inputs]
    sizes = [(WIDTH, _height(card)) for card in cards]
    layout = lay_out(sizes, edges)
    parts = [_edges(cards, edges, layout, sizes, step_of)]
    parts += [
        _card(i, card, step_of.get(card, 0), step_of, loss in card.members, *layout.centres[i], sizes[i][1])
        for i, card in enumerate(cards)
    ]
    w, h = layout.width + 24, layout.height + 24
    return (
        f'<svg viewBox="-12 -12 {w:.0f} {h:.0f}" width="{w:.0f}" height="{h:.0f}" role="img" '
        f'aria-labelledby="graph-title">{FRAME}{"".join(parts)}</svg>'
    )


FRAME = (
    '<title id="graph-title">The graph: values go down to the loss, gradients come back up. The table below holds the '
    'same numbers.</title><defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" '
    'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto"><path class="head" d="M0 0L8 4L0 8z"/></marker></defs>'
)


# ---- cards ---------------------------------------------------------------------------------------


def _grid_of(kept: Kept) -> tuple[int, int, float] | None:
    """Rows, columns and the side of a cell, of an array that is small enough to be drawn."""
    if not (1 < kept.size <= MOST_VALUES and kept.whole):
        return None
    columns = kept.shape[-1] if kept.shape else 1
    rows = kept.size // columns
    return rows, columns, min(14.0, GRID / columns, 84.0 / rows)


def _height(card: Card) -> float:
    grid = _grid_of(card.members[0].value)
    inside = 3 * LINE if card.is_folded else 2 * LINE if grid is None else 16 + grid[0] * grid[2]
    return HEAD + inside + PAD + (LINE if _is_bad(card) else 0)


def _is_bad(card: Card) -> bool:
    """Whether a NaN or an infinity arose here."""
    return any(entry.born_bad or entry.passes_bad for entry in card.members)


def _card(
    i: int, card: Card, step: int, step_of: dict[Card, int], is_loss: bool, x: float, y: float, height: float
) -> str:
    entry = card.members[-1]
    kind = "loss" if is_loss else "folded" if card.is_folded else "leaf" if entry.is_leaf else (
        "constant" if entry.op is None else "result"
    )  # fmt: skip
    bad = _is_bad(card)
    left = x - WIDTH / 2
    title = card.title if card.is_folded else entry.name if entry.op is None else f"{entry.name} = {entry.expression}"
    body = _folded_body(card, step) if card.is_folded else _body(entry, step, step_of)
    return (
        f'<g class="card {kind}{" bad" if bad else ""}" data-card="{i}" data-at="{step}" '
        f'transform="translate({left:.1f} {y:.1f})">'
        f'<rect class="paper" width="{WIDTH:.0f}" height="{height:.1f}" rx="8"/>'
        f'<rect class="side" width="5" height="{height:.1f}" rx="2"/>'
        f'<text class="title" x="14" y="20">{escape(_fit(title, card.is_folded))}<title>{escape(title)}</title></text>'
        + (f'<text class="mark" x="{WIDTH - 8:.0f}" y="{height - 6:.1f}" text-anchor="end">⚠ arose here</text>'
           if bad else "")
        + f'<g transform="translate(14 {HEAD:.0f})">{body}</g></g>'
    )  # fmt: skip


def _fit(text: str, is_path: bool) -> str:
    """What a card has room for: the beginning of an expression, the end of a path."""
    if len(text) <= LETTERS:
        return text
    return f"…{text[1 - LETTERS :]}" if is_path else f"{text[: LETTERS - 1]}…"


def _row(y: float, label: str, what: str) -> str:
    return f'<text y="{y:.1f}"><tspan class="label">{label}</tspan><tspan x="62">{what}</tspan></text>'


def _body(entry: Entry, step: int, step_of: dict[Card, int]) -> str:
    gradient = entry.gradient
    grid = _grid_of(entry.value)
    if grid is not None:
        parts = [f'<text class="label" y="9">value {escape(str(entry.value.shape))}</text>', _cells(entry.value, grid)]
        if gradient is not None:
            parts.append(
                f'<g transform="translate({GRID + 12:.0f} 0)" data-step="{step}"><text class="label" y="9">'
                f"gradient</text>{_cells(gradient, grid)}</g>"
            )
        return "".join(parts)
    parts = [_row(12, "value", escape(_brief(entry.value)))]
    if gradient is None:
        note = "none: a constant" if not entry.needs_gradient else "none arrived"
        parts.append(_row(12 + LINE, "gradient", f'<tspan class="label">{note}</tspan>'))
    elif gradient.size == 1 and 1 < len(entry.arrivals) <= 3:
        at = {a.source: step_of[card] for card in step_of for a in entry.arrivals if a.source in card.members}
        terms = [
            f'<tspan data-step="{at[a.source]}">{" + " if i else ""}{escape(number(a.gradient.values[0]))}</tspan>'
            for i, a in enumerate(entry.arrivals)
        ]
        total = f'<tspan data-step="{step}" class="total"> = {escape(number(gradient.values[0]))}</tspan>'
        parts.append(_row(12 + LINE, "gradient", "".join(terms) + total))
    else:
        total = f'<tspan class="total" data-step="{step}">{escape(_brief(gradient, True))}</tspan>'
        parts.append(_row(12 + LINE, "gradient", total))
    return "".join(parts)


def _brief(kept: Kept, gradient: bool = False) -> str:
    """An array in a few letters."""
    if kept.size == 1:
        return number(kept.values[0])
    if kept.bad is not None:
        return f"{kept.shape} with NaN or ∞"
    return f"norm {number(kept.norm)}" if gradient else f"{kept.shape}"


def _folded_body(card: Card, step: int) -> str:
    leaves = [entry for entry in card.members if entry.is_leaf]
    ends = [entry for entry in card.operations if entry.gradient is not None]
    came = _brief(ends[-1].gradient, True) if ends and ends[-1].gradient is not None else "none arrived"
    numbers = sum(entry.value.size for entry in leaves)
    holds = f"{len(leaves)} parameters, {numbers:,} numbers" if leaves else ""
    return (
        f'<text class="label" y="12">{len(card.operations)} operations</text>'
        + f'<text class="label" y="{12 + LINE:.0f}">{holds}</text>'
        + _row(12 + 2 * LINE, "gradient", f'<tspan class="total" data-step="{step}">{escape(came)}</tspan>')
    )


def _cells(kept: Kept, grid: tuple[int, int, float]) -> str:
    """The entries as coloured squares: one path for each colour."""
    rows, columns, side = grid
    values = kept.values.astype(np.float64)
    finite = np.abs(values[np.isfinite(values)])
    most = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    squares: dict[str, list[str]] = {}
    for i, value in enumerate(values):
        x, y = i % columns * side, 15 + i // columns * side
        if np.isfinite(value):
            level = int(np.ceil(abs(value) / most * LEVELS))
            kind = f"{'p' if value > 0 else 'n'}{level}" if level else "z"
        else:
            kind = "nan"
        inner = max(side - 1, 0.5)
        squares.setdefault(kind, []).append(f"M{x:.1f} {y:.1f}h{inner:.1f}v{inner:.1f}h-{inner:.1f}z")
    return "".join(f'<path class="{kind}" d="{"".join(d)}"/>' for kind, d in squares.items())


# ---- edges ---------------------------------------------------------------------------------------


def _edges(
    cards: Sequence[Card],
    edges: Sequence[tuple[int, int]],
    layout: Layout,
    sizes: Sequence[tuple[float, float]],
    step_of: dict[Card, int],
) -> str:
    starts: dict[int, list[int]] = {}  # card -> its edges downward, from left to right, so that few cross
    ends: dict[int, list[int]] = {}
    for e, (u, v) in enumerate(edges):
        starts.setdefault(u, []).append(e)
        ends.setdefault(v, []).append(e)
    for out in starts.values():
        out.sort(key=lambda e: layout.routes[e][0][0] if layout.routes[e] else layout.centres[edges[e][1]][0])
    for incoming in ends.values():
        incoming.sort(key=lambda e: layout.routes[e][-1][0] if layout.routes[e] else layout.centres[edges[e][0]][0])
    drawn = []
    for e, (u, v) in enumerate(edges):
        x, y = _port(layout.centres[u][0], starts[u], e), layout.centres[u][1] + sizes[u][1]
        path = [f"M{x:.1f} {y:.1f}"]
        for corner, top, bottom in layout.routes[e]:
            path.append(_curve(x, y, corner, top))
            path.append(f"V{bottom:.1f}")
            x, y = corner, bottom
        path.append(_curve(x, y, _port(layout.centres[v][0], ends[v], e), layout.centres[v][1] - 2))
        needs = any(t.needs_gradient for t in cards[u].members)
        step = step_of.get(cards[v], 0) if needs else 0
        lit = f' data-lit="{step}"' if step else ""
        kind = "edge" if needs else "edge constant"
        drawn.append(f'<path class="{kind}"{lit} d="{"".join(path)}" marker-end="url(#arrow)"/>')
    return "".join(drawn)


def _port(centre: float, edges: Sequence[int], e: int) -> float:
    """Where an edge meets its card: side by side with the others."""
    spread = min(34.0, (WIDTH - 50) / len(edges))
    return centre + (edges.index(e) - (len(edges) - 1) / 2) * spread


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    middle = (y + to_y) / 2
    return f"C{x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
