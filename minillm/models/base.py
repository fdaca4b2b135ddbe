"""What all language models share, and the cache that lets them go on from where they were.

The trainer, the generator and the evaluation know no architecture. They need of a model:

* ``model(ids) -> logits``: ids (B, T) integers -> (B, T, V) Tensor, position t scoring token t + 1;
  it is ``model.scores(model.states(ids))``, the states (B, T, C) being what the last layer says;
* ``model.new_cache(batch_size, length)`` and ``model.next_logits(ids, cache)``: the same, a few
  tokens at a time;
* ``model.context``: how many tokens it can see at most (None: no limit);
* ``model.config``: a frozen dataclass with the names of Hugging Face's ``config.json``.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np

from ..nn import Embedding, Module
from ..tensor import Tensor, no_grad
from .folder.saving import save_pretrained

HALVES = -65504, 65504  # the least and the largest number in float16
FLOATS = [np.dtype(kind) for kind in (np.float16, np.float32, np.float64)]  # in which keys and values can be kept


class Config(Protocol):
    """What every configuration has."""

    vocab_size: int

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``."""


class Cache(Protocol):
    """What a model remembers of the tokens that it has read."""

    length: int

    def reorder(self, rows: np.ndarray) -> Cache:
        """A cache whose row i goes on from row ``rows[i]`` of this one."""

    def kept(self, length: int, room: int) -> Cache | None:
        """A cache of the first ``length`` tokens alone, with room for ``room``; this one is used
        up. None where a model cannot go back.
        """


class LanguageModel(Module):
    """A model that scores the next token."""

    config: Any
    context: int | None = None
    is_encoder_decoder = False
    reads_on = True  # whether a text that is read in parts is read as if at once
    lm_head: Any = None  # the layer of the scores, where they have weights of their own
    cache_dtype: Any = None  # in which numbers a GPT-2 or a Llama keeps keys and values; None: in those of its weights

    def new_cache(self, batch_size: int, length: int, starts: np.ndarray | None = None) -> Any:
        """An empty cache for ``batch_size`` rows of up to ``length`` tokens.

        starts: (batch_size,) integers, how many positions at the left of each row are padding.
        """
        raise TypeError(f"{type(self).__name__} has no cache")

    def next_logits(self, ids: np.ndarray, cache: Any) -> np.ndarray:
        """Read ids (B, T) after what the cache holds; return the scores (B, V) of the token that
        comes next.
        """
        with no_grad():
            return self(ids, cache=cache).data[:, -1]

    def hidden_matrices(self) -> list[Tensor]:
        """The trainable matrices between the embeddings and the scores: those that `optim.Muon` is
        for.
        """
        ends = [module for module in self.modules() if isinstance(module, Embedding) or module is self.lm_head]
        outside = {id(p) for module in ends for p in module.parameters()}
        return [p for p in self.parameters() if p.ndim == 2 and p.requires_grad and id(p) not in outside]

    def config_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``."""
        return self.config.to_dict()

    def save_pretrained(self, folder: str | os.PathLike, **extras: Any) -> None:
        """Write ``config.json`` and ``model.safetensors``, in Hugging Face's layout, whole or not
        at all.
        """
        save_pretrained(self, folder, **extras)


class KVCache:
    """The keys and values of all layers for the tokens read so far.

    Attention asks every earlier token for its key and value, and they never change: computed once
    and kept, each new token costs one row instead of the whole sequence. Memory: 2 x layers x (B,
    length, G, D) numbers.

    dtype: of the numbers that are kept. In float16 a key is rounded to 11 bits when it is written,
    and half as much is read for each token; what is beyond its largest number, 65,504, becomes that
    one. Attention computes in the numbers of the model.
    Raises ValueError for other numbers than float16, float32 and float64.
    """

    def __init__(
        self, layers: int, batch_size: int, length: int, kv_heads: int, D: int, dtype: Any, starts: Any = None
    ) -> None:
        shape = (layers, batch_size, length, kv_heads, D)
        if not any(dtype == kind for kind in FLOATS):
            raise ValueError(f"cache_dtype must be np.float16, np.float32 or np.float64; got {dtype!r:.60}")
        self.keys, self.values = np.zeros(shape, dtype), np.zeros(shape, dtype)  # zeros take memory once written to
        self.length = 0
        self.starts = None if starts is None or not np.any(starts) else np.asarray(starts, np.int64)
        if self.starts is not None and self.starts.shape != (batch_size,):
            raise ValueError(f"starts must have a number for each of {batch_size} rows; got {self.starts.shape}")
        self.reader: Any = None  # how the last tokens were read: see fast/decoding.py

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, without how the last tokens were read: that holds places in this memory."""
        return self.__dict__ | {"reader": None}

    @property
    def capacity(self) -> int:
        """How many tokens fit in a row."""
        return self.keys.shape[2]

    def check_room(self, T: int) -> None:
        """Raise ValueError when there is no room for T more tokens."""
        if self.length + T > self.capacity:
            raise ValueError(f"cache: room for {self.capacity} tokens, {self.length} are in it; got {T} more")

    def positions(self, T: int) -> np.ndarray:
        """The positions of the next T tokens: (T,), or (B, T) when rows begin at different
        ``starts``.
        """
        self.check_room(T)
        positions = np.arange(self.length, self.length + T)
        return positions if self.starts is None else np.maximum(positions - self.starts[:, None], 0)

    def layer(self, i: int) -> LayerCache:
        """The part that layer ``i`` reads and writes."""
        return LayerCache(self, i)

    def reorder(self, rows: np.ndarray) -> KVCache:
        """A cache whose row i goes on from row ``rows[i]`` of this one (a copy)."""
        other = object.__new__(KVCache)
        other.keys, other.values = (np.take(x, rows, axis=1) for x in (self.keys, self.values))
        other.length, other.reader = self.length, self.reader
        other.starts = None if self.starts is None else self.starts[rows]
        return other

    def kept(self, length: int, room: int) -> KVCache:
        """A cache of the first ``length`` tokens alone, with room for ``room``; this one is used
        up.
        """
        self.length = length
        if room > self.capacity:
            old_keys, old_values, shape = self.keys, self.values, list(self.keys.shape)
            shape[2] = room
            self.keys, self.values = np.zeros(shape, old_keys.dtype), np.zeros(shape, old_values.dtype)
            self.keys[:, :, :length], self.values[:, :, :length] = old_keys[:, :, :length], old_values[:, :, :length]
        return self


class LayerCache:
    """One layer's view of a ``KVCache``; the model moves ``length`` on when all layers have
    written.
    """

    def __init__(self, whole: KVCache, i: int) -> None:
        self.whole, self.i = whole, i

    @property
    def starts(self) -> np.ndarray | None:
        """(B,): what stands before a row's start is padding."""
        return self.whole.starts

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """`append` for keys and values by heads: (B, G, T, D) -> all so far, (B, G, S, D)."""
        keys, values = self.append(k.data.swapaxes(1, 2), v.data.swapaxes(1, 2))
        return Tensor(keys.swapaxes(1, 2)), Tensor(values.swapaxes(1, 2))

    def append(self, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Write k, v (B, T, G, D) behind the ones that are there; return all, (B, S, G, D), in the
        dtype of k and v.
        """
        past, now = self.whole.length, self.whole.length + k.shape[1]
        keys, values = self.whole.keys[self.i], self.whole.values[self.i]
        if k.shape[::2] != keys.shape[::2] or k.shape[3] != keys.shape[3]:
            raise ValueError(f"cache: made for (B, S, G, D) = {keys.shape}; got keys (B, T, G, D) = {k.shape}")
        for kept, new in ((keys, k), (values, v)):  # in float16 an infinite key would make all scores NaN
            kept[:, past:now] = np.clip(new, *HALVES) if kept.dtype == np.float16 else new
        return keys[:, :now].astype(k.dtype, copy=False), values[:, :now].astype(v.dtype, copy=False)


def check_length(name: str, T: int, past: int, context: int | None) -> None:
    """Refuse a sequence that is longer than the model's positions."""
    if context is not None and past + T > context:
        raise ValueError(f"{name}: the context is {context} tokens; got {past + T}")


def as_ids(name: str, ids: Any) -> np.ndarray:
    """``ids`` as a (B, T) integer array; a single sequence (T,) becomes one row."""
    ids = np.asarray(ids.data if isinstance(ids, Tensor) else ids)
    if ids.ndim not in (1, 2) or ids.dtype.kind not in "iu" or ids.shape[-1] == 0:
        raise ValueError(f"{name}: ids must be (B, T) integers with T >= 1; got {ids.dtype} {ids.shape}")
    return ids if ids.ndim == 2 else ids[None]
