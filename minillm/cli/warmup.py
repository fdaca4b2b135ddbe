"""``minillm warmup``: compile all kernels now, so that no later command has to."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from .terminal import say
from .values import not_one_of

DECODERS = ("llama", "gpt2", "rnn")
PARTS = ("tokenizers", *DECODERS, "t5", "int8")


def add(commands: Any) -> None:
    """Teach the command line this command."""
    p = commands.add_parser(
        "warmup",
        help="compile the kernels for this machine now, once",
        description="Compile what the other commands need, and say what and how long. Machine code is kept for the "
        "next time; without this command each kernel compiles when it is first used.",
    )
    p.add_argument(
        "part", nargs="*", metavar="PART", help=f"what to compile: {', '.join(PARTS)}; default all"
    )
    p.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Do it; returns the exit code."""
    from .. import kernels
    from ..training.recipe import Recipe
    from ..training.warm_up import leave_word

    for part in options.part:  # here, so that an unknown option is named before the value that follows it
        if part not in PARTS:
            raise ValueError(f"PART {not_one_of(PARTS, part)} (see: minillm warmup --help)")
    if kernels.KERNELS == "numpy":
        say(f"nothing to compile: the NumPy definitions compute ({kernels.REASON})")
        return 0
    count = 0

    def note(name: str, seconds: float | None) -> None:
        nonlocal count
        count += seconds is not None

    forget = kernels.on_compile(note)
    folder, begun = kernels.cache_folder(), time.perf_counter()
    for part in options.part or PARTS:
        before, since = count, time.perf_counter()
        _work(part)()
        print(f"{part:<12}{count - before:>4} kernels compiled{time.perf_counter() - since:>8.1f} s", flush=True)
    forget()
    if not options.part:
        for kind in DECODERS:
            leave_word(Recipe(model=kind))
    kept = f"kept in {folder}" if folder else "not kept: no folder can be written to; set NUMBA_CACHE_DIR to one"
    say(f"[{count} kernels compiled in {time.perf_counter() - begun:.0f} s; {kept}]")
    return 0


def _work(part: str) -> Callable[[], None]:
    """The smallest piece of work that needs all kernels of a part."""
    from ..models.fast.decoding import compile_loops
    from ..training import warm_up

    if part == "tokenizers":
        return warm_up.compile_tokenizers
    if part == "int8":
        return warm_up.compile_int8
    if part == "t5":
        return warm_up.compile_t5

    def decoder() -> None:
        model = warm_up.compile_decoder(part)
        warm_up.compile_sampling(model)
        compile_loops(model)

    return decoder
