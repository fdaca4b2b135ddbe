"""The operations that have a name. Read first ``activations``, then ``linear``, then ``losses``.

Each function shows the forward computation, then ``backward``: the chain rule of that one
operation. Where both are long enough to be worth compiling, their NumPy definitions stand below it.
"""

from ..autograd.torch_words import FUNCTIONS as _FUNCTIONS
from ..autograd.torch_words import OTHERS as _OTHERS
from ..autograd.torch_words import of_functional as _of_functional
from ..autograd.torch_words import sentence as _sentence
from ..autograd.torch_words import torch_arguments as _torch_arguments
from ..tensor import Tensor as _Tensor
from .activations import elu, gelu, leaky_relu, log_softmax, relu, sigmoid, silu, softmax, softplus, swiglu, tanh
from .attention import scaled_dot_product_attention, self_attention
from .conv import avg_pool2d, conv1d, conv2d, max_pool2d
from .elementwise import abs, clip, cos, dropout, exp, log, log1p, maximum, minimum, rsqrt, sin, sqrt, where
from .embedding import embedding, rotary_embedding
from .linear import joint_linear, linear, mlp
from .losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
)
from .norm import layer_norm, rms_norm
from .products import einsum, matmul, outer
from .recurrent import gru, lstm, rnn
from .recurrent_attention import past_attention
from .reductions import cumsum, logsumexp, norm, prod, std
from .shaping import (
    arange,
    broadcast_to,
    chunk,
    concatenate,
    flip,
    gather,
    one_hot,
    pad,
    split,
    squeeze,
    stack,
    take,
    tile,
    tril,
    triu,
    unsqueeze,
)

for _name, _function in list(globals().items()):
    if {"axis", "causal", "reduction"} & set(getattr(getattr(_function, "__code__", None), "co_varnames", ())):
        globals()[_name] = _torch_arguments(_function)


def __getattr__(name: str) -> None:
    """A sentence for somebody who looks here for a method, or for torch's name of a function."""
    here = _FUNCTIONS.get(name, f"x.{name}" if hasattr(_Tensor, name) else None)
    if here:
        raise AttributeError(f"minillm.functional has no {name!r}; {here}(...) does this")
    raise AttributeError(_sentence("minillm.functional", name, _OTHERS, _of_functional(name)))
