"""A GPT-2 or Llama whose matrices are held in one byte a weight: see ``kernels/quant.py`` for how, and the error.

    small = quantize(model)                   a QuantizedModel, a little over a quarter of the size
    small.save_pretrained("folder")           a folder that ``from_pretrained`` opens again

It generates and is evaluated as any other model. It cannot be trained: the gradient of a rounded
weight is zero. Embedding, projections and head are rounded; norms, biases and GPT-2's position
embeddings, small and sensitive, stay float32.

In the file, ``NAME`` holds the codes, I8 (outputs, inputs), and ``NAME_scale`` the scales, F32
(outputs,). ``config.json`` has the model_type ``minillm_int8``, so that a reader who does not know
these codes refuses them instead of taking them for weights; the model's own type is in
``quantization_config``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import kernels
from ...nn import init
from ...tensor import Tensor
from ..base import KVCache, LanguageModel, as_ids, check_length
from .arrays import arrays_of
from .decoding import lists, next_logits

if TYPE_CHECKING:
    from ...kernels.decode import Decoder, Matrix, Norm

__all__ = ["QuantizedModel", "quantize", "quantized_from_pretrained", "unquantized_fields"]

MODEL_TYPE, METHOD = "minillm_int8", "minillm-int8"


class QuantizedModel(LanguageModel):
    """``model(ids) -> logits``, with weights in int8; made by ``quantize`` or ``from_pretrained``.

    arrays: of the model, in their places. state: the same arrays by the names that they have in a
    file.
    """

    training = False

    def __init__(self, config: Any, context: int | None, arrays: Decoder, state: Mapping[str, np.ndarray]) -> None:
        self.config, self.context = config, context
        self.arrays, self._state = arrays, dict(state)

    def forward(self, ids: Any, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """Score every next token, or only that after the last of ids: (B, T) -> (B, T or 1, V), without gradients."""
        ids = as_ids("QuantizedModel", ids)
        B, T = ids.shape
        cache = self.new_cache(B, T) if cache is None else cache
        check_length("QuantizedModel", T, cache.length, self.context)
        cache.check_room(T)
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise ValueError(f"QuantizedModel: ids must be in [0, {self.config.vocab_size})")
        logits = kernels.read(self.arrays, ids, cache.keys, cache.values, cache.length, cache.starts, last_only)
        cache.length += T
        return Tensor(logits)

    def new_cache(self, batch_size: int, length: int, starts: np.ndarray | None = None) -> KVCache:
        """An empty cache for ``batch_size`` rows of up to ``length`` tokens."""
        d = self.arrays
        return KVCache(len(d.layers), batch_size, length, d.kv_heads, d.head_size, np.float32, starts)

    def next_logits(self, ids: np.ndarray, cache: KVCache) -> np.ndarray:
        """Read ids (B, T) after what the cache holds; return the scores (B, V) of the token that comes next."""
        return next_logits(self, ids, cache)

    def train(self, mode: bool = True) -> QuantizedModel:
        """Stay as it is. Raises ValueError when asked to train."""
        if mode:
            raise ValueError("QuantizedModel: int8 weights cannot be trained; train the model, and quantize it again")
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """The arrays by the names that they have in a file (not copies)."""
        return dict(self._state)

    def config_dict(self) -> dict[str, Any]:
        """The fields of ``config.json``."""
        fields = self.config.to_dict()
        own = {name: fields.pop(name) for name in ("model_type", "architectures")}
        return {"model_type": MODEL_TYPE, **fields, "quantization_config": {"quant_method": METHOD, **own}}

    def num_parameters(self) -> int:
        """How many numbers were learned: the scales are none of them."""
        return sum(array.size for name, array in self._state.items() if not name.endswith("_scale"))


@lists(QuantizedModel)
def quantized_arrays(model: QuantizedModel) -> Decoder:
    """The arrays of a quantised model."""
    return model.arrays


def quantize(model: LanguageModel) -> QuantizedModel:
    """Round the weights of a GPT-2 or Llama to int8; the model itself stays as it is.

    Raises ValueError for another architecture, whose weights go through loops that do not know
    int8.
    """
    arrays = None if isinstance(model, QuantizedModel) else arrays_of(model)
    if arrays is None:
        raise ValueError(f"quantize: GPT2 and Llama can be quantized; got {type(model).__name__}")
    names = {id(parameter.data): name for name, parameter in model.named_parameters()}
    state: dict[str, np.ndarray] = {}

    def matrix(m: Matrix) -> Matrix:
        name = names[id(m.weight)]
        if name not in state:  # else a tied head: the embedding again
            weight = m.weight.T if m.by_columns else m.weight  # a row for each output
            state[name], state[f"{name}_scale"] = kernels.quantize_rows(weight)
        return kernels.Matrix(state[name], array(m.bias), state[f"{name}_scale"])

    def array(a: np.ndarray | None) -> np.ndarray | None:
        if a is None:
            return None
        return state.setdefault(names[id(a)], np.array(a, np.float32))

    return QuantizedModel(model.config, model.context, _rebuilt(arrays, matrix, array), state)


def _rebuilt(decoder: Decoder, matrix: Callable[[Matrix], Matrix], array: Callable[[Any], Any]) -> Decoder:
    """The decoder with other matrices and other arrays."""

    def norm(n: Norm) -> Norm:
        return kernels.Norm(array(n.weight), array(n.bias))

    return dataclasses.replace(
        decoder,
        embedding=matrix(decoder.embedding),
        positions=array(decoder.positions),
        layers=tuple(
            kernels.Layer(norm(a), tuple(map(matrix, qkv)), matrix(out), norm(b), tuple(map(matrix, up)), matrix(down))
            for a, qkv, out, b, up, down in decoder.layers
        ),
        norm=norm(decoder.norm),
        head=matrix(decoder.head),
    )


# ---- files -----------------------------------------------------------------------------------------------------------


def unquantized_fields(fields: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """The fields of a ``config.json`` as before the weights were rounded; None if it is about another model."""
    if fields.get("model_type") != MODEL_TYPE:
        return None
    found = fields.get("quantization_config")
    if not isinstance(found, dict) or found.get("quant_method") != METHOD:
        raise ValueError(f"{source}: quantization_config must have the quant_method {METHOD}; got {found!r:.80}")
    own = {name: value for name, value in found.items() if name != "quant_method"}
    return {name: value for name, value in fields.items() if name != "quantization_config"} | own


def quantized_from_pretrained(make: Callable[[Any], Any], config: Any, weights: Mapping[str, Any]) -> QuantizedModel:
    """Put stored tensors in the places of a model's parameters.

    make: builds the model from its configuration. Raises ValueError that lists all missing,
    unexpected, misshapen ones.
    """
    with init.skipped():  # a model that takes no memory, to know which parameter goes where
        model = make(config)
    names = {id(parameter.data): name for name, parameter in model.named_parameters()}
    state: dict[str, np.ndarray] = {}
    problems: list[str] = []

    def take(name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in state:
            stored = weights.get(name)
            if stored is None:
                problems.append(f"missing {name} {shape}")
            elif (stored.dtype, stored.shape) != (dtype, shape):
                problems.append(f"{name} is {stored.dtype} {stored.shape}, expected {dtype} {shape}")
            else:
                state[name] = stored.read()
        return state.get(name, np.broadcast_to(np.float32(0), shape))

    def matrix(m: Matrix) -> Matrix:
        name, shape = names[id(m.weight)], m.weight.shape[::-1] if m.by_columns else m.weight.shape
        return kernels.Matrix(take(name, "I8", shape), array(m.bias), take(f"{name}_scale", "F32", shape[:1]))

    def array(a: np.ndarray | None) -> np.ndarray | None:
        return None if a is None else take(names[id(a)], "F32", a.shape)

    arrays = arrays_of(model)
    if arrays is None:
        raise ValueError(f"a {type(model).__name__} cannot have int8 weights; GPT2 and Llama can")
    decoder = _rebuilt(arrays, matrix, array)
    problems += [f"unexpected {name} {tensor.shape}" for name, tensor in weights.items() if name not in state]
    if problems:
        raise ValueError("; ".join(dict.fromkeys(problems)))
    return QuantizedModel(config, model.context, decoder, state)
