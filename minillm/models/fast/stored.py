"""A Llama whose matrices stay as a GGUF file stores them: in blocks of 32 weights, four to eight
bits each.

    model = from_pretrained("model.gguf", stored=True)

The compiled loops read the blocks where they lie in the mapped file: nothing is made of them first,
so that the model is there at once, and takes no more memory than the file. To write a token, all
weights are read once; what is a fifth of the size is read that much faster. It computes what the
de-quantised model computes, for the activations stay float32.

K-quants become plain blocks when they are opened, with the same codes and a tenth more memory (see
``files/k_quants.py``); kinds that the loops do not know are put into Q8_0. Vectors, and matrices of
floats, are float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import kernels
from ...files.blocks import KINDS, quantize
from ...files.k_quants import PLAIN, plain_blocks
from ..base import LanguageModel
from .arrays import arrays_of
from .decoding import lists
from .int8 import rebuilt
from .listed import ListedModel

if TYPE_CHECKING:
    from ...kernels.decode import Decoder, Matrix

READ_AS_THEY_ARE = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
FLOATS = ("F32", "F16", "BF16", "F64")
Q8_0 = next(kind for kind in KINDS.values() if kind.name == "Q8_0")


def kind_in_memory(kind: str) -> str:
    """As what a kind of numbers of a file is read by the compiled loops."""
    if kind in FLOATS:
        return "F32"
    return kind if kind in READ_AS_THEY_ARE else PLAIN[kind][0] if kind in PLAIN else Q8_0.name


class StoredModel(ListedModel):
    """``model(ids) -> logits``, with matrices in the blocks of a file; made by ``from_pretrained``.
    """

    why_not = "blocks cannot be trained; open the file without stored=True to train it in float32"

    def __init__(
        self, config: Any, context: int | None, arrays: Decoder, load: Callable[[], Any], sizes: Mapping[str, int]
    ) -> None:
        super().__init__(config, context, arrays, functools.cache(load))
        self.sizes = sizes  # how many numbers each parameter has, by its name

    def num_parameters(self) -> int:
        """How many numbers were learned."""
        return sum(self.sizes.values())

    @property
    def nbytes(self) -> int:
        """The bytes of its arrays, whether they lie in the mapped file or were made of it."""
        found: dict[int, int] = {}

        def matrix(m: Matrix) -> Matrix:
            array(m.weight)
            array(m.bias)
            return m

        def array(a: np.ndarray | None) -> np.ndarray | None:
            if a is not None:
                found[id(a)] = a.nbytes
            return a

        rebuilt(self.arrays, matrix, array)
        return sum(found.values())

    def state_dict(self) -> dict[str, np.ndarray]:
        """The parameters in float32, by name."""
        return self.dequantized().state_dict()


@lists(StoredModel)
def stored_arrays(model: StoredModel) -> Decoder:
    """The arrays of the model."""
    return model.arrays


def stored_model(model: LanguageModel, stored: Mapping[str, Any], load: Callable[[], Any]) -> StoredModel | None:
    """The model with its matrices in stored blocks; None where the compiled loops do not know its
    layers, or no matrix is in blocks.

    model: says which parameter goes where; its values are not looked at. stored: what the file
    holds, by the names of the parameters. load: opens the same model in float32.
    """
    arrays = arrays_of(model)
    if arrays is None or all(tensor.dtype in FLOATS for tensor in stored.values()):
        return None
    names = {id(parameter.data): name for name, parameter in model.named_parameters()}

    @functools.cache
    def blocks(name: str) -> tuple[np.ndarray, str]:
        tensor = stored[name]
        if tensor.dtype in FLOATS:
            return np.ascontiguousarray(tensor.read(), np.float32), ""
        if tensor.dtype in READ_AS_THEY_ARE:
            return tensor.blocks().reshape(tensor.shape[0], -1), tensor.dtype
        if tensor.dtype in PLAIN:
            return plain_blocks(tensor.blocks(), tensor.dtype)
        return quantize(tensor.read(), Q8_0), Q8_0.name

    def matrix(m: Matrix) -> Matrix:
        weight, kind = blocks(names[id(m.weight)])
        return kernels.Matrix(weight, array(m.bias), blocks=kind)

    def array(a: np.ndarray | None) -> np.ndarray | None:
        return None if a is None else np.array(stored[names[id(a)]].read(), np.float32)

    rows = rebuilt(arrays, matrix, array)
    sizes = {name: parameter.size for name, parameter in model.named_parameters()}
    return StoredModel(model.config, model.context, rows, load, sizes)
