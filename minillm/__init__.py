"""minillm: a deep learning library in NumPy that shows how a language model works.

Read the source in this order: ``tensor`` (an array that remembers how it was made), ``functional`` (operations and
their derivatives), ``nn`` (layers), ``models``, ``trainer``, ``generate``. The hot loops are in ``kernels``, each
beside its NumPy twin.

Size letters, here and in every file: B batch, T time, C channels, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

import importlib
from typing import Any

from . import functional, models, nn
from .tensor import Tensor, no_grad

__version__ = "0.1.0"
