"""The same work on a machine that does something else as well.

*Busy loops*: two processes that never wait, on two cores. Whoever shares the cores fairly is at most about twice as
slow. *Many-threaded programs*: four that multiply matrices, each with a thread for every core, as a browser or a
compiler would. Threads that wait for each other in a loop, on cores that others use, lose far more than their share.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from . import generate, train
from .harness import Case, Contestant, Step, cores
from .random_llama import SMOLLM2_135M
from .random_llama import TINY as TINY_LLAMA

TITLE = "beside other programs that want the cores"

LOOP = "while True: pass"
SECONDS = 2.0  # the others run for so long at a time: much longer than a turn of the scheduler
PRODUCTS = "import numpy as np; a = np.ones((600, 600), np.float32)\nwhile True: a @ a"


def cases(quick: bool) -> list[Case]:
    """A training step and decoding: alone, beside busy loops, beside many-threaded programs."""
    gpt = "baby GPT, a training step", (train.BABY,), (train.TINY,), train.BABY.tokens
    llama = "135 M Llama, decoding", ("decode", SMOLLM2_135M, 0), ("decode", TINY_LLAMA, 0), generate.DECODED
    torch = {"minillm": train.build_minillm, "torch": train.build_torch}
    transformers = {"minillm": generate.build_float32, "transformers": generate.build_transformers}
    found = []
    for (work, arguments, tiny, tokens), makers in ((gpt, torch), (llama, transformers))[: 1 if quick else 2]:
        for beside, program, count in (
            ("alone", LOOP, 0),
            (f"beside {cores()} busy loops", LOOP, cores()),
            ("beside 4 many-threaded programs", PRODUCTS, 4),
        ):
            contestants = tuple(
                Contestant(name, functools.partial(build, make, program, count), (name,))
                for name, make in makers.items()
            )
            found.append(Case(f"{work}, {beside}", contestants, arguments, tiny, tokens=tokens, slow=True))
    return found


def build(make: Callable[..., Step], program: str, count: int, *arguments: object) -> Step:
    """A step beside ``count`` other programs, which run only meanwhile."""
    step = make(*arguments)
    others = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(count)]
    time.sleep(0.5 if count else 0)  # until they have imported what they need
    _send(others, signal.SIGSTOP)

    def beside() -> float:
        _send(others, signal.SIGCONT)
        try:
            begun, count = time.perf_counter(), 0
            while time.perf_counter() - begun < SECONDS:
                step()
                count += 1
            return (time.perf_counter() - begun) / count
        finally:
            _send(others, signal.SIGSTOP)

    step()
    beside.others = _Ended(others)  # type: ignore[attr-defined]
    return beside


class _Ended:
    """Ends the other programs when the step is no longer needed."""

    def __init__(self, others: list[subprocess.Popen]) -> None:
        self.others = others

    def __del__(self) -> None:
        for other in self.others:
            other.kill()


def _send(others: list[subprocess.Popen], what: signal.Signals) -> None:
    for other in others:
        os.kill(other.pid, what)
