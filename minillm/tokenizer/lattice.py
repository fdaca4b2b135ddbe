"""All ways to cut a word into pieces of a vocabulary, as a lattice, and the questions one asks of
it.

A *node* stands before, between and after the characters; a piece that spells the characters between
two nodes is an *edge*, with the piece's log-probability as score. A way through the lattice is a
segmentation; its score is the sum.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Edge(NamedTuple):
    """A piece at its place: `start` and `end` in characters of the word."""

    start: int
    end: int
    id: int
    score: float


class Lattice:
    """The lattice of one word: the edges that end at each node.

    pieces: what the vocabulary knows, piece -> (id, score); longest: the length of its longest
    piece. Where no single character is known, an edge of `unknown` (id, score) takes its place, so
    that there is always a way.
    """

    def __init__(
        self, word: str, pieces: Mapping[str, tuple[int, float]], longest: int, unknown: tuple[int, float]
    ) -> None:
        self.word = word
        self.ending: list[list[Edge]] = [[] for _ in range(len(word) + 1)]
        for start in range(len(word)):
            if word[start] not in pieces:
                self.ending[start + 1].append(Edge(start, start + 1, *unknown))
            for end in range(start + 1, min(start + longest, len(word)) + 1):
                found = pieces.get(word[start:end])
                if found is not None:
                    self.ending[end].append(Edge(start, end, *found))

    def best(self) -> list[Edge]:
        """The segmentation of highest score (Viterbi 1967); among equals, the one with the longer
        last piece.
        """
        score = [0.0] + [-math.inf] * len(self.word)
        back: list[Edge | None] = [None] * (len(self.word) + 1)
        for node, edges in enumerate(self.ending):
            for edge in sorted(edges):
                if score[edge.start] + edge.score > score[node]:
                    score[node], back[node] = score[edge.start] + edge.score, edge
        return self._path(lambda node: back[node])

    def n_best(self, n: int) -> list[tuple[float, list[Edge]]]:
        """The `n` segmentations of highest score, best first, each with its score."""
        # ways[node]: the best ways to get there, each (score, last edge, rank of the way to that
        # edge's start)
        ways: list[list[tuple[float, Edge | None, int]]] = [[(0.0, None, 0)]]
        for edges in self.ending[1:]:
            candidates = (
                (score + edge.score, edge, rank)
                for edge in sorted(edges)
                for rank, (score, _, _) in enumerate(ways[edge.start])
            )
            ways.append(heapq.nlargest(n, candidates, key=lambda way: way[0]))
        return [(way[0], self._ranked_path(ways, rank)) for rank, way in enumerate(ways[-1])]

    def _ranked_path(self, ways: list[list[tuple[float, Edge | None, int]]], rank: int) -> list[Edge]:
        path: list[Edge] = []
        node = len(self.word)
        while node:
            _, edge, rank = ways[node][rank]
            assert edge is not None
            path.append(edge)
            node = edge.start
        return path[::-1]

    def sample(self, rng: np.random.Generator, alpha: float = 1.0) -> list[Edge]:
        """A segmentation drawn with probability proportional to exp(alpha * score) (Kudo 2018)."""
        total = self._totals(alpha)

        def draw(node: int) -> Edge:
            edges = self.ending[node]
            weights = [math.exp(total[e.start] + alpha * e.score - total[node]) for e in edges]
            return edges[rng.choice(len(edges), p=np.array(weights) / sum(weights))]

        return self._path(draw)

    def log_likelihood(self) -> float:
        """The log-probability of the word: of all its segmentations together."""
        return self._totals(1.0)[-1]

    def _totals(self, alpha: float) -> list[float]:
        """For each node, the log of the sum of exp(alpha * score) over all ways from the beginning
        to it.
        """
        total = [0.0]
        for edges in self.ending[1:]:
            total.append(log_sum([total[edge.start] + alpha * edge.score for edge in edges]))
        return total

    def _path(self, last_edge: Callable[[int], Edge | None]) -> list[Edge]:
        """Walk back from the end of the word, by a function that chooses the edge into a node."""
        path: list[Edge] = []
        node = len(self.word)
        while node:
            edge = last_edge(node)
            assert edge is not None
            path.append(edge)
            node = edge.start
        return path[::-1]


def log_sum(values: list[float]) -> float:
    """log(sum(exp(values))) without overflow; -inf for an empty list."""
    most = max(values, default=-math.inf)
    return most if most == -math.inf else most + math.log(sum(math.exp(value - most) for value in values))
