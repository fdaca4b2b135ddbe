"""Layers: functions with parameters of their own. Read ``module`` first, then ``linear``."""

from . import init
from .activations import GELU, ReLU, Tanh
from .attention import MultiHeadAttention
from .container import Sequential
from .dropout import Dropout
from .embedding import Embedding
from .linear import Linear
from .module import Module
from .norm import LayerNorm, RMSNorm
from .recurrent import GRU, LSTM, RNN, RecurrentAttention
