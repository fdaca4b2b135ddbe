"""The page: one HTML file with the graph, the walk, all numbers, and the walk in the wrong order.

page.html is the frame. Everything is laid out here and can be read without JavaScript; page.js only
hides what has not come yet, and writes the sentences of the present step. The exact numbers stand
in the page as JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from .differences import agree
from .draw import graph_svg
from .folding import MOST_CARDS, Card
from .record import Entry, Kept
from .steps import Step, number

HOME = Path(__file__).parent


def page(entries: Sequence[Entry], cards: Sequence[Card], steps: Sequence[Step], unchecked: str) -> str:
    """The whole HTML text."""
    style, script = ((HOME / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    loss = entries[-1]
    operations = sum(entry.op is not None for entry in entries)
    leaves = sum(entry.is_leaf for entry in entries)
    folded = sum(card.is_folded for card in cards)
    intro = (
        f"{escape(loss.name)} = <strong>{escape(number(loss.value.values[0]))}</strong>, from {operations:,} "
        f"operation{'s' * (operations != 1)} and {leaves:,} leaf tensor{'s' * (leaves != 1)}, "
        "recorded while backward() ran."
    )
    if folded:
        intro += f" {folded} of the {len(cards)} cards stand for several operations; the table below has all."
    return Template((HOME / "page.html").read_text(encoding="utf-8")).substitute(
        policy=escape(policy),
        title=escape(f"Backpropagation of {loss.name}, step by step"),
        style=style,
        intro=intro,
        warning=_warning(entries),
        graph=graph_svg(cards, steps, loss),
        walk=_walk(steps),
        numbers=_numbers(entries, unchecked),
        order=_order(entries),
        json=_json(entries, cards, steps),
        script=script,
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _warning(entries: Sequence[Entry]) -> str:
    told = []
    for entry in entries:
        if entry.born_bad:
            causes = ", ".join(f"{t.name} = {number(t.value.values[0])}" if t.value.size == 1 else
                               f"{t.name} (from {number(t.value.low)} to {number(t.value.high)})"
                               for t in entry.inputs)  # fmt: skip
            told.append(f"forward, in {entry.name} = {entry.expression}, from {causes}")
        if entry.passes_bad:
            told.append(f"on the way back, in {entry.name} = {entry.expression}")
    if not told:
        return ""
    more = f", and in {len(told) - 5} more places" if len(told) > 5 else ""
    return f'<p class="warning">⚠ NaN or infinity arose {escape("; ".join(told[:5]) + more)}.</p>'


def _walk(steps: Sequence[Step]) -> str:
    items = "".join(
        f'<li data-item="{i}"><strong>{escape(step.headline)}</strong> '
        f"{' '.join(f'<span>{escape(sentence)}</span>' for sentence in step.sentences)}</li>"
        for i, step in enumerate(steps, start=1)
    )
    return f'<ol id="steps" tabindex="0" aria-label="All steps">{items}</ol>'


# ---- tables --------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Sequence[str], label: str) -> str:
    cells = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _array(kept: Kept | None, most: int = 16) -> str:
    """The first entries as text, all where there are no more than ``most``."""
    if kept is None:
        return '<span class="none">none</span>'
    if kept.size == 1:
        return escape(number(kept.values[0]))
    told = " ".join(number(value) for value in kept.values[:most])
    rest = f" … (norm {number(kept.norm)})" if kept.size > most else ""
    return f'<span class="shape">{kept.shape}</span> {escape(told + rest)}'


def _slopes(entry: Entry) -> str:
    told = []
    for t, slope in zip(entry.inputs, entry.slopes, strict=False):
        if slope is None:
            continue
        name = escape(f"∂{entry.name}/∂{t.name}")
        if slope.diagonal is not None:
            told.append(f"{name}: {' '.join(map(number, slope.diagonal[:16]))}{' …' * (len(slope.diagonal) > 16)}")
        elif slope.matrix is not None and slope.matrix.size <= 16:
            told.append(f"{name}: {' | '.join(' '.join(map(number, row)) for row in slope.matrix)}")
        else:
            told.append(f"{name}: {entry.value.size} × {t.value.size} derivatives")
    return "<br>".join(dict.fromkeys(told))


def _check(entry: Entry) -> str:
    if not entry.differences or entry.gradient is None:
        return '<span class="none">—</span>'
    pairs = [(entry.gradient.entry(i), difference) for i, difference in entry.differences.items()]
    wrong = sum(g is None or not agree(g, difference) for g, difference in pairs)
    told = " ".join(number(difference) for _, difference in pairs[:16]) + " …" * (len(pairs) > 16)
    mark = f'<span class="no">✗ {wrong} of {len(pairs)} differ</span>' if wrong else '<span class="yes">✓</span>'
    where = "" if len(pairs) == entry.gradient.size else f"at {entry.gradient.place(next(iter(entry.differences)))}: "
    return f"{mark} {escape(where + told)}"


def _numbers(entries: Sequence[Entry], unchecked: str) -> str:
    most = 16 if len(entries) <= MOST_CARDS else 4
    rows = [
        f'<tr{" class=bad" if entry.born_bad or entry.passes_bad else ""}><th scope="row">{escape(entry.path)}</th>'
        f"<td>{escape(entry.expression) if entry.op else 'leaf' if entry.is_leaf else 'constant'}</td>"
        f"<td>{_array(entry.value, most)}</td><td>{_slopes(entry)}</td><td>{_array(entry.gradient, most)}</td>"
        f"<td>{_check(entry)}</td></tr>"
        for entry in entries
    ]
    head = ("tensor", "computed as", "value", "local derivative", "gradient", "by a small change")
    note = (
        f"The last column is empty, because {escape(unchecked)}."
        if unchecked
        else "The last column needs no backward: each entry was made 0.000001 greater and smaller, in float64, and the "
        "column says by how much the loss moved, for each unit of the change. ✓: it agrees with the gradient."
    )
    matrices = any(slope is not None and slope.diagonal is None for entry in entries for slope in entry.slopes)
    if matrices:
        note += " Where an entry of the result depends on several entries, the local derivative has a row for each "
        note += "entry of the result."
    return f"<p>{note}</p>{_table(head, rows, 'All numbers')}"


def _order(entries: Sequence[Entry]) -> str:
    rows, differs = [], False
    for entry in entries:
        if entry.is_leaf and entry.gradient is not None and entry.hasty is not None:
            same = np.array_equal(entry.gradient.values, entry.hasty.values, equal_nan=True)
            same = same and np.array_equal(entry.gradient.norm, entry.hasty.norm, equal_nan=True)
            differs |= not same
            mark = '<span class="yes">✓ the same</span>' if same else '<span class="no">✗ wrong</span>'
            rows.append(
                f'<tr><th scope="row">{escape(entry.path)}</th><td>{_array(entry.gradient)}</td>'
                f"<td>{_array(entry.hasty)} {mark}</td></tr>"
            )
    waiting = [entry.name for entry in entries if entry.op is not None and len(entry.arrivals) > 1]
    if differs:
        note = f"And in this graph, where {', '.join(waiting[:6])}{' …' * (len(waiting) > 6)} must wait for "
        note += "several gradients:"
    elif waiting:
        note = "In this graph the wrong walk happens to give the same."
    else:
        note = "In this graph no result of an operation is used twice, so no order can be wrong:"
    head = ("leaf", "right: each waits", "wrong: each passes on its first gradient")
    return f"<p>{escape(note)}</p>{_table(head, rows, 'The wrong order')}"


# ---- data ----------------------------------------------------------------------------------------


def _json(entries: Sequence[Entry], cards: Sequence[Card], steps: Sequence[Step]) -> str:
    """Everything exactly, for the script of the page and for those of others; "<" can begin no tag.
    """
    number_of = {card: i for i, card in enumerate(cards)}
    content = {
        "nodes": [_node(entry) for entry in entries],
        "steps": [
            {"card": number_of[step.card], "nodes": [entry.index for entry in step.card.members],
             "headline": step.headline, "sentences": step.sentences}
            for step in steps
        ],
    }  # fmt: skip
    return json.dumps(content, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _node(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.path,
        "op": entry.op,
        "expression": entry.expression,
        "inputs": [t.index for t in entry.inputs],
        "shape": list(entry.value.shape),
        "dtype": str(entry.value.dtype),
        "value": _exact(entry.value),
        "gradient": _exact(entry.gradient),
        "grad": _exact(entry.grad),
        "arrivals": [
            {"from": a.source.index, "as_input": a.slot, "gradient": _exact(a.gradient)} for a in entry.arrivals
        ],
        "small_changes": {str(i): _number(x) for i, x in entry.differences.items()},
    }


def _exact(kept: Kept | None) -> list[Any] | None:
    """The entries that were kept, in C order, as numbers that give the same floats again."""
    return None if kept is None else [_number(x) for x in kept.values.tolist()]


def _number(x: Any) -> Any:
    return x if not isinstance(x, float) or np.isfinite(x) else str(x)  # "nan", "inf", "-inf"
