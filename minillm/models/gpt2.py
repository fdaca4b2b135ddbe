"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

    ids (B, T)
      token embedding + position embedding            wte, wpe                  (B, T, C)
      n_layer times:
        x = x + attention(layer_norm(x))              ln_1, attn                every position asks the ones before it
        x = x + mlp(layer_norm(x))                    ln_2, mlp                 every position thinks for itself
      layer_norm                                      ln_f
      scores: x against every row of the embedding    wte again (tied)          (B, T, V)

The sums ``x + ...`` are the residual connections: each layer adds to what is there, and gradients
flow past it unhindered. Names of parameters and fields are those of Hugging Face's
``GPT2LMHeadModel``.

The paper:
https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf
"""  # noqa: W505

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from ..nn import Dropout, Embedding, LayerNorm, Linear, Module, init
from ..tensor import Tensor
from .base import KVCache, LanguageModel, LayerCache, as_ids, check_length
from .checks import check_divisible, check_one_of, check_positive
from .fast.decoding import next_logits
from .folder import fields as known
from .folder.config import config_from_dict, config_to_dict

ACTIVATIONS = {
    "gelu_new": "tanh",  # the tanh form
    "gelu_pytorch_tanh": "tanh",
    "gelu": "none",  # the exact form
}


@dataclass(frozen=True)
class GPT2Config:
    """The sizes of a GPT-2; the defaults are those of the smallest one that was published (124 M
    parameters).
    """

    vocab_size: int = 50257
    n_positions: int = 1024  # the context: how many positions have an embedding
    n_embd: int = 768  # C, the width
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # width of the MLP; None: 4 n_embd
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1  # of the attention weights: accepted, and applied to the heads' outputs instead
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | tuple[int, ...] | None = 50256  # one id or several

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        check_divisible(self, "n_embd", "n_head")
        check_one_of(self, "activation_function", ACTIVATIONS)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str = "config.json") -> GPT2Config:
        """Read the fields of a ``config.json``."""
        return config_from_dict(cls, fields, source=source, **known.GPT2)

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``."""
        fields = config_to_dict(self, neutral=known.GPT2["neutral"])
        return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **fields}


class Conv1D(Module):
    """y = x W + b: a linear layer whose weight is stored (in, out), as in GPT-2's files."""

    def __init__(self, inputs: int, outputs: int, std: float, rng: np.random.Generator) -> None:
        self.weight = init.normal(rng, (inputs, outputs), std)
        self.bias = init.constant((outputs,), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(x, self.weight.T, self.bias)


class Attention(Module):
    """Every position asks those before it, and itself, n_head questions at a time."""

    def __init__(self, config: GPT2Config, rng: np.random.Generator) -> None:
        C, std = config.n_embd, config.initializer_range
        self.n_head = config.n_head
        self.c_attn = Conv1D(C, 3 * C, std, rng)  # queries, keys and values in one product
        self.c_proj = Conv1D(C, C, residual_std(config), rng)
        self.attn_dropout = Dropout(config.attn_pdrop, rng)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        qkv = self.c_attn(x)  # (B, T, 3 C)
        y = F.self_attention(qkv, self.n_head, cache=cache)  # (B, T, C): a mean of values, weighted by q . k
        return self.c_proj(self.attn_dropout(y))


class MLP(Module):
    """Two linear layers with a gelu between: to a wider space, where things separate, and back."""

    def __init__(self, config: GPT2Config, rng: np.random.Generator) -> None:
        C, inner = config.n_embd, config.n_inner or 4 * config.n_embd
        self.approximate = ACTIVATIONS[config.activation_function]
        self.c_fc = Conv1D(C, inner, config.initializer_range, rng)
        self.c_proj = Conv1D(inner, C, residual_std(config), rng)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.c_proj(F.gelu(self.c_fc(x), self.approximate))


class Block(Module):
    """Attention, then MLP, each on a normalised copy of x and added to it."""

    def __init__(self, config: GPT2Config, rng: np.random.Generator) -> None:
        self.ln_1 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.attn = Attention(config, rng)
        self.ln_2 = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        self.mlp = MLP(config, rng)
        self.dropout = Dropout(config.resid_pdrop, rng)

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.dropout(self.attn(self.ln_1(x), cache))
        x = x + self.dropout(self.mlp(self.ln_2(x)))
        return x


class Transformer(Module):
    """Embeddings, blocks and the last norm: everything but the scores."""

    def __init__(self, config: GPT2Config, rng: np.random.Generator) -> None:
        std = config.initializer_range
        self.wte = Embedding(config.vocab_size, config.n_embd, rng, std)  # what each token means
        self.wpe = Embedding(config.n_positions, config.n_embd, rng, std)  # where it stands
        self.drop = Dropout(config.embd_pdrop, rng)
        self.h = [Block(config, rng) for _ in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)

    def forward(self, ids: np.ndarray, positions: np.ndarray, cache: KVCache | None = None) -> Tensor:
        """Ids (B, T), positions (T,) or (B, T) -> (B, T, C)."""
        x = self.drop(self.wte(ids) + self.wpe(positions))  # (B, T, C)
        for i, block in enumerate(self.h):
            x = block(x, cache and cache.layer(i))
        return self.ln_f(x)


class GPT2(LanguageModel):
    """``model(ids) -> logits``: ids (B, T) integers -> (B, T, V) Tensor."""

    def __init__(self, config: GPT2Config, rng: np.random.Generator | int | None = None) -> None:
        rng = np.random.default_rng(rng)
        self.config, self.context = config, config.n_positions
        self.transformer = Transformer(config, rng)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.n_embd, config.vocab_size, False, rng)
            self.lm_head.weight = init.normal(rng, self.lm_head.weight.shape, config.initializer_range)

    def forward(self, ids: Any, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """Score every next token, or only that after the last of ids.

        With a cache, ids are the tokens after those that it holds.
        """
        x = self.states(ids, cache)  # (B, T, C)
        return self.scores(x[:, -1:] if last_only else x)  # (B, T or 1, V)

    def states(self, ids: Any, cache: KVCache | None = None) -> Tensor:
        """What the last layer says of every position: (B, T) -> (B, T, C)."""
        ids = as_ids("GPT2", ids)
        T, past = ids.shape[1], cache.length if cache else 0
        check_length("GPT2", T, past, self.context)
        positions = cache.positions(T) if cache else np.arange(T)
        x = self.transformer(ids, positions, cache)
        if cache:
            cache.length += T
        return x

    def scores(self, x: Tensor) -> Tensor:
        """The score of every token of the vocabulary: (..., C) -> (..., V)."""
        return F.linear(x, self.transformer.wte.weight) if self.config.tie_word_embeddings else self.lm_head(x)

    def new_cache(self, batch_size: int, length: int, starts: np.ndarray | None = None) -> KVCache:
        """An empty cache for ``batch_size`` rows of up to ``length`` tokens."""
        c, dtype = self.config, self.cache_dtype or self.transformer.wte.weight.dtype
        return KVCache(c.n_layer, batch_size, length, c.n_head, c.n_embd // c.n_head, dtype, starts)

    def next_logits(self, ids: np.ndarray, cache: KVCache) -> np.ndarray:
        """Read ids (B, T) after what the cache holds; return the scores (B, V) of the token that
        comes next.
        """
        return next_logits(self, ids, cache)


def residual_std(config: GPT2Config) -> float:
    """The standard deviation of the first weights whose product is added to x.

    There are 2 n_layer such sums; so their total begins as large as one of them would be with
    initializer_range.
    """
    return config.initializer_range / math.sqrt(2 * config.n_layer)
