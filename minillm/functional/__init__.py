"""The operations that have a name. Read first ``activations``, then ``layers``, then ``losses``.

Each function shows the forward computation, then ``backward``: the chain rule of that one operation.
"""

from .activations import gelu, log_softmax, relu, sigmoid, silu, softmax, swiglu, tanh
from .elementwise import exp, log, sqrt, where
from .layers import (
    dropout,
    embedding,
    joint_linear,
    layer_norm,
    linear,
    rms_norm,
    rotary_embedding,
    scaled_dot_product_attention,
    self_attention,
)
from .losses import cross_entropy, mse_loss
from .products import matmul
from .shaping import concatenate, stack
