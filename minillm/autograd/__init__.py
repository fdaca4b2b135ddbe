"""The engine (engine.py), and what arrays need to take part in it: shapes, NumPy's functions."""

from .engine import Backward, Gradients, Hook, Node, no_grad, observed_by, operation_name, this_thread
from .torch_words import AUTOGRAD as _AUTOGRAD
from .torch_words import sentence as _sentence


def __getattr__(name: str) -> None:
    raise AttributeError(_sentence("minillm.autograd", name, _AUTOGRAD))
