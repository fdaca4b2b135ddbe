"""minillm: a deep learning library in NumPy that shows how a language model works.

Read the source in this order: ``tensor`` (an array that remembers how it was made), ``autograd``
(the engine), ``functional`` (operations and their derivatives), ``nn`` (layers), ``models``,
``training``, ``generation``. What makes it fast is in ``kernels``, and changes no sentence above.

Size letters, here and in every file: B batch, T time, C channels, H heads, D head size, V
vocabulary.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's; nothing is imported here, so that Ctrl-C finds nothing to interrupt
if TYPE_CHECKING:
    from typing import Any

    from . import data, functional, models, nn, optim, tokenizer
    from .check.anomaly import detect_anomaly
    from .check.gradcheck import gradcheck
    from .check.summary import summary
    from .generation import Generation, GenerationConfig, generate, generate_batch, stream
    from .kernels import get_num_threads, set_num_threads
    from .tensor import Tensor, no_grad
    from .training.config import TrainConfig
    from .training.evaluate import evaluate
    from .training.recipe import Recipe
    from .training.run import Run, load_run
    from .training.trainer import Trainer

__version__ = "0.1.0"

# Loaded when first used: learners who need only the engine do not wait for the rest, and nobody
# waits for ``minillm --help``.
_LAZY = {  # name -> where it is; a module by itself where nothing is said
    **dict.fromkeys(("data", "functional", "models", "nn", "optim", "tokenizer"), ""),
    "Tensor": "tensor",
    "no_grad": "tensor",
    "detect_anomaly": "check.anomaly",
    "gradcheck": "check.gradcheck",
    "evaluate": "training.evaluate",
    "Trainer": "training.trainer",
    "TrainConfig": "training.config",
    "summary": "check.summary",
    "Recipe": "training.recipe",
    "Run": "training.run",
    "load_run": "training.run",
    "generate": "generation",
    "generate_batch": "generation",
    "stream": "generation",
    "Generation": "generation",
    "GenerationConfig": "generation",
    "get_num_threads": "kernels",
    "set_num_threads": "kernels",
}
__all__ = sorted(_LAZY)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    import importlib.util

    if name not in _LAZY and importlib.util.find_spec(f"{__name__}.{name}") is None:  # no file of ours either
        from .arrays.torch_words import MINILLM, sentence

        raise AttributeError(sentence("minillm", name, MINILLM))
    place = _LAZY.get(name)
    module = importlib.import_module(f".{place or name}", __name__)
    value = getattr(module, name) if place else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
