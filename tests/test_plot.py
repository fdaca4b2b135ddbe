"""The picture of the loss: what stands in it is what was measured."""

import sys

import numpy as np
import pytest

from minillm.training.plot import LossPlot, plot_loss
from minillm.training.quantize_run import plot_errors

RECORDS = [
    {"step": step, "loss": 1 + 3 / step, "val_loss": 1.1 if step % 50 == 0 else None, "floor": 0.9}
    for step in [1, *range(10, 101, 10)]
]


class FinishedTrainer:
    def __init__(self, folder, history):
        self.history = history
        self.run_folder = type("Folder", (), {"path": folder})()


def test_a_picture_is_drawn_with_its_labels(tmp_path):
    figure = pytest.importorskip("matplotlib.figure")
    texts = []
    for name, records in {
        "full.png": RECORDS,
        "no floor.png": [{**r, "floor": None} for r in RECORDS],
        "no validation.svg": [{**r, "val_loss": None} for r in RECORDS],
        "one line.png": RECORDS[:1],
    }.items():
        with pytest.MonkeyPatch.context() as patch:
            drawn = []
            save = figure.Figure.savefig
            patch.setattr(
                figure.Figure, "savefig", lambda f, path, save=save, drawn=drawn: (drawn.append(f), save(f, path))
            )
            plot_loss(records, tmp_path / name, title="roses")
        assert (tmp_path / name).stat().st_size > 4000
        texts.append({text.get_text() for text in drawn[0].axes[0].texts})
    assert texts[0] >= {"floor 0.900", "validation 1.100", "training", "0.200 above the floor"}
    assert texts[1] >= {"validation 1.100", "training"} and not any("floor" in text for text in texts[1])
    assert texts[2] >= {"floor 0.900", "training"} and not any("above" in text for text in texts[2])
    assert texts[3] >= {"floor 0.900", "training"}


def test_names_of_lines_do_not_overlap(tmp_path):
    figure = pytest.importorskip("matplotlib.figure")
    flat = [{"step": step, "loss": 2.0 + 1e-4 * (step % 3), "val_loss": 2.0, "floor": 2.0} for step in range(1, 90)]
    with pytest.MonkeyPatch.context() as patch:
        drawn = []
        patch.setattr(figure.Figure, "savefig", lambda f, path: drawn.append(f))
        plot_loss(flat, tmp_path / "x.png")
    axes = drawn[0].axes[0]
    low, high = axes.get_ylim()
    heights = sorted(t.xy[1] for t in axes.texts if t.get_text().split()[0] in ("training", "validation", "floor"))
    assert len(heights) == 3 and (np.diff(heights) > 0.054 * (high - low)).all()


def test_the_callback_draws_at_the_end_if_it_can(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    LossPlot().on_end(FinishedTrainer(tmp_path, RECORDS), None)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "loss.png").unlink()
    LossPlot().on_end(FinishedTrainer(tmp_path, RECORDS[:1]), None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    LossPlot().on_end(FinishedTrainer(tmp_path, RECORDS), None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("title", ["Ba$$in", "nan $_$", "$", "caf�", "a_b^{c", "\\frac"])
def test_a_title_is_taken_as_it_stands(tmp_path, title):
    matplotlib = pytest.importorskip("matplotlib")
    plot_loss(RECORDS, tmp_path / "x.png", title=title)
    assert (tmp_path / "x.png").stat().st_size > 4000
    plot_errors({"h.0.mlp.weight": 0.1, "wte.weight": 0.2}, tmp_path / "y.png", title=title)
    assert (tmp_path / "y.png").stat().st_size > 4000 and matplotlib


def test_nothing_to_draw(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="plot_loss: records must hold at least one line"):
        plot_loss([], tmp_path / "x.png")
