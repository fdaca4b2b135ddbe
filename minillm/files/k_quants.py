"""K-quants as plain blocks: the codes of 256 weights stay, and their scales are multiplied out.

    Q4_K   256 weights: d, dmin, 8 times (6 bits a, 6 bits b), half bytes        w = d a code - dmin b
    Q5_K   the same, and the fifth bits of the codes
    Q6_K   256 weights: half bytes, two bits more each, 16 times 8 bits a, d     w = d a (code - 32)

In a file, a scale for 32 (in Q6_K 16) weights is a small number times one for all 256. Here each is
a float16 of its own, so that one loop reads all kinds of blocks (``kernels/decode/blocks.py``):

    Q4_K -> Q4_1   4.5 -> 5 bits a weight
    Q5_K -> Q5_1   5.5 -> 6
    Q6_K -> Q6     6.56 -> 7    32 weights: a scale for each 16, two bits of each code, half bytes

Codes are those of the file; a scale is rounded to 11 bits, a fiftieth of what rounding a weight to
4 bits has lost. The layouts: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h.
"""  # noqa: W505

from __future__ import annotations

from collections.abc import Callable

import numpy as np

__all__ = ["PLAIN", "plain_blocks"]

AT_A_TIME = 1 << 12  # blocks of 256 weights


def plain_blocks(blocks: np.ndarray, kind: str) -> tuple[np.ndarray, str]:
    """blocks: (rows, blocks of a row, bytes of a block) uint8 of a K-quant -> the bytes of plain
    blocks (rows, bytes of a row) uint8, and their kind.
    """
    name, size, convert = PLAIN[kind]
    flat = blocks.reshape(-1, blocks.shape[-1])
    plain = np.empty((len(flat), 8, size), np.uint8)
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged scale may be infinite
        for i in range(0, len(flat), AT_A_TIME):
            convert(flat[i : i + AT_A_TIME], plain[i : i + AT_A_TIME])
    return plain.reshape(len(blocks), -1), name


def _from_q4_k(blocks: np.ndarray, plain: np.ndarray) -> None:
    plain[..., :4] = _scales_and_minima(blocks)
    plain[..., 4:] = _halves(_codes_by_64(blocks[:, 16:]))


def _from_q5_k(blocks: np.ndarray, plain: np.ndarray) -> None:
    plain[..., :4] = _scales_and_minima(blocks)
    fifth = np.unpackbits(blocks[:, 16:48], axis=1, bitorder="little").reshape(-1, 32, 8)  # bit j: of weights j
    plain[..., 4:8] = np.packbits(fifth.swapaxes(1, 2), axis=2, bitorder="little")
    plain[..., 8:] = _halves(_codes_by_64(blocks[:, 48:]))


def _from_q6_k(blocks: np.ndarray, plain: np.ndarray) -> None:
    halves, twos = blocks[:, :128].reshape(-1, 2, 1, 64), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    low = np.concatenate([halves & 15, halves >> 4], axis=2).reshape(-1, 8, 32)  # codes without their two highest bits
    high = (twos >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3).reshape(-1, 8, 4, 8)  # those
    scales = blocks[:, 192:208].view(np.int8) * blocks[:, 208:].view("<f2").astype(np.float32)
    plain[..., :4] = scales.astype("<f2").view(np.uint8).reshape(-1, 8, 4)
    plain[..., 4:12] = (high << np.array([0, 2, 4, 6], np.uint8)[:, None]).sum(axis=2, dtype=np.uint8)
    plain[..., 12:] = _halves(low)


def _scales_and_minima(blocks: np.ndarray) -> np.ndarray:
    """(N, bytes of a block) -> (N, 8, 4) bytes, a float16 scale and a float16 minimum each."""
    d = blocks[:, :4].view("<f2").astype(np.float32)  # (N, 2): d, dmin
    a, b, rest = (blocks[:, i : i + 4] for i in (4, 8, 12))  # six bits in a or b, or four in rest and two in a or b
    scales = np.concatenate([a & 63, rest & 15 | a >> 6 << 4], axis=1)
    minima = np.concatenate([b & 63, rest >> 4 | b >> 6 << 4], axis=1)
    both = np.stack([d[:, :1] * scales, -d[:, 1:] * minima], axis=2)  # (N, 8, 2)
    return both.astype("<f2").view(np.uint8)


def _codes_by_64(halves: np.ndarray) -> np.ndarray:
    """(N, 128) half bytes, where byte j of 32 holds code j and code j + 32 -> codes (N, 8, 32)."""
    halves = halves.reshape(-1, 4, 1, 32)
    return np.concatenate([halves & 15, halves >> 4], axis=2).reshape(-1, 8, 32)


def _halves(codes: np.ndarray) -> np.ndarray:
    """Codes (..., 32) -> half bytes (..., 16), where byte j holds code j and code j + 16."""
    return codes[..., :16] | codes[..., 16:] << 4


PLAIN: dict[str, tuple[str, int, Callable[[np.ndarray, np.ndarray], None]]] = {  # kind -> its plain kind, bytes of one
    "Q4_K": ("Q4_1", 20, _from_q4_k),
    "Q5_K": ("Q5_1", 24, _from_q5_k),
    "Q6_K": ("Q6", 28, _from_q6_k),
}
