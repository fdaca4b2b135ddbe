"""minillm: a deep learning library in NumPy that shows how a language model works.

Read the source in this order: ``tensor`` (an array that remembers how it was made), ``autograd`` (the engine),
``functional`` (operations and their derivatives), ``nn`` (layers), ``models``, ``trainer``, ``generate``. The hot loops
are in ``kernels``, each beside its NumPy twin.

Size letters, here and in every file: B batch, T time, C channels, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import functional, models, nn
from .anomaly import detect_anomaly
from .evaluate import evaluate
from .gradcheck import gradcheck
from .tensor import Tensor, no_grad

if TYPE_CHECKING:
    from . import data, optim, tokenizer
    from .generate import Generation, GenerationConfig, generate, stream
    from .kernels import get_num_threads, set_num_threads
    from .trainer import TrainConfig, Trainer

__version__ = "0.1.0"

# Loaded when first used: learners who need only the engine do not wait for the rest.
_LAZY = {
    "data": "minillm.data",
    "optim": "minillm.optim",
    "tokenizer": "minillm.tokenizer",
    "Trainer": "minillm.trainer",
    "TrainConfig": "minillm.trainer",
    "generate": "minillm.generate",
    "stream": "minillm.generate",
    "Generation": "minillm.generate",
    "GenerationConfig": "minillm.generate",
    "get_num_threads": "minillm.kernels",
    "set_num_threads": "minillm.kernels",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'minillm' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    # generate is both: a package that can be called
    value = module if name in ("data", "generate", "optim", "tokenizer") else getattr(module, name)
    globals()[name] = value
    return value
