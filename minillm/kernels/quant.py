"""Weights in one byte: int8 numbers and a scale for each row of a matrix.

To write the next token, a model reads all its weights once, and hardly computes with them: the memory is the limit.
Weights of a quarter of the size are read in a quarter of the time.

    scale_n = max_c |w_nc| / 127,    code_nc = round(w_nc / scale_n) in -127 .. 127,    w_nc ~ code_nc scale_n

*The error.* Rounding to the nearest moves a weight by at most scale / 2, and evenly in between: its standard deviation
is scale / sqrt(12). Errors of different weights are independent, so those of a sum of C products add as noise does:

    error of x . w_n  ~  |x| scale_n / sqrt(12),    relative to |x| |w_n| / sqrt(C), the size of such a sum:
    scale_n sqrt(C) / (|w_n| sqrt(12))  =  (max |w| / rms w) / (127 sqrt(12))

For a bell curve of a thousand weights the largest is some 3.2 times the root of the mean square: 0.7 %. One weight that
sticks out makes its whole row coarse, but no other row: that is why each row has a scale of its own, and why it is the
rows, for a row is one output, and its scale can wait until the sum is there.

The activations stay float32. (Dettmers et al. 2022, https://arxiv.org/abs/2208.07339, tell what happens when they do
not.)
"""

from __future__ import annotations

import numpy as np

from ._jit import jit, kernel, prange

_BLOCK = 1 << 20  # numbers that are worked on at a time
_SERIAL = 1 << 14  # below so many numbers one thread is done before a second one has woken up
LARGEST = 127


def quantize_rows(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """w: (N, C) floats -> codes: (N, C) int8, scale: (N,) float32; a row of zeros gets the scale 0.

    >>> codes, scale = quantize_rows(np.array([[1.27, -0.5, 0.004]]))
    >>> codes, scale
    (array([[127, -50,   0]], dtype=int8), array([0.01], dtype=float32))
    """
    rows = max(1, _BLOCK // max(1, w.shape[1]))
    codes, scale = np.empty(w.shape, np.int8), np.empty(len(w), np.float32)
    for n in range(0, len(w), rows):
        block = w[n : n + rows]
        scale[n : n + rows] = np.abs(block).max(axis=1, initial=0) / LARGEST
        step = scale[n : n + rows, None]
        codes[n : n + rows] = np.rint(block / np.where(step > 0, step, 1))
    return codes, scale


def dequantize_rows_numpy(codes: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:
    """out_nc = code_nc scale_n.   codes: (N, C) int8, scale: (N,), out: (N, C) float32, filled."""
    np.multiply(codes, scale[:, None], out=out)


@jit(inner=True)
def dequantize_row(codes, scale, out):
    """w_j = scale q_j for one row (for kernels).   codes: (C,) int8, out: (C,)."""
    for j in range(codes.size):
        out[j] = np.float32(codes[j]) * scale


@jit(parallel=True)
def _dequantize(codes, scale, out):
    if codes.size < _SERIAL:
        for n in range(codes.shape[0]):
            dequantize_row(codes[n], scale[n], out[n])
    else:
        for n in prange(codes.shape[0]):
            dequantize_row(codes[n], scale[n], out[n])


@kernel(twin=dequantize_rows_numpy)
def dequantize_rows(codes: np.ndarray, scale: np.ndarray, out: np.ndarray) -> None:  # noqa: D103
    _dequantize(codes, scale, out)
