"""Arrays in, arrays out: the hot loops of the library, each a NumPy twin and a Numba kernel.

The rooms, one family of functions each: ``matmul``, ``activations``, ``softmax``, ``norm``, ``attention``,
``recurrent``, ``embedding``, ``decode``, ``quant``, ``optim``, ``bpe``. A room is loaded, and Numba imported, when one
of its names is first used: ``import minillm`` stays quick and compiles nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

# fmt: off
_ROOMS = {
    "attention": (
        "attention_backward",
        "attention_forward",
        "attention_packed_backward",
        "attention_packed_forward",
    ),
    "_jit": ("KERNELS", "PAIRS", "get_num_threads", "on_compile", "release_freed_memory", "set_num_threads"),
    "matmul": (
        "joint_linear_backward", "joint_linear_forward", "linear_forward", "matmul_path", "product", "sum_rows",
        "weight_gradient",
    ),
    "activations": (
        "gelu_backward", "gelu_forward", "sigmoid_backward", "sigmoid_forward", "silu_backward", "silu_forward",
        "swiglu_backward", "swiglu_forward", "tanh_backward", "tanh_forward",
    ),
    "softmax": (
        "cross_entropy_backward", "cross_entropy_forward", "log_softmax_backward", "log_softmax_forward",
        "softmax_backward", "softmax_forward",
    ),
    "norm": (
        "layer_norm_backward", "layer_norm_forward", "rms_norm_backward", "rms_norm_forward",
    ),
    "embedding": (
        "embedding_backward", "embedding_forward", "rotary_forward", "rotary_packed_", "rotary_packed_forward",
    ),
    "recurrent": (
        "gru_backward", "gru_forward", "lstm_backward", "lstm_forward", "rnn_backward", "rnn_forward",
    ),
    "additive": ("additive_attention_backward", "additive_attention_forward"),
    "decode": ("MOST_ROWS", "Decoder", "Layer", "Matrix", "Norm", "apply", "decode_step"),
    "decode_prompt": ("FEWEST_TOKENS", "read"),
    "quant": ("dequantize_rows", "quantize_rows"),
    "optim": ("adamw_update", "scale_all", "sgd_update", "sum_of_squares"),
}
# fmt: on
_HOME = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minillm.kernels' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"minillm.kernels.{_HOME[name]}"), name)
    globals()[name] = value  # the next look-up finds it here
    return value
