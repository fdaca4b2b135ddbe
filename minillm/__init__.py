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
    from .check import plot
    from .check.anomaly import detect_anomaly
    from .check.attention import record_attention
    from .check.gradcheck import gradcheck
    from .check.summary import summary
    from .check.trace import trace
    from .generation import Generation, GenerationConfig, generate, generate_batch, stream
    from .kernels import get_num_threads, set_num_threads
    from .nn.saving import load, save
    from .tensor import Tensor, no_grad
    from .training.config import TrainConfig
    from .training.evaluate import evaluate
    from .training.recipe import Recipe
    from .training.run import Run, load_run
    from .training.trainer import Trainer

__version__ = "0.1.0"

# Loaded when first used: learners who need only the engine do not wait for the rest, and nobody
# waits for ``minillm --help``.
_MODULES = {  # name -> which it is
    **{name: name for name in ("data", "functional", "models", "nn", "optim", "tokenizer")},
    "plot": "check.plot",
}
_LAZY = {  # name -> the module that has it
    "Tensor": "tensor",
    "no_grad": "tensor",
    "detect_anomaly": "check.anomaly",
    "gradcheck": "check.gradcheck",
    "evaluate": "training.evaluate",
    "Trainer": "training.trainer",
    "TrainConfig": "training.config",
    "record_attention": "check.attention",
    "summary": "check.summary",
    "trace": "check.trace",
    "load": "nn.saving",
    "save": "nn.saving",
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
__all__ = sorted([*_MODULES, *_LAZY])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    import importlib.util

    if name in _LAZY:
        value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    elif name in _MODULES:
        value = importlib.import_module(f".{_MODULES[name]}", __name__)
    elif importlib.util.find_spec(f"{__name__}.{name}"):  # another file of ours
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(_sentence(name))
    if "tensor" in globals():
        from .autograd.torch_words import TensorModule

        globals()["tensor"].__class__ = TensorModule
    globals()[name] = value
    return value


def _sentence(name: str) -> str:
    """What to write instead of a name of torch."""
    from . import functional
    from .autograd.torch_words import MINILLM, OTHERS, TENSOR, of_numpy, sentence
    from .tensor import Tensor

    if hasattr(functional, name) or hasattr(Tensor, name):
        ours = f"write F.{name}(...)" if hasattr(functional, name) else f"write x.{name}(...)"
        return sentence("minillm", name, MINILLM, ours)
    return sentence("minillm", name, TENSOR | OTHERS | MINILLM, of_numpy(name))


def __dir__() -> list[str]:
    return __all__
