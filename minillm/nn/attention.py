"""Attention as a layer: every position asks all that came before, several questions at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import functional as F
from ..autograd.torch_words import torch_arguments
from ..tensor import Tensor
from .linear import Linear
from .module import Module


class MultiHeadAttention(Module):
    """Project to queries, keys and values, let each head attend for itself, join and project
    (Vaswani et al. 2017).

    x: (B, T, width) -> (B, T, width); ``heads`` heads of width / heads numbers each. causal:
    position t sees only positions up to t. window: only the latest ``window`` of those. kv_heads <
    heads: groups of heads share keys and values (Ainslie et al. 2023).

    Cross-attention: with ``context`` (B, S, width) keys and values come from there, as in a decoder
    that looks at an encoder's text; that needs causal=False. mask: broadcasts to (B, heads, T, S);
    True lets through, False hides, other numbers are added to the scores.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        causal: bool = True,
        window: int | None = None,
        kv_heads: int | None = None,
        bias: bool = True,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        kv_heads = kv_heads or heads
        if heads < 1 or width % heads or heads % kv_heads:
            raise ValueError(
                "MultiHeadAttention: width must be divisible by heads, and heads by kv_heads; "
                f"got width {width}, heads {heads}, kv_heads {kv_heads}"
            )
        rng = np.random.default_rng(rng)
        self.heads, self.kv_heads, self.causal, self.window = heads, kv_heads, causal, window
        D = width // heads
        self.q_proj = Linear(width, heads * D, bias, rng)
        self.k_proj = Linear(width, kv_heads * D, bias, rng)
        self.v_proj = Linear(width, kv_heads * D, bias, rng)
        self.o_proj = Linear(heads * D, width, bias, rng)

    @torch_arguments
    def forward(self, x: Tensor, context: Tensor | None = None, mask: Any = None) -> Tensor:
        """Attend: (B, T, width) -> (B, T, width).

        Raises ValueError for a context that does not fit, or one beside causal attention.
        """
        if context is None:
            context = x
        elif self.causal:
            raise ValueError(
                "MultiHeadAttention: a context has no order beside x, and causal attention needs one: "
                "make the layer with causal=False"
            )
        elif context.ndim != 3 or context.shape[::2] != x.shape[::2]:
            raise ValueError(
                f"MultiHeadAttention: context must be (B, S, width) with x's batch and width; got {context.shape} "
                f"for x {x.shape}"
            )
        q = split_heads(self.q_proj(x), self.heads)  # (B, H, T, D)
        k = split_heads(self.k_proj(context), self.kv_heads)  # (B, G, S, D)
        v = split_heads(self.v_proj(context), self.kv_heads)
        y = F.scaled_dot_product_attention(q, k, v, causal=self.causal, window=self.window, mask=mask)  # (B, H, T, D)
        return self.o_proj(join_heads(y))

    def extra_repr(self) -> str:
        """Heads and what they may see."""
        return f"heads={self.heads}" + (", causal" if self.causal else "")


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H D) -> (B, H, T, D)."""
    B, T, width = x.shape
    return x.reshape(B, T, heads, width // heads).swapaxes(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H D)."""
    B, H, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * D)
