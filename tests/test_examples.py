"""The example scripts run, and show what they claim."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parents[1]
QUICK = {"plain_loop.py": ["--steps", "12"]}


def printed(name: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(HOME)}
    done = subprocess.run(
        [sys.executable, str(HOME / "examples" / name), *QUICK.get(name, [])],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_neuron():
    found = re.search(r"found y = ([\d.]+) x", printed("one_neuron.py"))
    assert found and abs(float(found[1]) - 3) < 0.05


def test_separation():
    shares = [int(share) for share in re.findall(r"(\d+)% on the right side", printed("separation.py"))]
    assert shares[0] < 75 and shares[1] == 100


def test_plain_loop():
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", printed("plain_loop.py"))]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize("path", sorted((HOME / "examples").glob("*.py")), ids=lambda path: path.name)
def test_every_example_says_how_to_run_it(path):
    assert f"python examples/{path.name}" in path.read_text()
