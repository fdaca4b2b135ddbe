"""A GPT-2 or Llama whose matrices are held in one byte a weight: int8 numbers, and a scale for each
row of a matrix.

    small = quantize(model)                   a QuantizedModel, a little over a quarter of the size
    small.save_pretrained("folder")           a folder that ``from_pretrained`` opens again

It generates and is evaluated as any other model. It cannot be trained: the gradient of a rounded
weight is zero. Embedding, projections and head are rounded; norms, biases and GPT-2's position
embeddings, small and sensitive, stay float32.

In the file, ``NAME`` holds the codes, I8 (outputs, inputs), and ``NAME_scale`` the scales, F32
(outputs,); ``config.json`` has the model_type ``minillm_int8``, so that a reader who does not know
these codes refuses them, and does not take them for weights; the model's own is in
``quantization_config``.

To write the next token, a model reads all its weights once, and hardly computes with them: the
memory is the limit. Weights of a quarter of the size are read in a quarter of the time.

    scale_n = max_c |w_nc| / 127,    code_nc = round(w_nc / scale_n) in -127 .. 127,    w_nc ~ code_nc scale_n

*The error.* Rounding to the nearest moves a weight by at most scale / 2, and evenly in between: its
standard deviation is scale / sqrt(12). Errors of different weights are independent, so those of a
sum of C products add as noise does:

    error of x . w_n  ~  |x| scale_n / sqrt(12),    relative to |x| |w_n| / sqrt(C), the size of such a sum:
    scale_n sqrt(C) / (|w_n| sqrt(12))  =  (max |w| / rms w) / (127 sqrt(12))

For a bell curve of a thousand weights the largest is some 3.2 times the root of the mean square:
0.7 %. One weight that sticks out makes its whole row coarse, but no other row: that is why each row
has a scale of its own, and why it is the rows, for a row is one output, and its scale can wait
until the sum is there.

The activations stay float32. (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339, tell what
happens when they do not.)
"""  # noqa: W505

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import kernels
from ...nn import init
from ...tensor import Tensor, no_grad
from ..base import KVCache, LanguageModel, as_ids, check_length
from ..gpt2 import GPT2, GPT2Config
from ..llama import Llama
from .arrays import arrays_of
from .decoding import lists, next_logits

if TYPE_CHECKING:
    from ...kernels.decode import Decoder, Matrix, Norm

__all__ = ["QuantizedModel", "quantize", "quantized_from_pretrained", "unquantized_fields"]

MODEL_TYPE, METHOD = "minillm_int8", "minillm-int8"
LARGEST = 127
BLOCK = 1 << 20  # numbers that are rounded at a time


def quantize_rows(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """w: (N, C) floats -> codes: (N, C) int8, scale: (N,) float32; a row of zeros gets the scale 0.

    >>> codes, scale = quantize_rows(np.array([[1.27, -0.5, 0.004]]))
    >>> codes, scale
    (array([[127, -50,   0]], dtype=int8), array([0.01], dtype=float32))
    """
    rows = max(1, BLOCK // max(1, w.shape[1]))
    codes, scale = np.empty(w.shape, np.int8), np.empty(len(w), np.float32)
    for n in range(0, len(w), rows):
        block = w[n : n + rows]
        scale[n : n + rows] = np.abs(block).max(axis=1, initial=0) / LARGEST
        step = scale[n : n + rows, None]
        codes[n : n + rows] = np.rint(block / np.where(step > 0, step, 1))
    return codes, scale


def dequantize_rows(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """w_nc = code_nc scale_n.   codes: (N, C) int8, scale: (N,) float32 -> (N, C) float32.

    >>> dequantize_rows(np.array([[127, -50, 0]], np.int8), np.array([0.01], np.float32))
    array([[ 1.27, -0.5 ,  0.  ]], dtype=float32)
    """
    return codes * scale[:, None]


class QuantizedModel(LanguageModel):
    """``model(ids) -> logits``, with weights in int8; made by ``quantize`` or ``from_pretrained``.

    arrays: of the model, in their places. state: the same arrays by the names that they have in a
    file.
    """

    training = False

    def __init__(self, config: Any, context: int | None, arrays: Decoder, state: Mapping[str, np.ndarray]) -> None:
        self.config, self.context = config, context
        self.arrays, self._state = arrays, dict(state)
        self.dequantized = functools.cache(functools.partial(dequantize, config, arrays, self._state))

    def forward(self, ids: Any, cache: KVCache | None = None, last_only: bool = False) -> Tensor:
        """Score every next token, or only that after the last of ids: (B, T) -> (B, T or 1, V),
        without gradients.
        """
        ids = as_ids("QuantizedModel", ids)
        B, T = ids.shape
        cache = self.new_cache(B, T) if cache is None else cache
        check_length("QuantizedModel", T, cache.length, self.context)
        cache.check_room(T)
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            raise ValueError(f"QuantizedModel: ids must be in [0, {self.config.vocab_size})")
        if kernels.KERNELS == "numpy":
            with no_grad():
                return self.dequantized()(ids, cache, last_only)
        logits = kernels.read(self.arrays, ids, cache.keys, cache.values, cache.length, cache.starts, last_only)
        cache.length += T
        return Tensor(logits)

    def new_cache(self, batch_size: int, length: int, starts: np.ndarray | None = None) -> KVCache:
        """An empty cache for ``batch_size`` rows of up to ``length`` tokens."""
        d = self.arrays
        return KVCache(len(d.layers), batch_size, length, d.kv_heads, d.head_size, np.float32, starts)

    def next_logits(self, ids: np.ndarray, cache: KVCache) -> np.ndarray:
        """Read ids (B, T) after what the cache holds; return the scores (B, V) of the token that
        comes next.
        """
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
    if names.keys() != {id(array) for array in model.plain_state().values()}:
        raise ValueError("quantize: the model has an adapter: finetune.merge(model) first")
    state: dict[str, np.ndarray] = {}

    def matrix(m: Matrix) -> Matrix:
        name = names[id(m.weight)]
        if name not in state:  # else a tied head: the embedding again
            weight = m.weight.T if m.by_columns else m.weight  # a row for each output
            state[name], state[f"{name}_scale"] = quantize_rows(weight)
        return kernels.Matrix(state[name], array(m.bias), state[f"{name}_scale"])

    def array(a: np.ndarray | None) -> np.ndarray | None:
        if a is None:
            return None
        return state.setdefault(names[id(a)], np.array(a, np.float32))

    return QuantizedModel(model.config, model.context, _rebuilt(arrays, matrix, array), state)


def dequantize(config: Any, arrays: Decoder, state: Mapping[str, np.ndarray]) -> Any:
    """The GPT-2 or Llama in float32 whose weights are codes times scales: it computes what a
    quantized model does.
    """
    model: LanguageModel = GPT2(config, 0) if isinstance(config, GPT2Config) else Llama(config, 0)
    model.eval()
    for name, parameter in model.named_parameters():
        if f"{name}_scale" not in state:
            parameter.data[...] = state[name]
    own = arrays_of(model)
    assert own is not None  # both architectures have such a list
    for m, q in zip(_matrices(own), _matrices(arrays), strict=True):
        assert q.scale is not None  # they all are in int8
        w = dequantize_rows(q.weight, q.scale)
        m.weight[...] = w.T if m.by_columns else w
    return model


def _matrices(decoder: Decoder) -> list[Matrix]:
    inside = [m for layer in decoder.layers for m in (*layer.qkv, layer.out, *layer.up, layer.down)]
    return [decoder.embedding, *inside, decoder.head]


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


# ---- files ---------------------------------------------------------------------------------------


def unquantized_fields(fields: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """The fields of a ``config.json`` as before the weights were rounded; None if it is about
    another model.
    """
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
