"""A model as a table of memory addresses, through which one compiled loop runs.

A line for each layer: norm_1, qkv (up to three matrices), out, norm_2, up (up to two), down. In the
last line norm_1 is the last norm, the first matrix the head and the second one the embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..layout import address

if TYPE_CHECKING:
    from . import Decoder, Matrix

NORM_1, QKV, OUT, NORM_2, UP, DOWN, LINE = 0, 2, 17, 22, 24, 34, 39
SWIGLU, GELU, GELU_EXACT = range(3)  # activations

# An entry is a matrix: its kind, the addresses of its weights, scales and biases (0: there are
# none), its outputs.

KIND, WEIGHT, SCALE, BIAS, OUTPUTS = range(5)
FIELDS = 5
BY_ROWS, BY_COLUMNS, INT8, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q6 = range(9)  # kinds; from Q8_0 on: blocks, see blocks.py
BLOCKS = {"Q8_0": Q8_0, "Q4_0": Q4_0, "Q4_1": Q4_1, "Q5_0": Q5_0, "Q5_1": Q5_1, "Q6": Q6}


def _address(array: np.ndarray | None, dtype: Any = np.float32) -> int:
    if array is None:
        return 0
    if array.dtype != dtype or not (array.flags.c_contiguous and array.flags.aligned):
        raise ValueError(f"decoding: expected contiguous arrays of {np.dtype(dtype)}; got {array.dtype}")
    return address(array)


def _matrix_fields(matrices: tuple[Matrix, ...], room: int) -> list[int]:
    fields: list[int] = []
    for weight, bias, scale, by_columns, blocks in matrices:
        kind = BLOCKS[blocks] if blocks else BY_COLUMNS if by_columns else BY_ROWS if scale is None else INT8
        at = _address(weight, np.uint8 if blocks else np.int8 if kind == INT8 else np.float32)
        fields += [kind, at, _address(scale), _address(bias), weight.shape[1 if by_columns else 0]]
    return fields + [0] * (FIELDS * room - len(fields))


def addresses(decoder: Decoder) -> np.ndarray:
    """The table of a model: (layers + 1, LINE) int64. It is good for as long as the decoder holds
    the arrays.
    """
    lines = []
    for norm_1, qkv, out, norm_2, up, down in decoder.layers:
        line = [*map(_address, norm_1), *_matrix_fields(qkv, 3), *_matrix_fields((out,), 1)]
        lines.append([*line, *map(_address, norm_2), *_matrix_fields(up, 2), *_matrix_fields((down,), 1)])
    last = [*map(_address, decoder.norm), *_matrix_fields((decoder.head, decoder.embedding), 3)]
    return np.array([*lines, last + [0] * (LINE - len(last))], np.int64)
