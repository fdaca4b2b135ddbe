"""Where the cards of a graph stand: in rows, each below all that it was computed from.

Rows by the longest path, the order within a row by the mean place of the neighbours (Sugiyama et
al. 1981), places that lie as near to the neighbours as cards may stand to each other. Long edges
are led through the rows between by corners that take up room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

GAP, ROW_GAP, CORNER = 16.0, 46.0, 14.0
SWEEPS = 12


@dataclass
class Layout:
    """centres: (x of the middle, y of the top) of each card. routes: of each edge the corners in
    the rows between, (x, top, bottom).
    """

    centres: list[tuple[float, float]]
    routes: list[list[tuple[float, float, float]]]
    width: float
    height: float


def lay_out(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """Place cards of ``sizes`` (width, height); an edge (u, v) goes down from u to v, and u < v or
    u is no edge's end.
    """
    rank = _ranks(len(sizes), edges)
    widths = [width for width, _ in sizes]
    above: list[list[int]] = [[] for _ in sizes]  # neighbours in the row above, corners too
    chains: list[list[int]] = []
    for u, v in edges:
        chain = [u]
        for between in range(rank[u] + 1, rank[v]):
            rank.append(between)
            widths.append(CORNER)
            above.append([chain[-1]])
            chain.append(len(rank) - 1)
        above[v].append(chain[-1])
        chains.append(chain[1:])
    below: list[list[int]] = [[] for _ in rank]
    for v, sources in enumerate(above):
        for u in sources:
            below[u].append(v)
    rows = _order(rank, above, below)
    x = _places(rows, widths, above, below)
    tops, bottoms, y = [], [], 0.0
    for row in rows:
        tops.append(y)
        bottoms.append(y + max((sizes[i][1] for i in row if i < len(sizes)), default=0.0))
        y = bottoms[-1] + ROW_GAP
    left = min((x[i] - widths[i] / 2 for i in range(len(x))), default=0.0)
    x = [at - left for at in x]
    return Layout(
        centres=[(x[i], tops[rank[i]]) for i in range(len(sizes))],
        routes=[[(x[i], tops[rank[i]], bottoms[rank[i]]) for i in chain] for chain in chains],
        width=max((x[i] + widths[i] / 2 for i in range(len(x))), default=0.0),
        height=max(0.0, y - ROW_GAP),
    )


def _ranks(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The row of each: below its sources; what has none stands just above the first that uses it.
    """
    sources: list[list[int]] = [[] for _ in range(count)]
    users: list[list[int]] = [[] for _ in range(count)]
    for u, v in edges:
        sources[v].append(u)
        users[u].append(v)
    rank = [0] * count
    for v in range(count):  # sources come first
        rank[v] = max((rank[u] + 1 for u in sources[v]), default=0)
    for u in range(count):
        if not sources[u] and users[u]:
            rank[u] = min(rank[v] for v in users[u]) - 1
    return rank


def _order(rank: Sequence[int], above: Sequence[Sequence[int]], below: Sequence[Sequence[int]]) -> list[list[int]]:
    """The cards of each row from left to right, so that few edges cross."""
    rows: list[list[int]] = [[] for _ in range(max(rank, default=-1) + 1)]
    seen = set[int]()
    ends = [i for i in range(len(rank)) if not below[i]]
    stack = ends[::-1]
    while stack:  # from the loss up, inputs in their order
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            rows[rank[i]].append(i)
            stack += above[i][::-1]
    best, fewest = [list(row) for row in rows], _crossings(rows, above)
    for sweep in range(SWEEPS):
        neighbours = above if sweep % 2 else below
        place = {i: n for row in rows for n, i in enumerate(row)}
        for row in rows if sweep % 2 else rows[::-1]:
            mean = {i: sum(place[j] for j in neighbours[i]) / len(neighbours[i]) if neighbours[i] else place[i]
                    for i in row}  # fmt: skip
            row.sort(key=mean.__getitem__)
            place.update({i: n for n, i in enumerate(row)})
        crossings = _crossings(rows, above)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(rows: Sequence[Sequence[int]], above: Sequence[Sequence[int]]) -> int:
    place = {i: n for row in rows for n, i in enumerate(row)}
    count = 0
    for row in rows:
        ends = [place[u] for v in row for u in sorted(above[v], key=place.__getitem__)]
        count += sum(a > b for i, a in enumerate(ends) for b in ends[i + 1 :])
    return count


def _places(
    rows: Sequence[Sequence[int]],
    widths: Sequence[float],
    above: Sequence[Sequence[int]],
    below: Sequence[Sequence[int]],
) -> list[float]:
    """x of each: near the mean of its neighbours, in the order of its row, with a gap between."""
    x = [0.0] * len(widths)
    for row in rows:
        at = 0.0
        for i in row:
            x[i] = at + widths[i] / 2
            at += widths[i] + GAP
    for sweep in range(2 * SWEEPS + 1):
        neighbours = below if sweep % 2 == 0 else above
        for row in rows[::-1] if sweep % 2 == 0 else rows:
            wanted = [sum(x[j] for j in neighbours[i]) / len(neighbours[i]) if neighbours[i] else x[i] for i in row]
            for i, at in zip(row, _apart(wanted, [widths[i] for i in row]), strict=True):
                x[i] = at
    return x


def _apart(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """The places nearest to those wanted, in this order, at which nothing overlaps: neighbours that
    push each other settle at the mean of what they want.
    """
    offsets, at = [], 0.0
    for i, width in enumerate(widths):
        at += (widths[i - 1] + width) / 2 + GAP if i else 0.0
        offsets.append(at)
    blocks: list[tuple[float, int]] = []  # (mean of wanted - offset, how many)
    for want, offset in zip(wanted, offsets, strict=True):
        blocks.append((want - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, n), (b, m) = blocks[-2:]
            blocks[-2:] = [((a * n + b * m) / (n + m), n + m)]
    means = [mean for mean, n in blocks for _ in range(n)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=True)]
