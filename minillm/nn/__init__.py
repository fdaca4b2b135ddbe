"""Layers: functions with parameters of their own. Read ``module`` first, then ``linear``."""

from . import init
from .attention import MultiHeadAttention
from .embedding import Embedding
from .linear import GELU, Dropout, Linear, ReLU, Sequential, Tanh
from .module import Module
from .norm import LayerNorm, RMSNorm
from .recurrent import GRU, LSTM, RNN, RecurrentAttention
