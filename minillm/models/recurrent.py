"""A recurrent language model whose cells look back at their past states.

    ids (B, T)
      token embedding                                            embedding          (B, T, C)
      num_layers times:
        x = x + recurrent_attention(rms_norm(x))                 norm, recurrent
      rms_norm                                                   norm
      scores                                                     embedding again (tied), or lm_head       (B, T, V)

Language models looked like this before the transformer: a recurrent network (Mikolov et al. 2010)
with attention to its own past (Bahdanau et al. 2015, Luong et al. 2015). The state must carry all
that was read through one bottleneck; attention lets each step fetch a past state as it was. The
transformer left out the recurrence and kept the attention. The residual connections and the norms
are of the transformer's time: with them, deep stacks train as easily as shallow ones.

The cache does not grow with the text: each layer keeps its state and those in its window. So there
is no limit to the context, but what left the window is seen only through what the state still
carries of it.

The papers: https://www.isca-archive.org/interspeech_2010/mikolov10_interspeech.html (the recurrent
language model), https://arxiv.org/abs/1409.0473 (additive attention),
https://arxiv.org/abs/1508.04025 (dot products).
"""  # noqa: W505

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .. import functional as F
from ..nn import Embedding, Linear, Module, RecurrentAttention, RMSNorm
from ..nn.recurrent import Past
from ..tensor import Tensor
from .base import LanguageModel, as_ids
from .checks import check_one_of, check_positive
from .folder.config import config_from_dict, config_to_dict


@dataclass(frozen=True)
class RecurrentLMConfig:
    """The sizes of a recurrent language model."""

    vocab_size: int = 1024
    hidden_size: int = 256  # C, the width of the residual and of the cells
    num_layers: int = 2
    cell: Literal["rnn", "lstm", "gru"] = "gru"
    attention: Literal["dot", "additive", "none"] = "dot"  # how a past state is scored: see nn.RecurrentAttention
    window: int = 64  # past states that attention sees
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02  # of the embedding
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None  # one id or several

    def __post_init__(self) -> None:
        check_positive(self, "vocab_size", "hidden_size", "num_layers", "window")
        check_one_of(self, "cell", ("rnn", "lstm", "gru"))
        check_one_of(self, "attention", ("dot", "additive", "none"))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], source: str = "config.json") -> RecurrentLMConfig:
        """Read the fields of a ``config.json``."""
        return config_from_dict(cls, fields, source=source)

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``."""
        return {"model_type": "minillm_recurrent", "architectures": ["RecurrentLM"], **config_to_dict(self)}


class RecurrentCache:
    """What every layer remembers of the text so far; its size does not depend on how long the text
    is.
    """

    def __init__(self, layers: list[Past], starts: np.ndarray | None) -> None:
        self.layers, self.starts = layers, starts

    @property
    def length(self) -> int:
        """How many tokens were read."""
        return self.layers[0].length

    def reorder(self, rows: np.ndarray) -> RecurrentCache:
        """A cache whose row i goes on from row ``rows[i]`` of this one."""
        starts = None if self.starts is None else self.starts[rows]
        return RecurrentCache([layer.reorder(rows) for layer in self.layers], starts)

    def kept(self, length: int, room: int) -> RecurrentCache | None:
        """This cache if it holds ``length`` tokens, of which there can be any number; else None: a
        state does not know the states before it.
        """
        return self if length == self.length else None


class Block(Module):
    """A recurrent layer with attention, on a normalised copy of the residual and added to it."""

    def __init__(self, config: RecurrentLMConfig, rng: np.random.Generator) -> None:
        C = config.hidden_size
        self.norm = RMSNorm(C, config.rms_norm_eps)
        self.recurrent = RecurrentAttention(C, C, config.cell, config.attention, config.window, rng)

    def forward(self, x: Tensor, past: Past | None, starts: np.ndarray | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return x + self.recurrent(self.norm(x), past, starts)


class RecurrentLM(LanguageModel):
    """``model(ids) -> logits``: ids (B, T) integers -> (B, T, V) Tensor. Texts may have any length.
    """

    def __init__(self, config: RecurrentLMConfig, rng: np.random.Generator | int | None = None) -> None:
        rng = np.random.default_rng(rng)
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.hidden_size, rng, config.initializer_range)
        self.layers = [Block(config, rng) for _ in range(config.num_layers)]
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, False, rng)

    def forward(self, ids: Any, cache: RecurrentCache | None = None) -> Tensor:
        """Score every next token; with a cache, ids are the tokens after those that it holds."""
        return self.scores(self.states(ids, cache))  # (B, T, V)

    def states(self, ids: Any, cache: RecurrentCache | None = None) -> Tensor:
        """What the last layer says of every position: (B, T) -> (B, T, C)."""
        x = self.embedding(as_ids("RecurrentLM", ids))  # (B, T, C)
        for i, layer in enumerate(self.layers):
            x = layer(x, cache and cache.layers[i], cache and cache.starts)
        return self.norm(x)

    def scores(self, x: Tensor) -> Tensor:
        """The score of every token of the vocabulary: (..., C) -> (..., V)."""
        return F.linear(x, self.embedding.weight) if self.config.tie_word_embeddings else self.lm_head(x)

    def new_cache(self, batch_size: int, length: int, starts: np.ndarray | None = None) -> RecurrentCache:
        """An empty cache for ``batch_size`` rows of any length.

        starts: (batch_size,) integers, how many positions at the left of each row are padding.
        """
        starts = None if starts is None or not np.any(starts) else np.asarray(starts, np.int64)
        return RecurrentCache([Past() for _ in self.layers], starts)
