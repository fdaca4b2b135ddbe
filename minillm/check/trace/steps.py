"""A sentence for every step of the walk: what arrives, what is added, what each input gets and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .folding import Card
from .record import Entry, Kept, Recording, Slope
from .rules import filled, rule_of

MOST_TERMS = 3


@dataclass
class Step:
    """One step: the card whose turn it is, a headline, and sentences."""

    card: Card
    headline: str
    sentences: list[str]


def number(x: float) -> str:
    """A number in four digits."""
    x = float(x)
    return "NaN" if np.isnan(x) else ("∞" if x > 0 else "-∞") if np.isinf(x) else f"{x:.4g}"


def factor(x: float) -> str:
    """A number after a times sign."""
    return f"({number(x)})" if x < 0 else number(x)


def at(kept: Kept, i: int) -> str:
    """The place of an entry as one would write it: [0, 2]."""
    return f"[{', '.join(map(str, kept.place(i)))}]"


def steps_of(recording: Recording, cards: Sequence[Card]) -> list[Step]:
    """The walk, card by card, each in the place of the first of its tensors that it reached."""
    card_of = {entry: card for card in cards for entry in card.members}
    ordered = dict.fromkeys(card_of[entry] for entry in recording.walk)
    return [
        _folded_step(card)
        if card.is_folded
        else _leaf_step(card, card.members[0])
        if card.members[0].is_leaf
        else _operation_step(card, card.members[0], card.members[0] is recording.loss)
        for card in ordered
    ]


def _operation_step(card: Card, entry: Entry, is_loss: bool) -> Step:
    sentences = []
    if is_loss:
        sentences.append(f"The walk begins at the end: {entry.name} moves exactly as {entry.name} moves, so its "
                         "gradient is 1.")  # fmt: skip
    elif entry.gradient is not None:
        sentences.append(_arrived(entry, entry.gradient))
    told = [
        _passed(entry, slot, t, g)
        for slot, (t, g) in enumerate(zip(entry.inputs, entry.passed, strict=True))
        if g is not None
    ]
    sentences += dict.fromkeys(told)  # of a + a both say the same
    twice = {t.name for i, t in enumerate(entry.inputs) if t.needs_gradient and t in entry.inputs[:i]}
    sentences += [f"{name} stands here twice, so it gets one gradient for each." for name in twice]
    sentences += _bad(entry)
    verb = rule_of(entry).verb
    return Step(card, f"{verb[:1].upper()}{verb[1:]}: {entry.name} = {entry.expression}", sentences)


def _arrived(entry: Entry, gradient: Kept) -> str:
    """Where the gradient of a tensor came from, and that several are added."""
    n = len(entry.arrivals)
    if n < 2:
        return f"The gradient of {entry.name} is complete: {_shown(gradient)}."
    if gradient.size == 1:
        return f"{n} gradients have reached {entry.name}, and they add: {_sum(entry, gradient, 0)}."
    whole = all(a.gradient.entry(gradient.peak) is not None for a in entry.arrivals)
    example = f" At {at(gradient, gradient.peak)}: {_sum(entry, gradient, gradient.peak)}." if whole else ""
    sources = ", ".join(dict.fromkeys(a.source.name for a in entry.arrivals))
    return f"{n} gradients have reached {entry.name} (from {sources}), and they add.{example}"


def _shown(kept: Kept) -> str:
    """A short array in full, a longer one by its shape."""
    if kept.size == 1:
        return number(kept.values[0])
    return f"[{', '.join(map(number, kept.values))}]" if kept.size <= 8 else f"an array of shape {kept.shape}"


def _sum(entry: Entry, gradient: Kept, i: int) -> str:
    parts = [a.gradient.entry(i) or 0.0 for a in entry.arrivals]
    terms = [number(parts[0]), *(factor(part) for part in parts[1:])]
    if len(terms) > 2 * MOST_TERMS:
        terms = [*terms[: 2 * MOST_TERMS], "…"]
    return f"{' + '.join(terms)} = {number(gradient.entry(i) or 0.0)}"


def _passed(entry: Entry, slot: int, t: Entry, g: Kept) -> str:
    """What one input gets, and why."""
    rule, dy = rule_of(entry), entry.gradient
    slope = entry.slopes[slot] if entry.slopes else None
    derivative = f"∂{entry.name}/∂{t.name}"
    form = filled(rule.slopes[slot], entry) if slot < len(rule.slopes) else ""
    if dy is not None and slope is not None and entry.value.size == t.value.size == 1:
        value = number(slope.column[0])
        equal = f"{form} = {value}" if form and form != value else value
        return (
            f"{derivative} = {equal}, so {t.name} gets {value} × {factor(dy.values[0])} = {number(g.values[0])}."
        )
    if form and entry.value.shape == t.value.shape:
        text = f"{derivative} = {form}, entry by entry: {t.name} gets d{entry.name} times that."
    elif form:
        uses = entry.value.size // max(1, t.value.size)
        text = (
            f"{derivative} = {form}. Each entry of {t.name} was used {uses:,} times, and its {uses:,} gradients add."
        )
    elif rule.gets:
        text = f"{t.name} gets {filled(rule.gets[min(slot, len(rule.gets) - 1)], entry)}."
    else:
        text = f"{t.name} gets what the backward of {entry.op} makes of d{entry.name}."
    return text + _example(dy, slope, g)


def _example(dy: Kept | None, slope: Slope | None, g: Kept) -> str:
    """The chain rule for one entry, in numbers: the sum of dy_i × dy_i/dx_j."""
    if dy is None or slope is None or not g.size:
        return ""
    used = [i for i in range(len(slope.column)) if slope.column[i] != 0]
    if not used:
        return ""
    terms = [f"{number(dy.values[i])} × {factor(slope.column[i])}" for i in used[:MOST_TERMS]]
    if len(used) > MOST_TERMS:
        terms.append(f"… ({len(used)} terms)")
    where = f"At {at(g, slope.j)}" if g.size > 1 else "In numbers"
    return f" {where}: {' + '.join(terms)} = {number(g.at_peak)}."


def _bad(entry: Entry) -> Iterable[str]:
    """Where a NaN or an infinity appeared."""
    if entry.born_bad and entry.value.bad is not None:
        where = f" at {at(entry.value, entry.value.bad)}" if entry.value.size > 1 else ""
        yield f"Here, going forward, the first {_what(entry.value)} appeared{where}, out of finite numbers."
    if entry.passes_bad:
        kinds = [_what(g) for g in entry.passed if g is not None and g.bad is not None]
        yield f"Here, going back, the first {kinds[0]} appeared, out of a finite gradient."


def _what(kept: Kept) -> str:
    value = kept.entry(kept.bad or 0)
    return "NaN or infinity" if value is None or np.isfinite(value) else "NaN" if np.isnan(value) else "infinity"


def _leaf_step(card: Card, entry: Entry) -> Step:
    gradient = entry.gradient
    sentences = []
    if gradient is not None:
        sentences.append(_arrived(entry, gradient))
        where = f"This is {entry.name}.grad: "
        example = number(gradient.values[0]) if gradient.size == 1 else ""
        if entry.before is not None:
            sentences.append(f"It is added to what {entry.name}.grad held before; zero_grad() would have cleared it.")
        elif example:
            g = float(gradient.values[0])
            down = "down" if g > 0 else "up"
            more = (
                f"a little more of {entry.name} moves the loss {example} times as much; to lower the loss, move "
                f"{entry.name} {down}."
            )
            sentences.append(where + (more if np.isfinite(g) and g else "the loss does not move with it."
                                      if g == 0 else f"{example}, and no step can be taken with it."))  # fmt: skip
        else:
            sentences.append(
                where + f"for every entry of {entry.name}, how the loss moves with it. A step of an optimizer goes "
                "the other way."
            )
    return Step(card, f"Arrived at a leaf: {entry.path}", sentences)


def _folded_step(card: Card) -> Step:
    inside = set(card.members)
    came = [entry for entry in card.operations if any(a.source not in inside for a in entry.arrivals)]
    leaves = [entry for entry in card.members if entry.is_leaf]
    sentences = [
        f"{entry.name}: a gradient of shape {entry.gradient.shape}, norm {number(entry.gradient.norm)}, arrives."
        for entry in came[:MOST_TERMS]
        if entry.gradient is not None
    ]
    out = {
        t.name: g.norm
        for entry in card.operations
        for t, g in zip(entry.inputs, entry.passed, strict=False)
        if g is not None and t not in inside
    }
    if out:
        told = ", ".join(f"{name} (norm {number(norm)})" for name, norm in list(out.items())[:MOST_TERMS])
        sentences.append(f"{len(card.operations)} operations pass it on to {told}.")
    if leaves:
        told = ", ".join(f"{t.name} {number(t.gradient.norm)}" for t in leaves[:4] if t.gradient is not None)
        rest = f" and {len(leaves) - 4} more" if len(leaves) > 4 else ""
        sentences.append(f"On the way its parameters get their gradients, of norm: {told}{rest}.")
    for entry in card.members:
        sentences += [f"{entry.name} = {entry.expression}: {text}" for text in _bad(entry)]
    return Step(card, f"{card.title}: {len(card.operations)} operations", sentences)
