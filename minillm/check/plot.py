"""Pictures that teach, for those who have matplotlib: where attention looks, which embeddings are
near, what a layer does to a plane, and (in ``stop_plot``) where a text stops.

Each function returns a figure, which a notebook shows, and saves it where a ``path`` is given: its
ending says whether as .png, .svg or .pdf.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..nn import Embedding, Module
from ..nn.module import this_thread
from ..tensor import Tensor, no_grad
from .figure import COLOURS, GREY, INK, MARKERS, PALE, PLAIN, finished, new_figure, plain_axes, readable
from .stop_plot import stopping

__all__ = ["attention", "embeddings", "plane", "stopping"]

Path = str | os.PathLike[str] | None

MOST_PANELS = 400
MOST_LABELS = 40  # tokens at the side of a panel
MOST_LISTED = 16  # of which the nearest neighbours are written out


# ---- attention -----------------------------------------------------------------------------------


def attention(
    weights: Mapping[str, np.ndarray] | np.ndarray,
    tokens: Sequence[str] | None = None,
    queries: Sequence[str] | None = None,
    row: int = 0,
    path: Path = None,
) -> Any:
    """Show which token looks at which: a panel for each head, a line of panels for each layer.

    weights: what `record_attention` gave, or some of it, or an array (B, H, T, S), (H, T, S) or
    (T, S). tokens: S texts, those that are looked at. queries: T texts, those that look; the same
    unless given. row: which text of the batch. Raises ValueError for lengths that do not fit.
    """
    named = weights if isinstance(weights, Mapping) else {"": weights}
    layers = {name: _panels(p, row) for name, p in named.items()}
    if not layers:
        raise ValueError("plot.attention: no weights: call the model inside of record_attention")
    heads = max(len(p) for p in layers.values())
    if heads * len(layers) > MOST_PANELS:
        raise ValueError(f"plot.attention: {heads * len(layers)} panels are too many; choose some layers")
    for name, p in layers.items():
        for texts, n, what in ((queries, p.shape[1], "queries"), (tokens, p.shape[2], "tokens")):
            if texts is not None and len(texts) != n:
                where = f" of {name}: choose layers of one kind" if name else ""
                raise ValueError(f"plot.attention: {what} has {len(texts)} texts, for {n} positions{where}")
    figure, grid = _grid(list(layers.values()), heads)
    greatest = max(float(p.max()) for p in layers.values())
    for (i, head), axes in np.ndenumerate(grid):
        name, p = list(layers.items())[i]
        plain_axes(axes)
        if head >= len(p):
            axes.set_axis_off()
            continue
        image = axes.imshow(p[head], cmap="Blues", vmin=0, vmax=greatest, interpolation="nearest")
        if heads > 1 and i == 0:
            axes.set_title(f"head {head}", color=GREY, fontsize=9)
        if grid.size == 1 and p.size <= 100:
            _write_numbers(axes, p[head], greatest)
        _name(axes.yaxis, queries if queries is not None or p.shape[1] != p.shape[2] else tokens, head == 0)
        _name(axes.xaxis, tokens, i == len(grid) - 1)
        axes.tick_params(axis="x", rotation=90 if tokens is not None else 0)
        if head == 0:
            parts = readable(name, 60).rpartition(".")
            text = "\n".join(filter(None, parts[::2])) if len(name) > 20 else name  # in two lines
            axes.set_ylabel(text, color=INK, fontsize=8, **PLAIN)
    figure.supxlabel("… looks at this one", color=GREY, fontsize=9)
    figure.supylabel("this token …", color=GREY, fontsize=9)
    bar = figure.colorbar(image, ax=grid, shrink=0.6, aspect=30, pad=0.02)
    bar.set_label("weight", color=GREY, fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=GREY, labelsize=8, length=0)
    return finished(figure, path)


def _grid(layers: Sequence[np.ndarray], heads: int) -> tuple[Any, np.ndarray]:
    """A figure with room for each layer's (heads, T, S), large enough for names where heads are
    few.
    """
    T, S = (max(p.shape[axis] for p in layers) for axis in (1, 2))
    cell = min(0.32, 5 / max(T, S)) if heads <= 4 else 1.3 / max(T, S)
    width, height = max(1.2, cell * S), max(0.8, cell * T)
    figure = new_figure(2.6 + width * heads, 1.5 + (height + 0.3) * len(layers))
    return figure, figure.subplots(len(layers), heads, squeeze=False)


def _panels(p: Any, row: int) -> np.ndarray:
    """Weights of one text: (heads, T, S)."""
    p = _array(p)
    if p.ndim == 4:
        if not -len(p) <= row < len(p):
            raise ValueError(f"plot.attention: row must be one of {len(p)}; got {row}")
        p = p[row]
    p = p[None] if p.ndim == 2 else p
    if p.ndim != 3 or not p.size:
        raise ValueError(f"plot.attention: weights must be (B, H, T, S), (H, T, S) or (T, S); got {p.shape}")
    return p


def _name(axis: Any, texts: Sequence[str] | None, shown: bool) -> None:
    """Write texts, or where there are none some positions, along an axis."""
    if not shown or (texts is not None and len(texts) > MOST_LABELS):
        axis.set_ticks([])
    elif texts is not None:
        axis.set_ticks(range(len(texts)), [readable(text) for text in texts], **PLAIN)
    else:
        axis.get_major_locator().set_params(integer=True, nbins=5)


def _write_numbers(axes: Any, p: np.ndarray, greatest: float) -> None:
    for (t, s), value in np.ndenumerate(p):
        if value >= 0.005:
            colour = "white" if value > 0.6 * greatest else INK
            axes.text(s, t, f"{value:.2f}".removeprefix("0"), ha="center", va="center", color=colour, fontsize=7)


# ---- embeddings ----------------------------------------------------------------------------------


def embeddings(
    table: Embedding | Tensor | np.ndarray,
    names: Sequence[str] | None = None,
    show: Sequence[int] | None = None,
    nearest: int = 4,
    path: Path = None,
) -> Any:
    """Draw vectors as a map, those of ``show`` with their names, and list what is nearest to them.

    table: (V, C), or an `Embedding`. names: V texts. show: the rows to be named, the first 40
    unless given. The map shows the two directions in which the vectors differ most (PCA); nearness
    is the cosine of all C numbers. Raises ValueError for what does not fit.
    """
    vectors = _array(table.weight if isinstance(table, Embedding) else table).astype(np.float64)
    if vectors.ndim != 2 or len(vectors) < 3 or vectors.shape[1] < 2:
        raise ValueError(f"plot.embeddings: table must be (V, C) with V > 2 and C > 1; got {vectors.shape}")
    if names is not None and len(names) != len(vectors):
        raise ValueError(f"plot.embeddings: names has {len(names)} texts for {len(vectors)} vectors")
    chosen = list(range(min(40, len(vectors)))) if show is None else [int(i) for i in show]
    if wrong := [i for i in chosen if not 0 <= i < len(vectors)]:
        raise ValueError(f"plot.embeddings: show must hold rows below {len(vectors)}; got {wrong[0]}")
    texts = {i: str(i) for i in range(len(vectors))} if names is None else names
    places, shares = _map(vectors)
    figure = new_figure(10, 6)
    axes, beside = figure.subplots(1, 2, width_ratios=(5, 2))
    plain_axes(axes)
    axes.scatter(*places.T, s=6, color=PALE, zorder=1, rasterized=True)
    axes.scatter(*places[chosen].T, s=16, color=COLOURS[0], zorder=2)
    axes.set_xlabel(f"direction of the most variance, {shares[0]:.0%} of all", color=GREY, fontsize=9)
    axes.set_ylabel(f"direction of the second most variance, {shares[1]:.0%} of all", color=GREY, fontsize=9)
    axes.margins(0.08)
    axes.set_xticks([])
    axes.set_yticks([])
    figure.draw_without_rendering()
    _write_names(axes, [(places[i], readable(texts[i])) for i in chosen])
    beside.set_axis_off()
    beside.set_title("nearest (cosine)", loc="left", color=GREY, fontsize=9)
    listed = chosen[:MOST_LISTED]
    for line, (i, found) in enumerate(zip(listed, _neighbours(vectors, listed, nearest), strict=True)):
        told = ", ".join(f"{readable(texts[j])} {cosine:.2f}" for j, cosine in found)
        y = 1 - (line + 0.5) / MOST_LISTED
        beside.text(0, y, readable(texts[i]), va="bottom", color=INK, fontsize=9, fontweight="bold", **PLAIN)
        beside.text(0, y, told, va="top", color=GREY, fontsize=7, **PLAIN)
    return finished(figure, path)


def _map(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) -> where each lies along the two directions of the most variance (N, 2), and the share
    of each.
    """
    centred = vectors - vectors.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)  # of the covariance, the greatest last
    two = directions[:, :-3:-1]
    two = two * np.sign(two[np.abs(two).argmax(axis=0), [0, 1]])  # one of the two signs, always the same
    return centred @ two, values[:-3:-1] / max(values.sum(), 1e-300)


def _neighbours(vectors: np.ndarray, chosen: Sequence[int], count: int) -> list[list[tuple[int, float]]]:
    """For each of the chosen the rows that are nearest to it, and how near: the cosine of the
    angle.
    """
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    cosines = units[list(chosen)] @ units.T
    cosines[range(len(chosen)), list(chosen)] = -np.inf  # not itself
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(count, len(vectors) - 1)]
    return [[(int(j), float(row[j])) for j in best] for row, best in zip(cosines, order, strict=True)]


def _write_names(axes: Any, labels: Sequence[tuple[np.ndarray, str]]) -> None:
    """Write each name beside its point, on the first side where it covers no other; else leave it
    out.
    """
    taken: list[tuple[float, float, float, float]] = []
    points = [axes.transData.transform(place) for place, _ in labels]  # in dots of the paper
    dot = axes.figure.dpi / 72  # a point of the font
    for (place, text), (x, y) in zip(labels, points, strict=True):
        width, height = 5.2 * dot * len(text), 10 * dot
        for dx, dy, side in ((5, 0, "left"), (-5, 0, "right"), (0, 9, "center"), (0, -9, "center")):
            left = x + dx * dot - width * {"left": 0, "right": 1, "center": 0.5}[side]
            box = (left, y + dy * dot - height / 2, left + width, y + dy * dot + height / 2)
            others = [(px - 3, py - 3, px + 3, py + 3) for px, py in points if (px, py) != (x, y)]
            if not any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken + others):
                taken.append(box)
                axes.annotate(text, place, xytext=(dx, dy), textcoords="offset points", ha=side, va="center",
                              color=INK, fontsize=8, **PLAIN)  # fmt: skip
                break


# ---- a layer and the plane -----------------------------------------------------------------------


def plane(
    layer: Callable[[Tensor], Tensor],
    points: Any = None,
    classes: Any = None,
    path: Path = None,
) -> Any:
    """Show what a layer does to the plane: a grid, and points on it, before and after.

    layer: a Module or function, (N, 2) -> (N, C) with C > 1; of more than two numbers the two
    directions of the most variance are drawn. points: (N, 2). classes: (N,) integers, which give
    colour and form. The layer is used as after ``eval()``. Raises ValueError for shapes that do not
    fit.
    """
    before = np.zeros((0, 2)) if points is None else _array(points).astype(np.float64)
    if before.ndim != 2 or before.shape[1] != 2:
        raise ValueError(f"plot.plane: points must be (N, 2); got {before.shape}")
    kinds = np.zeros(len(before), int) if classes is None else np.unique(_array(classes), return_inverse=True)[1]
    if kinds.shape != (len(before),):
        raise ValueError(f"plot.plane: classes must be ({len(before)},), one for each point; got {kinds.shape}")
    reach = np.abs(before).max(initial=0) * 1.1 or 2.0
    along, across = np.linspace(-reach, reach, 121), np.linspace(-reach, reach, 13)
    upright = np.stack(np.broadcast_arrays(across[:, None], along), axis=-1)  # (13 lines, 121, 2)
    lines = np.concatenate([upright, upright[..., ::-1]])  # then the flat ones
    after = _through(layer, np.concatenate([lines.reshape(-1, 2), before]))
    note = ""
    if after.shape[1] > 2:
        note = f", two directions of {after.shape[1]}"
        after = _map(after)[0]
    name = type(layer).__name__ if isinstance(layer, Module) else getattr(layer, "__name__", "the layer")
    figure = new_figure(9, 4.6)
    for axes, where, title in zip(
        figure.subplots(1, 2),
        (np.concatenate([lines.reshape(-1, 2), before]), after),
        ("before", f"after {name}{note}"),
        strict=True,
    ):
        plain_axes(axes)
        for i, line in enumerate(where[: len(where) - len(before)].reshape(lines.shape)):
            axes.plot(*line.T, color=COLOURS[0 if i < len(across) else 4], linewidth=0.7, alpha=0.75, zorder=1)
        for kind in range(kinds.max(initial=-1) + 1):
            here = where[len(where) - len(before) :][kinds == kind]
            marker, colour = MARKERS[kind % len(MARKERS)], (INK, COLOURS[1], COLOURS[2], COLOURS[3])[kind % 4]
            axes.scatter(*here.T, s=18, marker=marker, color=colour, edgecolor="white", linewidth=0.4, zorder=2)
        axes.set_title(title, loc="left", color=INK, fontsize=10, **PLAIN)
        axes.set_aspect("equal", adjustable="datalim")
    return finished(figure, path)


def _through(layer: Callable[[Tensor], Tensor], x: np.ndarray) -> np.ndarray:
    """(N, 2) -> (N, C), without gradients, dropout or running averages."""
    seen = this_thread.evaluated
    modules = layer.modules() if isinstance(layer, Module) else ()
    this_thread.evaluated = seen | {id(module) for module in modules}
    try:
        with no_grad():
            y = _array(layer(Tensor(x.astype(np.float32)))).astype(np.float64)
    finally:
        this_thread.evaluated = seen
    if y.ndim != 2 or len(y) != len(x) or y.shape[1] < 2:
        raise ValueError(
            f"plot.plane: the layer must make (N, C) of (N, 2), with C > 1; got {y.shape} for {x.shape}. "
            "Of a model, give the first layers: nn.Sequential(*model.layers[:2])"
        )
    return y


def _array(x: Any) -> np.ndarray:
    return x.data if isinstance(x, Tensor) else np.asarray(x)
