"""How GPT-2 and Llama read the next tokens: in one compiled call where it can be, else layer by layer.

``model(ids, cache=cache)`` goes through the layers as their files tell, each a few Python calls. For the tokens that
are written after a prompt, one at a time, a small model would spend most of the time in Python, and a large one could
not read its weights at the speed of the memory. So ``next_logits`` hands the model, as the list of arrays that
``model.decoder()`` makes of it, to ``kernels.decode_step``, which computes the same; and for a long prompt to
``kernels.read``, which wastes less between the products.

It does so only when nothing has changed that this list does not tell of: hooks, layers of another kind in the place of
ours, dropout, float64; and the list is made anew when a parameter has got another array, or a hook came or went.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import kernels, nn
from ..tensor import Tensor, no_grad
from .base import KVCache, as_ids, check_length

if TYPE_CHECKING:
    from ..kernels.decode import Decoder, Matrix

PLAIN = (nn.Linear, nn.Embedding, nn.RMSNorm, nn.LayerNorm, nn.Dropout)


def matrix(layer: Any, by_columns: bool = False) -> Matrix:
    """The arrays of a linear layer, or of an embedding."""
    bias = getattr(layer, "bias", None)
    return kernels.Matrix(layer.weight.data, None if bias is None else bias.data, None, by_columns)


@dataclass
class Reader:
    """A model as a list of arrays, and what it was made from. ``decoder`` is None where the layers must be called."""

    parameters: list[tuple[Tensor, np.ndarray]]
    attributes: list[dict[str, Any]]  # of all modules: that is where hooks turn up
    hooked: int  # in how many modules there were some
    decoder: Decoder | None

    @classmethod
    def of(cls, model: Any) -> Reader:
        """Look at the model as it is now."""
        modules = list(model.modules())
        parts = [part for module in modules for _, part in module._parts()]
        parameters = [(part, part.data) for part in parts if isinstance(part, Tensor)]
        attributes = [vars(module) for module in modules]
        hooked = _count_hooked(attributes)
        plain = not hooked and _is_plain(type(model).__module__, modules, [array for _, array in parameters])
        return cls(parameters, attributes, hooked, model.decoder() if plain else None)

    def is_current(self) -> bool:
        """Whether every parameter still has the array that it had, and no hook came or went.

        (What an optimiser writes into an array is seen.)
        """
        same = all([parameter._data is array for parameter, array in self.parameters])
        return same and _count_hooked(self.attributes) == self.hooked


def _count_hooked(attributes: Iterable[dict[str, Any]]) -> int:
    return sum([any(own["_hooks"].values()) for own in attributes if "_hooks" in own])


def _is_plain(home: str, modules: list[Any], arrays: list[np.ndarray]) -> bool:
    """Whether calling the layers would do what the list of arrays says, and nothing else."""
    return (
        all([type(module) in PLAIN or type(module).__module__ == home for module in modules])
        and not any([module.training for module in modules])
        and all([a.dtype == np.float32 and a.flags.c_contiguous and a.flags.aligned for a in arrays])
    )


def next_logits(model: Any, ids: np.ndarray, cache: KVCache) -> np.ndarray:
    """Read ids (B, T) after what the cache holds; return the scores (B, V) of the token that comes next."""
    name, ids = type(model).__name__, as_ids(type(model).__name__, ids)
    (B, T), decoder = ids.shape, None
    one = T == 1 and B <= kernels.MOST_ROWS
    compiled = kernels.KERNELS == "numba" and (one or B * T >= kernels.FEWEST_TOKENS)
    if compiled and B == cache.keys.shape[1]:
        if cache.reader is None or not cache.reader.is_current():
            cache.reader = Reader.of(model)
        decoder = cache.reader.decoder
    if decoder is None or not all([0 <= id < model.config.vocab_size for id in ids.ravel().tolist()]):
        with no_grad():
            return model(ids, cache=cache, last_only=True).data[:, -1]
    check_length(name, T, cache.length, model.context)
    cache.check_room(T)
    arrays = cache.keys, cache.values, cache.length, cache.starts
    cache.length += T
    if one:
        return kernels.decode_step(decoder, ids[:, 0], *arrays)
    return kernels.read(decoder, ids, *arrays, last_only=True)[:, 0]
