"""Layers: functions with parameters of their own. Read ``module`` first, then ``linear``."""

from ..autograd.torch_words import torch_arguments as _torch_arguments
from . import init
from .activations import GELU, ReLU, Sigmoid, SiLU, Tanh
from .attention import MultiHeadAttention
from .batch_norm import BatchNorm1d, BatchNorm2d
from .container import Sequential
from .conv import AvgPool2d, Conv1d, Conv2d, Flatten, MaxPool2d
from .dropout import Dropout
from .embedding import Embedding
from .linear import Linear
from .module import Module
from .norm import LayerNorm, RMSNorm
from .recurrent import GRU, LSTM, RNN, RecurrentAttention

for _layer in list(globals().values()):
    if isinstance(_layer, type) and issubclass(_layer, Module) and _layer is not Module:
        _layer.__init__ = _torch_arguments(_layer.__init__)  # type: ignore[method-assign]


def __getattr__(name: str) -> None:
    from ..autograd.torch_words import NN, sentence

    layers = [key for key, value in globals().items() if isinstance(value, type) and key != "Module"]
    otherwise = f"a layer is a Module of your own, of functions of F; here are {', '.join(layers)}"
    raise AttributeError(sentence("minillm.nn", name, NN, otherwise if name[0].isupper() else ""))
