"""What ``minillm quantize`` does: int8 weights, what they cost in perplexity, and where the error
is.

The rounding itself, and the model that holds the codes, are in ``models/fast/int8.py``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..check.figure import GREY, INK
from ..models import QuantizedModel, quantize
from ..models.fast.arrays import arrays_of
from .callbacks import not_ending_the_run
from .convert import save_opened
from .evaluate import Evaluation, evaluate
from .evaluation_data import evaluation_data, seen_at_once
from .plot import empty_figure
from .run import TRAINING, Run, load_model, load_run

__all__ = ["Report", "plot_errors", "quantize_folder", "weight_errors"]


@dataclass(frozen=True)
class Report:
    """What came of it."""

    path: Path
    bytes_before: int
    bytes_after: int
    errors: dict[str, float]  # name of a matrix -> relative error, see `weight_errors`
    before: Evaluation | None  # None where there was no text to measure on
    after: Evaluation | None

    def __str__(self) -> str:
        worst = max(self.errors, key=lambda name: self.errors[name])
        lines = [
            f"{self.path}: {self.bytes_after / 1e6:,.1f} MB, {self.bytes_after / self.bytes_before:.2f} times the "
            f"{self.bytes_before / 1e6:,.1f} MB of float32",
            f"error of the weights: {np.mean(list(self.errors.values())):.2%} of their size on average, "
            f"{self.errors[worst]:.2%} at most, in {worst}",
        ]
        if self.before is not None and self.after is not None:
            before, after = self.before, self.after
            lines.append(
                f"perplexity on {before.tokens:,} tokens: {before.perplexity:.4f} in float32, {after.perplexity:.4f} "
                f"in int8 ({after.perplexity / before.perplexity - 1:+.3%}); loss {before.loss:.5f}, {after.loss:.5f}"
            )
        return "\n".join(lines)


def quantize_folder(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    data: str | None = None,
    context: int | None = None,
    batch_size: int = 16,
    ignore_unknown: Collection[str] = (),
) -> Report:
    """Round the weights of a model folder, or of a GGUF file, to int8, and write them to another
    folder, whole or not at all.

    out: the new folder; None: the old one's name with ``-int8``. data, context: what perplexity is
    measured on, as in ``minillm eval``; where nothing is given and the folder does not say what it
    was trained on, nothing is measured. Where matplotlib is installed, quantization.png in the new
    folder shows the error of each matrix.

    Raises FileExistsError when the new folder is there, ValueError for a model that is in int8
    already, or that ``models.quantize`` refuses.
    """
    folder = Path(folder)
    name = folder.resolve().name.removesuffix(".gguf")
    out = folder.resolve().with_name(f"{name}-int8") if out is None else Path(out)
    if out.exists():
        raise FileExistsError(f"{out}: exists already; choose another name with --out")
    opened = load_run if data is not None else load_model
    model, tokenizer, _ = opened(folder, ignore_unknown)
    if isinstance(model, QuantizedModel):
        raise ValueError(f"{folder}: its weights are in int8 already")
    small = quantize(model)
    context = seen_at_once(model, context)
    before = after = None
    if data is not None or (tokenizer is not None and (folder / TRAINING).exists() and Run.open(folder).has_recipe):
        results = []
        for which in (model, small):
            batches, floor = evaluation_data(folder, data, tokenizer, context, batch_size)
            results.append(evaluate(which, batches, tokenizer=tokenizer, floor=floor))
        before, after = results
    sizes = [sum(array.nbytes for array in which.state_dict().values()) for which in (model, small)]
    report = Report(out, sizes[0], sizes[1], weight_errors(model, small), before, after)
    with files.atomic_folder(out) as into:
        if files.is_gguf(folder):
            save_opened(small, into, folder, tokenizer)
        else:
            small.save_pretrained(into, keep_from=folder)
        with not_ending_the_run("the picture of the errors"), contextlib.suppress(ImportError):  # no matplotlib
            plot_errors(report.errors, into / "quantization.png", title=files.shown(folder.resolve().name))
    return report


def weight_errors(model: Any, small: QuantizedModel) -> dict[str, float]:
    """|w - code scale| / |w| for each matrix that was rounded, by its name."""
    rounded, errors, by_columns = small.state_dict(), {}, _stored_by_columns(model)
    for name, w in model.state_dict().items():
        if f"{name}_scale" not in rounded:
            continue
        codes, scale = rounded[name], rounded[f"{name}_scale"]
        w = w.T if name in by_columns else w  # as GPT-2 stores it
        difference = size = 0.0
        for n in range(0, len(codes), 4096):
            rows = slice(n, n + 4096)
            difference += float(((w[rows] - codes[rows] * scale[rows, None]) ** 2).sum(dtype=np.float64))
            size += float((w[rows] ** 2).sum(dtype=np.float64))
        errors[name] = float(np.sqrt(difference / size)) if size else 0.0
    return errors


def _stored_by_columns(model: Any) -> set[str]:
    """The names of the matrices that a model stores as (inputs, outputs)."""
    decoder = arrays_of(model)
    assert decoder is not None  # it has been quantised
    matrices = [m for layer in decoder.layers for m in (*layer.qkv, layer.out, *layer.up, layer.down) if m.by_columns]
    arrays = {id(m.weight) for m in matrices}
    return {name for name, array in model.state_dict().items() if id(array) in arrays}


def plot_errors(errors: dict[str, float], path: str | os.PathLike[str], title: str = "") -> None:
    """Draw the relative error of each matrix, layer by layer. Raises ImportError without
    matplotlib.
    """
    kinds: dict[str, list[tuple[int, float]]] = {}
    for name, error in errors.items():
        where = re.fullmatch(r"[\w.]*?\.(\d+)\.([\w.]+)\.weight", name)
        layer, kind = (int(where[1]), where[2]) if where else (-1, name.removesuffix(".weight").split(".")[-1])
        kinds.setdefault(kind, []).append((layer, 100 * error))
    last = max(layer for points in kinds.values() for layer, _ in points)

    figure, axes = empty_figure(title, "error of the int8 weights, as a share of their size", "layer")
    axes.set_xticks(range(0, max(last, 0) + 1, 1 + max(last, 0) // 16))  # every layer, or every second ...
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g} %")
    inside = [kind for kind, points in kinds.items() if points[0][0] >= 0]
    for i, kind in enumerate(inside):
        at, values = zip(*sorted(kinds[kind]), strict=True)
        axes.plot(at, values, color=f"C{i % 10}", linewidth=1.5, marker="o", markersize=4, label=kind)
    outside = [kind for kind in kinds if kind not in inside]  # of the layers: the embedding, the head
    for kind, dashes in zip(outside, itertools.cycle(["--", ":"])):
        axes.axhline(kinds[kind][0][1], color=GREY, linewidth=1.2, linestyle=dashes, label=kind)
    axes.set_xlim(-0.2, max(last, 0) + 0.2)
    low, high = 100 * min(errors.values()), 100 * max(errors.values())
    axes.set_ylim(max(0.0, low - 0.3 * (high - low) - 0.02), high + 0.1 * (high - low) + 0.02)
    figure.legend(loc="outside right center", frameon=False, fontsize=9, labelcolor=INK)
    figure.savefig(path)
