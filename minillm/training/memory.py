"""How much memory a training or a measurement needs, known before anything is built.

    16 bytes a parameter: its weight, its gradient, and AdamW's two means
    4 bytes for each number that a layer keeps of a token until backward
    8 bytes for each score of each token: the logits and their gradient

The figures below were measured and rounded down, so that nothing is refused that would fit.
"""  # noqa: W505

from __future__ import annotations

import os
import re
from pathlib import Path

from .. import data
from ..nn import Module, init
from .build import build_model
from .corpus import stories_for
from .recipe import ENCODED, STARTED, Recipe

__all__ = ["available", "check_batch", "check_recipe", "count_parameters"]

KEPT = {"llama": 22, "gpt2": 17}  # numbers that a layer keeps of a token, by width C
KEPT_BY_OTHERS = 12
PER_STORY = 6000  # bytes, of a made-up story: its text, its ids, what it was made of
PER_BYTE = 15  # of a text: itself, its characters, its ids
GIB = 2**30


def check_recipe(recipe: Recipe, model: Module | None = None) -> None:
    """Raise ValueError when a training does not fit into the memory that is there.

    model: the one to go on with, where there is one.
    """
    text, shrink = stories_for(recipe) * PER_STORY, "fewer steps, a smaller batch or a smaller context"
    if recipe.data is not None:
        files = [] if recipe.tokenizer == ENCODED else data.text_files(recipe.data)
        text = PER_BYTE * sum(file.stat().st_size for file in files)
        shrink = "a corpus on the disk: minillm encode makes it of a text"
    learned, known = recipe.tokenizer in ("bpe", "unigram"), recipe.tokenizer == STARTED
    V = max(1, min(recipe.vocab_size, text)) if learned else recipe.vocab_size if known else 1  # at least
    parameters = model.num_parameters() if model else count_parameters(recipe, V)
    width, tokens = recipe.width, recipe.batch_size * recipe.context
    kept = KEPT.get(recipe.model, KEPT_BY_OTHERS) * recipe.layers * width
    _check({
        "fewer layers or a smaller width": 16 * parameters,
        "a smaller batch, a smaller context or fewer layers": 4 * tokens * (kept + 2 * V),
        shrink: text,
    })  # fmt: skip


def check_batch(tokens: int, vocab_size: int) -> None:
    """Raise ValueError when the scores of a batch of so many tokens do not fit into memory."""
    _check({"a smaller batch or a smaller context": 4 * tokens * vocab_size})


def count_parameters(recipe: Recipe, V: int) -> int:
    """How many parameters the model of a recipe will have, with V tokens in its vocabulary; not one
    of them is stored meanwhile.

    All layers are alike: each further one adds what the second adds.
    """
    with init.skipped():
        one, two = (
            build_model(recipe.replace(layers=layers), V).num_parameters() for layers in (1, 2)
        )
    return one + (recipe.layers - 1) * (two - one)


def available() -> int | None:
    """The bytes of memory that this process can still get; None where the system does not say."""
    try:
        free = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        free = None
    found = [1024 * int(free[1])] if free else []
    if not found and "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):  # of a container
        try:
            found.append(int(Path(limit).read_text()))
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
    return min(found, default=None)


def _check(needed: dict[str, int]) -> None:
    """needed: bytes, by what would make them fewer."""
    there, total = available(), sum(needed.values())
    if there is not None and total > there:
        way = max(needed, key=lambda name: needed[name])
        raise ValueError(
            f"this needs at least {_gib(total)} GiB of memory, and {_gib(there)} are free; choose {way}"
        )


def _gib(size: int) -> str:
    return f"{size / GIB:,.0f}" if size > 10 * GIB else f"{size / GIB:.1f}"
