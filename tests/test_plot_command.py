"""``minillm plot``: what stands on the terminal and in the picture is what the logs hold."""

import importlib.util
import json
import sys
import warnings

import numpy as np
import pytest

from minillm.cli import main
from minillm.cli.charts import chart
from minillm.cli.plot import terminal_text
from minillm.training.curves import PANELS, lines_of, notes_on, plot_runs, read_curves, round_numbers


def make_run(folder, scale=1.0, vocab_size=50, without=(), **changes):
    folder.mkdir(parents=True)
    (folder / "training.json").write_text('{"settings": {}, "about": ""}')
    if vocab_size:
        (folder / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    lines = []
    for step in [1, *range(10, 101, 10)]:
        record = {"step": step, "loss": scale * (1 + 3 / step), "val_loss": scale * 1.1 if step % 50 == 0 else None,
                  "floor": 0.9, "tokens_per_s": 1000.0 + step, "lr": 0.001 * step, "grad_norm": 2 / step}  # fmt: skip
        lines.append(json.dumps({k: v for k, v in {**record, **changes}.items() if k not in without}) + "\n")
    (folder / "log.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "roses")


def test_the_curves_are_those_of_the_log(run, tmp_path):
    old = make_run(tmp_path / "old", scale=2.0, vocab_size=None, without=("grad_norm",), floor=None)
    new, other = read_curves([run, old])
    steps = np.array([1, *range(10, 101, 10)])
    for what, expected in {"loss": 1 + 3 / steps, "lr": 0.001 * steps, "grad_norm": 2 / steps}.items():
        np.testing.assert_allclose(new.curves[what], [steps, expected])
    np.testing.assert_allclose(other.curves["val_loss"], [[50, 100], [2.2, 2.2]])
    assert (new.name, new.floor, new.last("val_loss")) == ("roses", 0.9, 1.1)
    assert new.guess == pytest.approx(np.log(50)) and other.guess is other.floor is None
    assert lines_of([new, other]) == [(new.guess, "a guess"), (0.9, "floor")]
    assert notes_on([new, other]) == ["no gradient norm in the log of old: older runs did not write it"]
    assert notes_on(read_curves([run])) == []


def test_names_tell_runs_apart(run, tmp_path):
    again = make_run(tmp_path / "b" / "roses", vocab_size=60)
    runs = read_curves([run, again])
    assert [one.name for one in runs] == [str(run), str(again)]
    assert notes_on(runs) == ["the vocabularies differ in size: losses per token cannot be compared"]


@pytest.mark.parametrize("columns", [40, 80])
def test_the_terminal_shows_one_run_in_dots(run, columns):
    text = terminal_text(read_curves([run]), columns)
    lines = text.split("\n")
    assert max(map(len, lines)) <= columns
    assert " ".join(lines[:2]).startswith("roses: training 1.030, validation 1.100, floor 0.900")
    assert [name for name in PANELS.values() if any(line.startswith(name) for line in lines)] == list(PANELS.values())
    assert text.count("◆") == 2 and "╌ floor 0.900\n" in text and "╌ a guess 3.912\n" in text and "step 100" in text
    rising = lines[lines.index("learning rate") + 1 :][:5]
    first = [min(i for i, c in enumerate(line) if "⠀" < c <= "⣿") for line in rising]
    assert first == sorted(first, reverse=True) and len(set(first)) == 5


def test_the_terminal_shows_several_runs_as_letters(run, tmp_path):
    runs = read_curves([run, make_run(tmp_path / "old", scale=2.0, without=("grad_norm",), vocab_size=None)])
    text = terminal_text(runs, 60, unicode=False)
    assert text.isascii() and max(map(len, text.split("\n"))) <= 60
    loss = text.split("loss, nats per token")[1].split("\n\n")[0]
    assert loss.count("b") > 20 and loss.count("a") > 20
    ends = [line[-1] for line in loss.split("\n") if len(line) == 60]
    assert [c for c in ends if c in "ab"] == ["b", "a"]  # the higher loss stands above
    gradient = text.split("gradient norm")[1].split("\n\n")[0]
    assert "b" not in gradient.split("\n", 1)[1]
    assert "*" in text.split("learning rate")[1]  # where both are


def test_a_chart_puts_each_value_in_its_row():
    x = np.array([0.0, 1, 2, 3])
    rows = chart([("a", x, x)], [], [], (0, 3), (2 + 1 + 4, 4)).split("\n")[:4]
    assert [row[2] for row in rows] == ["│"] * 4
    assert [row.find("a") for row in rows] == sorted((row.find("a") for row in rows), reverse=True) != [-1] * 4
    flat = chart([("", x, np.full(4, 5.0))], [], [], (5, 5), (20, 5))  # one value, and one step
    assert "⠤" in flat or "⠒" in flat or "⣀" in flat or "⠉" in flat
    assert "a" in chart([("a", x[:1], x[:1])], [], [], (0, 0), (20, 5))


def test_round_numbers():
    assert round_numbers(0.7, 12) == [1, 2, 5, 10]
    assert round_numbers(0.001, 999) == pytest.approx([10.0**e for e in range(-3, 4)])


def test_a_picture_has_all_curves_and_lines(run, tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    drawn = []
    save = figure.Figure.savefig
    monkeypatch.setattr(figure.Figure, "savefig", lambda f, path: (drawn.append(f), save(f, path)))
    old = make_run(tmp_path / "o$l$d", scale=2.0, without=("grad_norm",), vocab_size=None)
    runs = read_curves([run, old])
    plot_runs(runs, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    loss, lr, gradient, speed = drawn[0].axes
    assert {text.get_text() for text in loss.texts} == {"floor 0.900", "a guess 3.912"}
    curves = [line.get_ydata() for line in loss.lines if len(line.get_xdata()) > 2]
    np.testing.assert_allclose(curves, [one.curves["loss"][1] for one in runs])
    assert [len(axes.lines) for axes in (lr, gradient, speed)] == [2, 1, 2]
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "roses: training 1.030, validation 1.100, 0.200 above the floor",
        "o$l$d: training 2.060, validation 2.200, 1.300 above the floor",
    ]
    assert not any(text.get_parse_math() for text in legend.get_texts())


def test_a_name_that_the_font_lacks_is_drawn_without_a_warning(tmp_path):
    pytest.importorskip("matplotlib")
    runs = read_curves([make_run(tmp_path / "roses 🦙")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_runs(runs, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("COLUMNS", "50")
    assert main(["plot", str(run)]) == 0
    out, err = capsys.readouterr()
    assert "roses: training 1.030" in out and max(map(len, out.split("\n"))) <= 50
    assert err == f"[picture: {run / 'plot.png'}]\n" and (run / "plot.png").read_bytes()[:4] == b"\x89PNG"
    assert main(["plot", str(run), "--out", str(tmp_path / "x.svg")]) == 0
    assert b"<svg" in (tmp_path / "x.svg").read_bytes()[:1000]
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (run / "plot.png").unlink()
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().err == "[no picture: pip install matplotlib]\n" and not (run / "plot.png").exists()
    assert main(["plot", str(run), "--out", "x.png"]) == 2
    assert "--out: pictures are drawn by matplotlib" in capsys.readouterr().err


def test_mistakes(run, tmp_path, capsys):
    def complaint(*arguments):
        assert main(["plot", *map(str, arguments)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "no such run folder" in complaint(tmp_path / "nothing")
    assert "is not a run folder" in complaint(tmp_path)
    assert "--out must end in .png, .svg, .pdf; got 'x.txt'" in complaint(run, "--out", "x.txt")
    assert "RUN is missing" in complaint()
    assert "at most 26 runs" in complaint(*[run] * 27)
    assert "loss must be a number; got 'much'" in complaint(make_run(tmp_path / "a", loss="much"))
    assert "line 1: step must be a number; got None" in complaint(make_run(tmp_path / "b", without=("step",)))
    (run / "log.jsonl").write_text("")
    assert "nothing was logged yet" in complaint(run)
    drawn = "No such file" if importlib.util.find_spec("matplotlib") else "pip install matplotlib"
    assert drawn in complaint(make_run(tmp_path / "c"), "--out", tmp_path / "no" / "x.png")
