"""Compile the kernels of a training in a second process, while the first one writes stories.

Machine code goes into a cache on the disk, and whoever needs a kernel looks there first. So one
process can compile for another. `WarmUp` starts one that takes the kernels from the last to the
first: the optimiser's, those of backward, those of forward. The training needs them the other way
round. Where the two meet, everything is done, in about half the time, and nobody has waited for
anybody. Then, whenever the machine is idle for a moment, it goes on to what a sample needs, and to
the kernels of a tokenizer that had so little to do that it worked without them.

    python -m minillm.training.warm_up '{"model": "llama"}'          what the second process does
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import data, kernels, models, optim
from ..data import Batch
from ..tokenizer import BPETokenizer, UnigramTokenizer
from .build import build_model
from .config import TrainConfig
from .evaluate import next_token_loss
from .recipe import Recipe

__all__ = ["WarmUp"]

Trained = BPETokenizer | UnigramTokenizer  # the tokenizers that have kernels


class WarmUp:
    """A context manager: inside, a second process compiles what a training of this recipe needs.
    The tokenizer works by its definitions meanwhile, if it has little to do: the built-in stories
    have a few hundred words.

    It starts none where nothing would be gained: all is compiled already, the machine has one core,
    the definitions compute, or machine code cannot be kept. Its failure is nobody's: what is then
    missing compiles as it always does.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.process: subprocess.Popen[bytes] | None = None
        self.stamp: Path | None = None
        self._definitions = contextlib.ExitStack()

    def __enter__(self) -> WarmUp:
        if kernels.KERNELS == "numba":
            self.stamp = _stamp(self.recipe)
        if self.stamp is not None and not self.stamp.exists() and kernels.get_num_threads() > 1:
            with contextlib.suppress(OSError):
                self.process = _start(self.recipe)
        if self.process is not None and _few_words(self.recipe):
            self._definitions.enter_context(kernels.by_definition("text"))
        return self

    def __exit__(self, *error: object) -> None:
        self._definitions.close()
        if self.process is not None:
            self.process.kill()
            self.process.communicate()  # waits, and closes the pipe

    @property
    def is_needless(self) -> bool:
        """Whether a run of this kind has left word that all is compiled."""
        return self.stamp is not None and self.stamp.exists()

    def all_compiled(self) -> None:
        """The run has trained and sampled alone: the next one need not start a second process."""
        if self.stamp is not None and self.process is None:
            leave_word(self.recipe)


def _few_words(recipe: Recipe) -> bool:
    """Whether its tokenizer has so little to learn that the definitions do it sooner than kernels
    compile.
    """
    return recipe.data is None and recipe.tokenizer == "bpe"


# subtle: -m would look in the current folder first, and a checkout there has a cache of its own
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from {0} import end_with_parent, main; end_with_parent(); main(sys.argv[1:])"
)


def _start(recipe: Recipe) -> subprocess.Popen[bytes]:
    """`main` in a process of its own, with the packages of this one, and one thread."""
    environment = os.environ | {"NUMBA_NUM_THREADS": "1"}
    environment.pop("MINILLM_THREADS", None)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(__name__), json.dumps(sys.path), json.dumps(recipe.to_dict())],
        env=environment,
        stdin=subprocess.PIPE,  # which closes when this process ends, however it ends
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _stamp(recipe: Recipe) -> Path | None:
    """An empty file that says: for such a model everything is compiled."""
    folder = kernels.cache_folder()
    chosen = [name for name in (recipe.attention, recipe.optimizer) if name not in ("dot", "adamw")]
    kind = "-".join([recipe.model, *chosen])
    return folder and folder / f"all-of-{kind}-{kernels.cache_key()}"


def leave_word(recipe: Recipe) -> None:
    """Say to all later runs of this kind that everything is compiled."""
    if stamp := _stamp(recipe):
        with contextlib.suppress(OSError):
            stamp.touch()


def compile_training(model: Any, batch: Batch, config: TrainConfig) -> None:
    """Compile what a step of training needs, last things first: a step by the definitions shows
    what is called.
    """
    model.train()
    with kernels.noting_calls() as calls:
        next_token_loss(model, batch).backward()
        optim.clip_grad_norm(model.parameters(), 1e-6)
        for optimizer in config.optimizers(model).values():
            optimizer.step()
    for file, name, arguments in reversed(calls):
        kernels.load(file, name)(*arguments)


def compile_sampling(model: Any) -> None:
    """Compile what texts need that are drawn token by token: one after a short prompt, one after a
    long, and many at once.
    """
    model.eval()
    for rows, prompt in ((1, 3), (1, min(40, (model.context or 64) - 1)), (kernels.MOST_ROWS + 1, 3)):
        padded = np.arange(rows) % 2 if rows > 1 else None
        cache = model.new_cache(rows, prompt + 1, padded)
        model.next_logits(np.ones((rows, prompt), np.int64), cache)
        model.next_logits(np.ones((rows, 1), np.int64), cache)


def compile_decoder(kind: str, recipe: Recipe | None = None) -> Any:
    """Compile what the training of a model that continues texts needs; return such a model."""
    recipe = recipe or Recipe(model=kind)
    model = build_model(recipe, recipe.vocab_size)
    rows = min(recipe.batch_size, 1 + 512 // recipe.context)  # so many tokens show the same as all, and sooner
    ids = np.random.default_rng(0).integers(0, recipe.vocab_size, (rows, recipe.context + 1))
    compile_training(model, (ids[:, :-1], ids[:, 1:]), recipe.train_config())
    return model


def compile_t5() -> None:
    """Compile what a T5 needs that learns."""
    model = models.T5(models.T5Config(64, 32, 8, 64, num_layers=1, num_heads=4), 0)
    ids = np.random.default_rng(0).integers(2, 64, (8, 40))
    compile_training(model, (ids, ids, ids), TrainConfig())


def compile_int8() -> None:
    """Compile what a Llama and a GPT-2 need whose weights were rounded to one byte."""
    for kind in ("llama", "gpt2"):
        model = build_model(Recipe(model=kind, layers=1), 64)
        compile_sampling(models.quantize(model))


def compile_tokenizers(kinds: Sequence[type[Trained]] = (BPETokenizer, UnigramTokenizer)) -> None:
    """Compile what BPE and Unigram need to learn from texts and to encode them."""
    texts = [document.text for document in data.corpus(20)]
    for kind in kinds:
        tokenizer = kind.train(texts, 300)
        tokenizer.encode_batch(texts)
        tokenizer.encode(texts[0])


def end_with_parent() -> None:
    """End this process when the one that started it is no more, and so the pipe between them, and
    not before: Ctrl-C is for that one.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        os.read(0, 1)  # which nobody writes: it ends with the pipe
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _only_where_idle() -> None:
    """From now on, work only where no other process has anything to do."""
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: a system that has no such thing
        if hasattr(os, "SCHED_IDLE"):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        else:
            os.nice(20)


def main(arguments: list[str]) -> None:
    """Compile all that a training of a recipe needs, and leave the stamp that says so."""
    recipe = Recipe.from_settings(json.loads(arguments[0]))
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # the training itself goes first
    if recipe.model == "t5":
        compile_t5()
        _only_where_idle()
    else:  # kernels do not depend on sizes: a model to start with is as good as any of its kind
        some = Recipe(model=recipe.model) if recipe.start else recipe
        model = compile_decoder(recipe.model, some)
        _only_where_idle()  # the training has begun
        compile_sampling(model)
    if _few_words(recipe):
        compile_tokenizers([BPETokenizer])
    leave_word(recipe)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1:])
