"""A model that is nothing but the list of its arrays: what weights in few bits have in common.

Compiled loops read the list (see ``decoding.py``); under ``MINILLM_KERNELS=numpy`` a model of
layers does, whose weights are what the codes stand for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ... import kernels
from ...tensor import Tensor, no_grad
from ..base import KVCache, LanguageModel, as_ids, check_length
from .decoding import can_read, next_logits

if TYPE_CHECKING:
    from ...kernels.decode import Decoder


class ListedModel(LanguageModel):
    """``model(ids) -> logits``, without gradients.

    arrays: of the model, in their places. dequantized: makes the model of layers that computes the
    same.
    """

    training = False
    cache_dtype: Any = np.float16  # what rounding keys and values loses is small beside what rounding the weights lost
    why_not = ""  # it cannot be trained, and what to do

    def __init__(self, config: Any, context: int | None, arrays: Decoder, dequantized: Callable[[], Any]) -> None:
        self.config, self.context = config, context
        self.arrays, self.dequantized = arrays, dequantized

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, without what the loops were given of the arrays: places in this memory."""
        return self.__dict__ | {"arrays": dataclasses.replace(self.arrays)}

    def forward(self, ids: Any, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """Score every next token, or only that after the last of ids: (B, T) -> (B, T or 1, V),
        without gradients.
        """
        name = type(self).__name__
        ids = as_ids(name, ids)
        B, T = ids.shape
        cache = self._new_cache(B, T, np.float32) if cache is None else cache
        check_length(name, T, cache.length, self.context)
        cache.check_room(T)
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise ValueError(f"{name}: ids must be in [0, {self.config.vocab_size})")
        if len(cache.keys[0]) != B or not can_read(self.arrays, cache):
            raise ValueError(
                f"{name}: the cache must be one that new_cache({B}, ...) of this model made, in np.float16 or "
                f"np.float32; got {cache.keys.dtype} {cache.keys.shape}"
            )
        if kernels.KERNELS == "numpy":
            with no_grad():
                return self.dequantized()(ids, cache, last_only)
        logits = kernels.read(self.arrays, ids, cache.keys, cache.values, cache.length, cache.starts, last_only)
        cache.length += T
        return Tensor(logits)

    def new_cache(self, batch_size: int, length: int, starts: np.ndarray | None = None) -> KVCache:
        """An empty cache for ``batch_size`` rows of up to ``length`` tokens."""
        return self._new_cache(batch_size, length, self.cache_dtype or np.float32, starts)

    def _new_cache(self, batch_size: int, length: int, dtype: Any, starts: np.ndarray | None = None) -> KVCache:
        d = self.arrays
        return KVCache(len(d.layers), batch_size, length, d.kv_heads, d.head_size, dtype, starts)

    def next_logits(self, ids: np.ndarray, cache: KVCache) -> np.ndarray:
        """Read ids (B, T) after what the cache holds; return the scores (B, V) of the token that
        comes next.
        """
        return next_logits(self, ids, cache)

    def train(self, mode: bool = True) -> Self:
        """Stay as it is. Raises ValueError when asked to train."""
        if mode:
            raise ValueError(f"{type(self).__name__}: {self.why_not}")
        return self
