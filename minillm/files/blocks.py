"""Weights in blocks, as GGUF files store them: a few bits a weight, and a scale for each block.

    Q8_0   32 weights: scale, 32 bytes               w = scale code             code in -128 .. 127
    Q4_0   32 weights: scale, 32 half bytes          w = scale (code - 8)       code in 0 .. 15
    Q4_1   32 weights: scale, minimum, half bytes    w = scale code + minimum
    Q5_0   32 weights: scale, 32 bits, half bytes    w = scale (code - 16)      the bits are the fifth of each code
    Q5_1   32 weights: scale, minimum, 32 bits, half bytes

Scales and minima are float16. Byte j holds code j in its lower and code j + 16 in its upper half.

One scale for a whole row must be coarse enough for its largest weight; one for 32 weights only for
theirs, for half a bit a weight more. The others (K-quants: blocks of 256 with scales of blocks of
their own) are read by the ``gguf`` package of llama.cpp's authors. The layouts:
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h.
"""  # noqa: W505

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np

BLOCK = 1 << 16  # weights that are worked on at a time


class Kind(NamedTuple):
    """A kind of numbers: so many weights in so many bytes."""

    name: str
    weights: int
    bytes: int

    def bytes_of(self, count: int) -> int:
        """The bytes of so many weights."""
        return count // self.weights * self.bytes


KINDS = {  # by their numbers in the file
    0: Kind("F32", 1, 4), 1: Kind("F16", 1, 2), 30: Kind("BF16", 1, 2), 28: Kind("F64", 1, 8),
    8: Kind("Q8_0", 32, 34), 2: Kind("Q4_0", 32, 18), 3: Kind("Q4_1", 32, 20), 6: Kind("Q5_0", 32, 22),
    7: Kind("Q5_1", 32, 24),
    10: Kind("Q2_K", 256, 84), 11: Kind("Q3_K", 256, 110), 12: Kind("Q4_K", 256, 144), 13: Kind("Q5_K", 256, 176),
    14: Kind("Q6_K", 256, 210), 20: Kind("IQ4_NL", 32, 18), 23: Kind("IQ4_XS", 256, 136),
}  # fmt: skip

_HALVES = ("codes", "u1", 16)
_LAYOUTS: dict[str, np.dtype] = {
    "Q8_0": np.dtype([("scale", "<f2"), ("codes", "i1", 32)]),
    "Q4_0": np.dtype([("scale", "<f2"), _HALVES]),
    "Q4_1": np.dtype([("scale", "<f2"), ("minimum", "<f2"), _HALVES]),
    "Q5_0": np.dtype([("scale", "<f2"), ("fifth", "u1", 4), _HALVES]),
    "Q5_1": np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("fifth", "u1", 4), _HALVES]),
}
_ZERO = {"Q4_0": 8, "Q5_0": 16}  # the code that stands for 0, where there is no minimum
_FLOATS = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}


def dequantize(blocks: np.ndarray, kind: Kind) -> np.ndarray:
    """blocks: (..., blocks of a row, bytes of a block) uint8 -> (..., weights of a row) float32.

    Raises ValueError for a kind that is read by the ``gguf`` package where that is not installed.

    >>> block = np.array([[0x00, 0x3C, *[0xA1] * 16]], np.uint8)  # scale 1, codes 1 and 10
    >>> dequantize(block, Kind("Q4_0", 32, 18))[[0, 15, 16, 31]]
    array([-7., -7.,  2.,  2.], dtype=float32)
    """
    shape = *blocks.shape[:-2], blocks.shape[-2] * kind.weights
    if kind.name == "F32":
        values = blocks.reshape(-1).view("<f4")
        return (values if values.flags.aligned else values.copy()).reshape(shape)
    flat = blocks.reshape(-1, kind.bytes)
    weights = np.empty((len(flat), kind.weights), np.float32)
    step = max(1, BLOCK // kind.weights)
    with np.errstate(invalid="ignore", over="ignore"):  # a damaged scale may be infinite
        for i in range(0, len(flat), step):
            _fill(weights[i : i + step], flat[i : i + step], kind)
    return weights.reshape(shape)


def _fill(w: np.ndarray, blocks: np.ndarray, kind: Kind) -> None:
    """w: (N, weights of a block), blocks: (N, bytes of a block)."""
    if kind.name in _FLOATS:
        w[:] = blocks.view(_FLOATS[kind.name])
    elif kind.name == "BF16":  # the upper half of a float32
        w[:] = (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)
    elif kind.name not in _LAYOUTS:
        w[:] = _by_package(blocks, kind)
    else:
        fields = blocks.view(_LAYOUTS[kind.name])[:, 0]
        names, codes = fields.dtype.names or (), fields["codes"]
        if kind.name == "Q8_0":
            w[:] = codes
        else:
            w[:, :16], w[:, 16:] = codes & 15, codes >> 4
        if "fifth" in names:
            w += 16 * np.unpackbits(fields["fifth"], axis=1, bitorder="little")
        if kind.name in _ZERO:
            w -= _ZERO[kind.name]
        w *= fields["scale"][:, None]
        if "minimum" in names:
            w += fields["minimum"][:, None]


def _by_package(blocks: np.ndarray, kind: Kind) -> np.ndarray:
    try:
        gguf: Any = importlib.import_module("gguf")
    except ImportError:
        raise ValueError(
            f"weights of the kind {kind.name} are read by the package gguf: pip install gguf"
        ) from None
    return gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind.name])


def quantize(weights: np.ndarray, kind: Kind) -> np.ndarray:
    """(..., weights of a row) floats -> the bytes of their blocks, (..., bytes) uint8.

    kind: F32, F16 or Q8_0; scale = max |w| / 127, code = w / scale to the nearest, halves away from
    zero, as llama.cpp rounds.
    """
    if kind.name in _FLOATS:
        return np.ascontiguousarray(weights, _FLOATS[kind.name]).view(np.uint8)
    assert kind.name == "Q8_0"
    w = np.asarray(weights, np.float32).reshape(-1, 32)
    scale = np.abs(w).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        per_scale = np.where(scale > 0, 1 / scale, 0).astype(np.float32)
    exact = w * per_scale
    blocks = np.empty((len(w), 1), _LAYOUTS["Q8_0"])
    blocks["codes"] = np.trunc(exact + np.copysign(np.float32(0.5), exact))[:, None]
    blocks["scale"] = scale
    return blocks.view(np.uint8).reshape(*weights.shape[:-1], -1)
