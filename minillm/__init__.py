"""minillm: a deep learning library in NumPy that shows how a language model works.

Read the source in this order: ``tensor`` (an array that remembers how it was made), ``autograd``
(the engine), ``functional`` (operations and their derivatives), ``nn`` (layers), ``models``,
``training``, ``generation``. What makes it fast is in ``kernels``, and changes no sentence above.

Size letters, here and in every file: B batch, T time, C channels, H heads, D head size, V
vocabulary.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import functional, models, nn, tensor
from .arrays.torch_words import TensorModule
from .check.anomaly import detect_anomaly
from .check.gradcheck import gradcheck
from .tensor import Tensor, no_grad
from .training.evaluate import evaluate

if TYPE_CHECKING:
    from . import data, optim, tokenizer
    from .check import plot
    from .check.attention import record_attention
    from .check.summary import summary
    from .generation import Generation, GenerationConfig, generate, generate_batch, stream
    from .kernels import get_num_threads, set_num_threads
    from .nn.saving import load, save
    from .training.config import TrainConfig
    from .training.recipe import Recipe
    from .training.run import Run, load_run
    from .training.trainer import Trainer

__version__ = "0.1.0"
tensor.__class__ = TensorModule

# Loaded when first used: learners who need only the engine do not wait for the rest.
_MODULES = {"data": "data", "optim": "optim", "plot": "check.plot", "tokenizer": "tokenizer"}  # name -> which it is
_LAZY = {  # name -> the module that has it
    "Trainer": "training.trainer",
    "TrainConfig": "training.config",
    "record_attention": "check.attention",
    "summary": "check.summary",
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
__all__ = sorted([  # noqa: PLE0605
    "Tensor", "detect_anomaly", "evaluate", "functional", "gradcheck", "models", "nn", "no_grad", *_MODULES, *_LAZY
])  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY and name not in _MODULES:
        from .arrays.torch_words import MINILLM, sentence

        ours = f"write F.{name}(...)" if hasattr(functional, name) else f"write x.{name}(...)" * hasattr(Tensor, name)
        raise AttributeError(sentence("minillm", name, MINILLM, ours))
    module = importlib.import_module(f".{_MODULES.get(name) or _LAZY[name]}", __name__)
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
