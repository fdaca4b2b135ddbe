"""How long one waits at the beginning: for the import, and for the first training step of a baby GPT."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from .harness import Case, Contestant, Step

TITLE = "a fresh process: import, and import + first training step of the baby GPT"

IMPORT = """
import time
begin = time.perf_counter()
import {package}
print(time.perf_counter() - begin)
"""
FIRST_STEP = """
import time
begin = time.perf_counter()
from benchmarks import train
train.build_{library}(train.BABY)()
print(time.perf_counter() - begin)
"""


def cases(quick: bool) -> list[Case]:
    """Import, first step with and without compiled kernels."""
    packages = ("minillm", "torch", "numpy")
    imports = tuple(Contestant(name, build, (name,)) for name, build in zip(packages, IMPORTS, strict=True))
    torch = Contestant("torch", build_torch_first_step, ("torch",))
    cached = Contestant("minillm", build_first_step, ("minillm",))
    compiles = Contestant("minillm", build_first_step_ever, ("minillm",))
    return [
        Case("import", imports[:2], slow=True),
        Case("import, beside NumPy alone", imports[::2], slow=True),
        Case("first step, kernels in the cache", (cached, torch), slow=True),
        Case("first step ever, kernels compile", (compiles, torch), slow=True),
    ]


def build_minillm_import() -> Step:
    return lambda: _seconds(IMPORT.format(package="minillm"))


def build_torch_import() -> Step:
    return lambda: _seconds(IMPORT.format(package="torch"))


def build_numpy_import() -> Step:
    return lambda: _seconds(IMPORT.format(package="numpy"))


IMPORTS = (build_minillm_import, build_torch_import, build_numpy_import)


def build_first_step() -> Step:
    _seconds(FIRST_STEP.format(library="minillm"))  # where nothing has run yet, this fills the cache
    return lambda: _seconds(FIRST_STEP.format(library="minillm"))


def build_torch_first_step() -> Step:
    return lambda: _seconds(FIRST_STEP.format(library="torch"))


def build_first_step_ever() -> Step:
    def step() -> float:
        with tempfile.TemporaryDirectory() as empty:
            return _seconds(FIRST_STEP.format(library="minillm"), NUMBA_CACHE_DIR=empty)

    return step


def _seconds(program: str, **environment: str) -> float:
    """Run a program in a new interpreter, and return the number that it prints last."""
    environment = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return float(printed.split()[-1])
