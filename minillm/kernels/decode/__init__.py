"""Decoding: all layers of a GPT-2 or a Llama in one compiled call. This file is what the models
give to it.

``step.py`` reads the next token of a few texts, ``prompt.py`` many tokens at once; ``products.py``
has the matrix products of a step, for weights in float32, in int8 and in blocks (``blocks.py``),
of one text or of several (``texts.py``), ``attend.py`` its attention to keys and values in float16
or float32 (``halves.py``).
What they compute is ``model(ids, cache=cache)``: see ``models/gpt2.py`` and ``models/llama.py``.
Here, a model is a list of arrays; nothing in this file needs Numba.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

PARALLEL = False  # nothing here is compiled

MOST_ROWS = 16  # texts that take a step together; for more, BLAS's matrix product is quicker
FEWEST_TOKENS = 64  # of a prompt for which reading them together pays


class Matrix(NamedTuple):
    """A linear layer, y = x w^T + b."""

    weight: np.ndarray  # (N, C) float32, or int8 with a scale; or (N, bytes of a row) uint8, with ``blocks``
    bias: np.ndarray | None = None  # (N,)
    scale: np.ndarray | None = None  # (N,): w_nc = weight_nc scale_n
    by_columns: bool = False  # weight is (C, N), as GPT-2 stores it
    blocks: str = ""  # "Q8_0", "Q4_0" ... : weight is in such blocks of a GGUF file, see files/blocks.py


class Norm(NamedTuple):
    """A layer norm, or without bias an RMS norm."""

    weight: np.ndarray  # (C,)
    bias: np.ndarray | None = None  # (C,)


class Layer(NamedTuple):
    """x = x + out(attention(qkv(norm_1(x)))),  x = x + down(activation(up(norm_2(x))))."""

    norm_1: Norm
    qkv: tuple[Matrix, ...]  # one or three, side by side: (H + 2 G) D outputs
    out: Matrix
    norm_2: Norm
    up: tuple[Matrix, ...]  # one, or gate and up
    down: Matrix


@dataclass(frozen=True, eq=False)
class Decoder:
    """All arrays and sizes of a GPT-2 or a Llama."""

    embedding: Matrix  # (V, C)
    positions: np.ndarray | None  # (context, C): added to the embeddings; None: rotary
    speeds: np.ndarray | None  # (D / 2,) float64: by which angle a pair of features turns from position to position
    layers: tuple[Layer, ...]
    norm: Norm
    head: Matrix  # (V, C)
    heads: int  # H
    kv_heads: int  # G
    head_size: int  # D
    eps: float
    activation: Literal["swiglu", "gelu", "gelu_exact"]  # of the MLP; swiglu: silu(gate) * up

    @cached_property
    def arguments(self) -> tuple:
        """What the kernels are given of it: a table of addresses, and some arrays and sizes."""
        from .table import addresses

        C = self.norm.weight.size
        return (
            addresses(self),
            np.zeros((0, C), np.float32) if self.positions is None else self.positions,
            np.zeros(0) if self.speeds is None else self.speeds,
            (self.heads, self.kv_heads, self.head_size),
            sum(matrix.weight.shape[1 if matrix.by_columns else 0] for matrix in self.layers[0].up),
            ("swiglu", "gelu", "gelu_exact").index(self.activation),
            np.float32(self.eps),
        )
