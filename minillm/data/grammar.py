"""A writer that knows the probability of every text it writes.

A language model is asked for the probability of the next word. To judge its answers we need a text
whose true probabilities are known; so we write one ourselves, by drawing lots:

    >>> def greet(pen, world):
    ...     pen.say("Hello, ", "Good morning, ")       # one of 2
    ...     name = pen.pick(["Mia", "Tom", "Ben"])     # one of 3
    ...     pen.say(f"! How are you, {name}?")         # no choice: once said, the name is known
    >>> grammar = Grammar(greet)
    >>> round(math.exp(grammar.logprob("Hello, Tom! How are you, Tom?")), 4)
    0.1667

Each choice among n equal options costs log n nats, and what is not chosen costs nothing. The sum
over a text is -log p(text), and its mean, the entropy, is a floor: no model can predict these texts
with less, on average. A model comes close to it only if it remembers: a model that does not look
back at the first name pays log 3 nats for the second one too.

Three questions are answered by running the same scenes with another hand on the pen:
`Grammar.sample` draws, `Grammar.logprob` reads a text and finds the choices it was made of,
`Grammar.documents` walks down every path. Reading also tells how surprising each part of a text is,
at the least: `Grammar.prefix_nats`.

Why p(choices) is p(text). The options of each choice are a prefix code: none is the beginning of
another. Suppose two different sequences of choices made the same text. Until they first differ,
they wrote the same words; there, the rest of the text begins with two different options, so one of
them is the beginning of the other: impossible. So a text can be made in one way only, and reading
finds it from left to right, without ever going back.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

World = Any
"""What later scenes must know of earlier ones: a NamedTuple, or None where nothing is remembered.
"""

Scene = Callable[["Pen", World], "Step | None"]
"""Writes a few sentences, then returns the next scene with its world, or None at the end of the
text.
"""

Step = tuple[Scene, World]

Hand = Callable[[Sequence[str], Sequence[float] | None, bool], int]
"""Decides: (options, their weights or None when all are equally likely, does it matter later?) ->
index.
"""

T = TypeVar("T")
Word = TypeVar("Word", bound=str)


class Document(NamedTuple):
    """A text, and log p(text) in nats under the grammar that wrote it."""

    text: str
    logprob: float


class Choice(NamedTuple):
    """A choice found in a text: where it stands, what was chosen, and its cost -log p in nats."""

    position: int
    text: str
    nats: float


class _Read(NamedTuple):
    position: int
    options: Sequence[str]
    weights: Sequence[float] | None
    chosen: int


class Pen:
    """Writes a text choice by choice; the hand that holds it decides.

    Of the options of one choice, none may be the beginning of another.
    """

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self.pieces: list[str] = []
        self.nats: list[float] = []

    def say(self, *variants: str) -> None:
        """Write one of several ways to say something, all equally likely. A single one costs
        nothing.
        """
        self._write(variants)

    def pick(self, words: Sequence[Word], but: Collection[str] = (), end: str = "") -> Word:
        """Write one of ``words`` that is not in ``but``, all equally likely, then ``end``; return
        the word.

        The words are alike: later sentences may repeat the one picked, but which sentences are
        possible, and how likely each is, must not depend on it. Where it does, use `choose`.
        """
        if but:
            words = [word for word in words if word not in but]
        return words[self._write([word + end for word in words] if end else words)]

    def choose(self, branches: Mapping[str, T], weights: Sequence[float] | None = None) -> T:
        """Write one of the keys of ``branches`` and return its value.

        weights: one positive number per branch, its share of the probability; None: all equally
        likely.
        """
        return tuple(branches.values())[self._write(tuple(branches), weights, matters=True)]

    def _write(self, options: Sequence[str], weights: Sequence[float] | None = None, matters: bool = False) -> int:
        chosen = self._hand(options, weights, matters)
        self.pieces.append(options[chosen])
        self.nats.append(_one_in(len(options)) if weights is None else _nats(options, weights, chosen))
        return chosen


class Grammar:
    """All texts that begin with a scene, each with its exact probability.

    first: the scene that opens a text; world: what this scene is told of the past. A scene in the
    middle of a larger grammar, with a world to begin in, is a grammar too.
    """

    def __init__(self, first: Scene, world: World = None) -> None:
        self._start: Step = (first, world)

    def sample(self, rng: np.random.Generator) -> Document:
        """Draw a text: each choice by lot."""
        pen = self._drawn(rng)
        return Document("".join(pen.pieces), -sum(pen.nats))

    def drawn(self, rng: np.random.Generator) -> list[Choice]:
        """The choices of a text that is drawn: what `choices` would find in it."""
        pen = self._drawn(rng)
        positions = itertools.accumulate(map(len, pen.pieces), initial=0)
        return [Choice(*found) for found in zip(positions, pen.pieces, pen.nats, strict=False)]

    def _drawn(self, rng: np.random.Generator) -> Pen:
        def draw(options: Sequence[str], weights: Sequence[float] | None, matters: bool) -> int:
            if weights is None:
                return int(rng.random() * len(options)) if len(options) > 1 else 0
            return bisect.bisect(list(itertools.accumulate(weights)), rng.random() * sum(weights))

        return self._write(draw)

    def logprob(self, text: str) -> float:
        """Return log p(text) in nats; raises ValueError, with the position, where it leaves the
        grammar.
        """
        return -sum(choice.nats for choice in self.choices(text))

    def choices(self, text: str) -> list[Choice]:
        """Find the choices that a text was made of, in order: their nats add up to -log p(text).

        Raises ValueError, with the position, where the text leaves the grammar.
        """
        return [
            Choice(c.position, c.options[c.chosen], _nats(c.options, c.weights, c.chosen)) for c in self._read(text)
        ]

    def prefix_nats(self, text: str, ends: Sequence[int]) -> list[float]:
        """-log p(a text begins with text[:end]), in nats, for each of the positions ``ends``.

        Within a choice, that is the share of the options that begin as this text does. So the
        difference between two ends is the least that the characters between them can cost.

        >>> def scene(pen, world):
        ...     pen.say("Tom", "Tim", "Ben")
        >>> [round(math.exp(-nats), 2) for nats in Grammar(scene).prefix_nats("Tim", [0, 1, 2, 3])]
        [1.0, 0.67, 0.33, 0.33]

        Raises ValueError, with the position, where the text leaves the grammar.
        """
        read = self._read(text)
        before = np.cumsum([0.0] + [_nats(c.options, c.weights, c.chosen) for c in read])
        starts = [c.position for c in read]
        found = []
        for end in ends:
            i = max(0, bisect.bisect_left(starts, end) - 1)  # the choice that ends here, or goes on beyond
            part = text[starts[i] : end]
            fitting = [j for j, option in enumerate(read[i].options) if option.startswith(part)]
            found.append(float(before[i]) + _nats(read[i].options, read[i].weights, *fitting))
        return found

    def _read(self, text: str) -> list[_Read]:
        """The choices that a text was made of, with the options that there were."""
        read: list[_Read] = []
        position = 0

        def find(options: Sequence[str], weights: Sequence[float] | None, matters: bool) -> int:
            nonlocal position
            fitting = [i for i, option in enumerate(options) if text.startswith(option, position)]
            if not fitting:
                raise _leaves_the_grammar(text, position, options)
            if len(fitting) > 1:
                raise _not_a_prefix_code(options[fitting[0]], options[fitting[1]])
            read.append(_Read(position, options, weights, fitting[0]))
            position += len(options[fitting[0]])
            return fitting[0]

        self._write(find)
        if position < len(text):
            raise _leaves_the_grammar(text, position, ())
        return read

    def documents(self) -> Iterator[Document]:
        """Yield every text there is (their number grows exponentially with the number of choices).
        """

        def continuations(step: Step | None) -> Iterator[Document]:
            if step is None:
                yield Document("", 0.0)
                return
            for path in _paths(*step, everything=True):
                text, logprob = "".join(path.pen.pieces), -sum(path.pen.nats)
                for rest in continuations(path.next):
                    yield Document(text + rest.text, logprob + rest.logprob)

        return continuations(self._start)

    def entropy(self) -> float:
        """Return the mean of -log p(text), exactly: the nats that a text costs on average.

        H(scene, world) = sum over the paths through the scene of p(path) (-log p(path) + H(next
        scene, world')). Worlds that differ in their words only have equal entropy, so H is computed
        once per shape of a world.
        """
        known: dict[Any, float] = {}

        def remaining(step: Step | None) -> float:
            if step is None:
                return 0.0
            key = (step[0], _shape(step[1]))
            if key not in known:
                known[key] = sum(
                    path.probability * (sum(path.pen.nats) + remaining(path.next))
                    for path in _paths(*step, everything=False)
                )
            return known[key]

        return remaining(self._start)

    def _write(self, hand: Hand) -> Pen:
        pen = Pen(hand)
        step: Step | None = self._start
        while step is not None:
            scene, world = step
            step = scene(pen, world)
        return pen


class _Path(NamedTuple):
    pen: Pen
    next: Step | None
    probability: float


def _paths(scene: Scene, world: World, everything: bool) -> Iterator[_Path]:
    """Run a scene once for each way through its choices.

    With ``everything`` false, only the choices that matter later are walked through; the others
    stay at their first option, which stands for all of them, and do not count in the path's
    probability.
    """
    walker = _Walker(everything)
    while True:
        walker.depth, walker.probability = 0, 1.0
        pen = Pen(walker)
        following = scene(pen, world)
        yield _Path(pen, following, walker.probability)
        if not walker.turn():
            return


class _Walker:
    """A hand that takes one way after the other, like an odometer: the last fork turns fastest."""

    def __init__(self, everything: bool) -> None:
        self.everything = everything
        self.way: list[int] = []  # the option to take at each fork ...
        self.sizes: list[int] = []  # ... and how many there are
        self.depth = 0  # forks passed so far on this way
        self.probability = 1.0  # of what was taken there

    def __call__(self, options: Sequence[str], weights: Sequence[float] | None, matters: bool) -> int:
        _check_prefix_code(options)
        if len(options) == 1 or not (matters or self.everything):
            return 0
        if self.depth == len(self.way):
            self.way.append(0)
            self.sizes.append(len(options))
        chosen = self.way[self.depth]
        self.depth += 1
        self.probability *= _share(options, weights, chosen)
        return chosen

    def turn(self) -> bool:
        """Go on to the next way; False when all were taken."""
        while self.way and self.way[-1] == self.sizes[-1] - 1:
            self.way.pop()
            self.sizes.pop()
        if self.way:
            self.way[-1] += 1
        return bool(self.way)


def _share(options: Sequence[str], weights: Sequence[float] | None, *chosen: int) -> float:
    """The probability of an option, or of several together."""
    return len(chosen) / len(options) if weights is None else sum(weights[i] for i in chosen) / sum(weights)


def _nats(options: Sequence[str], weights: Sequence[float] | None, *chosen: int) -> float:
    return -math.log(_share(options, weights, *chosen))


@functools.cache
def _one_in(n: int) -> float:
    """The nats of one option among ``n`` equal ones: the same few numbers, a million times."""
    return -math.log(1 / n)


def _shape(world: World) -> Any:
    """What is left of a world when its words have no meaning: which are equal, which differ.

    >>> _shape(("Mia", "Tom", "Tom", 3)) == _shape(("Zoe", "Ben", "Ben", 3))
    True
    >>> _shape(("Mia", "Tom", "Tom", 3)) == _shape(("Mia", "Tom", "Mia", 3))
    False
    """
    if world is None:
        return None
    seen: dict[str, int] = {}
    return tuple(("word", seen.setdefault(v, len(seen))) if v and isinstance(v, str) else v for v in world)


def _check_prefix_code(options: Sequence[str]) -> None:
    """Raise ValueError when an option is the beginning of another; sorted, two such options are
    neighbours.
    """
    ordered = sorted(options)
    for short, long in zip(ordered, ordered[1:], strict=False):
        if long.startswith(short):
            raise _not_a_prefix_code(short, long)


def _not_a_prefix_code(short: str, long: str) -> ValueError:
    return ValueError(
        f"Grammar: of the options of a choice none may be the beginning of another; got {short!r} and {long!r}"
    )


def _leaves_the_grammar(text: str, position: int, options: Sequence[str]) -> ValueError:
    expected = " or ".join(repr(option) for option in options[:3]) or "its end"
    more = f" or one of {len(options) - 3} more" if len(options) > 3 else ""
    found = repr(text[position : position + 30]) if position < len(text) else "its end"
    return ValueError(
        f"Grammar: the text leaves the grammar at character {position}: expected {expected}{more}; got {found}"
    )
