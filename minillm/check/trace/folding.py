"""The cards that a page shows: one for each tensor, or, of a large graph, for each module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .record import Entry

MOST_CARDS = 100


@dataclass(eq=False, repr=False)
class Card:
    """One tensor, or those of a module, in the order in which they were made."""

    title: str
    members: list[Entry]
    inputs: list[Card] = field(default_factory=list)  # once for each use

    @property
    def is_folded(self) -> bool:
        """Whether it stands for several tensors."""
        return len(self.members) > 1

    @property
    def operations(self) -> list[Entry]:
        """Its members that an operation made."""
        return [entry for entry in self.members if entry.op is not None]


def cards_of(entries: Sequence[Entry]) -> list[Card]:
    """Entries as cards, each after those that it needs; above a hundred, folded.

    An operation belongs to the module whose parameter it uses; one without a parameter to the
    innermost module that holds those before and after it. A card is a run of operations that follow
    each other: so none needs a later one. Of all depths of the modules the deepest is taken that
    gives a hundred cards at most; without modules, runs of equal length.
    """
    made = [entry for entry in entries if entry.op is not None]
    if len(entries) <= MOST_CARDS:
        return _cards(entries, [(entry.name, [entry]) for entry in made])
    paths = _module_paths(made)
    for depth in range(max(len(path) for path in paths), 0, -1):
        cards = _cards(entries, _runs(made, [".".join(path[:depth]) if path[depth - 1 :] or _own(entry) else ""
                                             for path, entry in zip(paths, made, strict=True)]))  # fmt: skip
        if len(cards) <= MOST_CARDS and len(cards) > 2:
            return cards
    for count in (60, 30, 15, 1):
        length = -(-len(made) // count)
        runs = [made[i : i + length] for i in range(0, len(made), length)]
        cards = _cards(entries, [(f"{run[0].name} … {run[-1].name}", run) for run in runs])
        if len(cards) <= MOST_CARDS:
            break
    return cards


def _own(entry: Entry) -> list[str]:
    """The path of the module whose parameter an operation uses."""
    paths = (t.path.split(".")[:-1] for t in entry.inputs if t.is_leaf)
    return next((path for path in paths if path), [])


def _module_paths(made: Sequence[Entry]) -> list[list[str]]:
    after: list[list[str]] = []
    following: list[str] = []
    for entry in reversed(made):
        following = _own(entry) or following
        after.append(following)
    paths, before = [], list[str]()
    for entry, following in zip(made, reversed(after), strict=True):
        before = _own(entry) or before
        n = next((i for i, (a, b) in enumerate(zip(before, following)) if a != b),  # noqa: B905 - as far as both go
                 min(len(before), len(following)))  # fmt: skip
        paths.append(before[:n])
    return paths


def _runs(made: Sequence[Entry], keys: Sequence[str]) -> list[tuple[str, list[Entry]]]:
    """Neighbours with one key together; those without a key each by itself."""
    runs: list[tuple[str, list[Entry]]] = []
    seen: dict[str, int] = {}
    last = ""
    for entry, key in zip(made, keys, strict=True):
        if key and key == last:
            runs[-1][1].append(entry)
        else:
            seen[key] = seen.get(key, 0) + 1
            runs.append((f"{key} ({seen[key]})" if seen[key] > 1 else key, [entry]) if key else (entry.name, [entry]))
        last = key
    return runs


def _cards(entries: Sequence[Entry], runs: Sequence[tuple[str, list[Entry]]]) -> list[Card]:
    """Cards of runs of operations, and of what was given: inside the only run that uses it, unless
    that is a single operation.
    """
    made = [Card(title, list(run)) for title, run in runs]
    card_of = {entry: card for card in made for entry in card.members}
    users: dict[Entry, list[Card]] = {}
    for card in made:
        for entry in card.members:
            for t in entry.inputs:
                users.setdefault(t, []).append(card)
    given = []
    for entry in entries:
        if entry.op is None:
            only = users.get(entry, [])
            if only and only[0].is_folded and all(card is only[0] for card in only):
                only[0].members.insert(0, entry)
                card_of[entry] = only[0]
            else:
                given.append(Card(entry.name, [entry]))
                card_of[entry] = given[-1]
    for card in made:
        sources = [card_of[t] for entry in card.members for t in entry.inputs if card_of[t] is not card]
        card.inputs = list(dict.fromkeys(sources)) if card.is_folded else sources
    return given + made
