"""Pictures that teach: what stands in them is what was given, and what cannot be drawn is said."""

import sys

import numpy as np
import pytest

from minillm import Tensor, nn, plot
from minillm import functional as F
from minillm.nn.module import this_thread

rng = np.random.default_rng(0)
WEIGHTS = {f"layers.{i}": rng.dirichlet(np.ones(3), (2, 2, 3)) for i in range(2)}  # B 2, H 2, T 3, S 3
TOKENS = [" a", "$b$", "\n\ue000"]


@pytest.fixture(autouse=True)
def matplotlib():
    return pytest.importorskip("matplotlib")


def labels(axis):
    return [tick.get_text() for tick in axis.get_ticklabels()]


def test_attention_has_a_panel_for_each_head_of_each_layer(tmp_path):
    figure = plot.attention(WEIGHTS, TOKENS, row=1, path=tmp_path / "a.png")
    panels = [axes for axes in figure.axes if axes.images and axes.get_label() != "<colorbar>"]
    assert len(panels) == 4 and (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    for axes, (layer, head) in zip(panels, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), WEIGHTS[f"layers.{layer}"][1, head])
    shown = ["␣a", "$b$", "\\nU+E000"]
    assert labels(panels[0].yaxis) == labels(panels[2].xaxis) == labels(panels[3].xaxis) == shown
    assert labels(panels[0].xaxis) == labels(panels[1].yaxis) == []
    assert [axes.get_title() for axes in panels] == ["head 0", "head 1", "", ""]
    assert [axes.get_ylabel() for axes in panels] == ["layers.0", "", "layers.1", ""]


def test_one_head_is_written_out_and_queries_have_names_of_their_own(tmp_path):
    p = np.array([[0.25, 0.75, 0.0], [0.0, 0.004, 0.996]])
    figure = plot.attention(p, list("xyz"), ["q", "r"], path=tmp_path / "a.svg")
    axes = figure.axes[0]
    numbers = [(text.get_text(), text.get_position()) for text in axes.texts]
    assert numbers == [(".25", (0, 0)), (".75", (1, 0)), ("1.00", (2, 1))]
    assert labels(axes.xaxis) == list("xyz") and labels(axes.yaxis) == ["q", "r"]
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()[:1000]


def test_embeddings_are_mapped_along_their_greatest_variance():
    directions = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    flat = rng.standard_normal((30, 2)) * [3, 1]
    flat -= flat.mean(axis=0)
    flat = flat @ np.linalg.svd(flat)[2].T  # its own axes
    table = nn.Embedding(30, 5)
    table.weight.data = (flat @ directions[:2] + 7).astype(np.float32)
    figure = plot.embeddings(table, [f"n{i}" for i in range(30)], show=[4, 2], nearest=2)
    places = np.asarray(figure.axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(np.abs(places), np.abs(flat), atol=1e-4)
    np.testing.assert_array_equal(figure.axes[0].collections[1].get_offsets(), places[[4, 2]])
    assert {t.get_text() for t in figure.axes[0].texts} <= {"n4", "n2"}
    share = flat[:, 0] @ flat[:, 0] / (flat**2).sum()
    assert figure.axes[0].get_xlabel() == f"direction of the most variance, {share:.0%} of all"
    v = table.weight.data.astype(float)
    cosines = [(float(v[4] @ w / np.linalg.norm(v[4]) / np.linalg.norm(w)), i) for i, w in enumerate(v) if i != 4]
    nearest = ", ".join(f"n{i} {cosine:.2f}" for cosine, i in sorted(cosines, reverse=True)[:2])
    assert [t.get_text() for t in figure.axes[1].texts][:2] == ["n4", nearest]


def test_names_on_a_map_do_not_cover_each_other():
    figure = plot.embeddings(np.repeat(rng.standard_normal((6, 3)), 5, axis=0) + 1e-3 * rng.standard_normal((30, 3)))
    axes = figure.axes[0]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent().extents for text in axes.texts]
    assert 6 <= len(boxes) < 30
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])


def test_a_layer_moves_the_grid_and_the_points():
    layer, points = nn.Linear(2, 2, rng=0), rng.standard_normal((9, 2)).astype(np.float32)
    classes = np.array(list("abcabcabc"))
    figure = plot.plane(layer, points, np.unique(classes, return_inverse=True)[1])
    before, after = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["before", "after Linear"]
    for axes, where in ((before, points), (after, layer(Tensor(points)).data)):
        for kind, dots in enumerate(axes.collections):
            np.testing.assert_allclose(dots.get_offsets(), where[kind::3], rtol=1e-5)
    assert len(before.lines) == len(after.lines) == 26
    for line, moved in zip(before.lines, after.lines, strict=True):
        xy = np.stack(line.get_data(), axis=1).astype(np.float32)
        np.testing.assert_allclose(np.stack(moved.get_data(), axis=1), layer(Tensor(xy)).data, atol=1e-5)


def test_a_layer_is_used_as_after_eval_and_wide_results_are_mapped():
    norm = nn.BatchNorm1d(2)
    noisy = nn.Sequential(norm, nn.Dropout(0.5, rng=0), nn.Linear(2, 8, rng=0)).train()
    before = norm.running_mean.data.copy()
    first, second = (plot.plane(noisy).axes[1].lines[3].get_data() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(norm.running_mean.data, before)
    assert noisy.training and not this_thread.evaluated
    assert plot.plane(F.relu).axes[1].get_title(loc="left") == "after relu"
    assert plot.plane(noisy).axes[1].get_title(loc="left") == "after Sequential, two directions of 8"


def test_a_notebook_shows_it():
    assert plot.attention(np.eye(2))._repr_png_()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: plot.attention({}), "no weights: call the model inside of record_attention"),
        (lambda: plot.attention(WEIGHTS, TOKENS[:2]), "tokens has 2 texts, for 3 positions of layers.0"),
        (lambda: plot.attention(WEIGHTS, queries=["x"]), "queries has 1 texts, for 3 positions"),
        (lambda: plot.attention(WEIGHTS, row=2), "row must be one of 2; got 2"),
        (lambda: plot.attention(np.ones(3)), r"weights must be \(B, H, T, S\), .*; got \(3,\)"),
        (lambda: plot.attention(np.ones((401, 1, 1))), "401 panels are too many"),
        (lambda: plot.embeddings(np.ones(3)), r"table must be \(V, C\)"),
        (lambda: plot.embeddings(np.ones((3, 2)), ["x"]), "names has 1 texts for 3 vectors"),
        (lambda: plot.embeddings(np.ones((3, 2)), show=[3]), "show must hold rows below 3; got 3"),
        (lambda: plot.plane(F.relu, np.ones(3)), r"points must be \(N, 2\); got \(3,\)"),
        (lambda: plot.plane(F.relu, np.ones((3, 2)), [1]), r"classes must be \(3,\), one for each point; got \(1,\)"),
        (lambda: plot.plane(nn.Linear(2, 1)), r"must make \(N, C\) of \(N, 2\), with C > 1; got \(3146, 1\)"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_without_matplotlib_there_is_one_sentence(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="drawn by matplotlib, which is not here: pip install matplotlib"):
        plot.attention(np.eye(2))
