"""How GPT-2 and Llama read the next tokens: in one compiled call where it can be, else layer by
layer.

``model(ids, cache=cache)`` goes through the layers as their files say, each a few Python calls.
After the prompt there is one token at a time: a small model would spend most of the time in Python,
and a large one could not read its weights at the speed of the memory. So ``next_logits`` hands the
model, as a list of its arrays (``arrays.py``), to ``kernels.decode_step``, which computes the same;
and for a long prompt to ``kernels.read``, which wastes less between the products.

It does so only while calling the layers would do what the list says: without hooks, layers of
another kind in the place of ours, dropout or float64. The list is made anew when a parameter has
got another array, or a hook came or went.

These two compile for half a minute. In that time a small model has written a book layer by layer:
it waits for no compiler, and takes the fast way once ``minillm warmup`` or a larger model has paid
for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ... import kernels, nn
from ...tensor import Tensor, no_grad
from ..base import KVCache, as_ids, check_length

if TYPE_CHECKING:
    from ...kernels.decode import Decoder

Model = TypeVar("Model")

SMALL = 10_000_000  # parameters up to which a model does not wait for the compiler
LAYERS = (nn.Linear, nn.Embedding, nn.RMSNorm, nn.LayerNorm, nn.Dropout)
LISTS: dict[type, Callable[[Any], Decoder | None]] = {}  # architecture -> the function that lists its arrays
PARTS: dict[type, frozenset[type]] = {}  # architecture -> the kinds of its modules


def lists(architecture: type[Model], parts: tuple[type, ...] = ()) -> Callable:
    """Let a function list the arrays of an architecture, which is built of ``parts`` and of the
    layers of ``nn``.

    A subclass, and a model with a part of another kind, goes through its layers.
    """

    def remember(function: Callable[[Model], Decoder | None]) -> Callable[[Model], Decoder | None]:
        LISTS[architecture], PARTS[architecture] = function, frozenset((architecture, *parts, *LAYERS))
        return function

    return remember


@dataclass
class Reader:
    """A model as a list of arrays, and what it was made from. ``decoder`` is None where the layers
    must be called.
    """

    parameters: list[tuple[Tensor, np.ndarray]]
    modules: list[nn.Module]  # the model itself first
    watched: int  # how many modules hooks look at
    decoder: Decoder | None

    @classmethod
    def of(cls, model: Any) -> Reader:
        """Look at the model as it is now."""
        modules, parameters = list(model.modules()), [(p, p.data) for p in model.parameters()]
        watched = _count_watched(modules)
        plain = not watched and _is_plain(model, modules, [array for _, array in parameters])
        return cls(parameters, modules, watched, LISTS[type(model)](model) if plain else None)

    def is_current(self, model: Any) -> bool:
        """Whether it is about this model, every parameter of which still has the array that it had,
        and no hook came or went.

        (What an optimiser writes into an array is seen.)
        """
        same = all([parameter._data is array for parameter, array in self.parameters])
        return self.modules[0] is model and same and _count_watched(self.modules) == self.watched

    @cached_property
    def is_small(self) -> bool:
        """Whether there are layers, and so few parameters that going through them is quick."""
        return 0 < sum(array.size for _, array in self.parameters) <= SMALL

    @cached_property
    def steps(self) -> bool:
        """Whether to call the loop that reads one token: it is compiled, or the model is large."""
        return not self.is_small or kernels.is_compiled("decode.step", "_step")

    @cached_property
    def reads(self) -> bool:
        """The same of the loop that reads many tokens."""
        return not self.is_small or kernels.is_compiled("decode.prompt", "_read")


def _count_watched(modules: list[nn.Module]) -> int:
    return sum([module._hooks is not None and module.is_watched for module in modules])


def _is_plain(model: Any, modules: list[nn.Module], arrays: list[np.ndarray]) -> bool:
    """Whether calling the layers would do what the list of arrays says, and nothing else."""
    return (
        type(model) in LISTS
        and all([type(module) in PARTS[type(model)] for module in modules])
        and not any([module.training for module in modules])
        and all([a.dtype == np.float32 and a.flags.c_contiguous and a.flags.aligned for a in arrays])
    )


def next_logits(model: Any, ids: np.ndarray, cache: KVCache) -> np.ndarray:
    """Read ids (B, T) after what the cache holds; return the scores (B, V) of the token that comes
    next.
    """
    name = type(model).__name__
    ids = as_ids(name, ids)
    decoder = _decoder(model, ids, cache)
    if decoder is None:
        with no_grad():
            return model(ids, cache=cache, last_only=True).data[:, -1]
    T = ids.shape[1]
    check_length(name, T, cache.length, model.context)
    cache.check_room(T)
    arrays = cache.keys, cache.values, cache.length, cache.starts
    cache.length += T
    if T == 1 and len(ids) <= kernels.MOST_ROWS:
        return kernels.decode_step(decoder, ids[:, 0], *arrays)
    return kernels.read(decoder, ids, *arrays, last_only=True)[:, 0]


def _decoder(model: Any, ids: np.ndarray, cache: KVCache) -> Decoder | None:
    """The list of arrays, where compiled loops can read these ids; ids that no kernel may see are
    refused later.
    """
    if kernels.KERNELS == "numpy" or len(ids) != cache.keys.shape[1]:
        return None
    one = ids.shape[1] == 1 and len(ids) <= kernels.MOST_ROWS
    if not one and ids.size < kernels.FEWEST_TOKENS:
        return None
    if cache.reader is None or not cache.reader.is_current(model):
        cache.reader = Reader.of(model)
    reader, decoder, V = cache.reader, cache.reader.decoder, model.config.vocab_size
    if decoder is None or not can_read(decoder, cache) or not all([0 <= id < V for id in ids.ravel().tolist()]):
        return None
    return decoder if (reader.steps if one else reader.reads) else None


def compile_loops(model: Any) -> None:
    """Compile both loops, also for a small model that would not wait for them."""
    decoder, cache = Reader.of(model).decoder, model.new_cache(1, 2)
    if decoder is not None:
        arrays = cache.keys, cache.values, 0, cache.starts
        kernels.decode_step(decoder, np.zeros(1, np.int64), *arrays)
        kernels.read(decoder, np.zeros((1, 2), np.int64), *arrays, last_only=True)


def can_read(decoder: Decoder, cache: KVCache) -> bool:
    """Whether the compiled loops can use the cache, which may be in numbers that they do not know,
    or another model's.
    """
    layers, _, _, G, D = cache.keys.shape
    own = (layers, G, D) == (len(decoder.layers), decoder.kv_heads, decoder.head_size)
    return own and cache.keys.dtype in (np.float16, np.float32)
