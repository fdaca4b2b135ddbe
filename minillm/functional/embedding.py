"""From a token's number to a vector, and how its position turns queries and keys."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.shapes import floats
from ..kernels import compiled
from ..tensor import Tensor
from .checks import check_ids


def embedding(weight: Tensor, ids: Any) -> Tensor:
    """Look up a row for each id: a linear layer whose input is one-hot, without the multiplications
    by zero.

    weight: (V, C), ids: (...) integers -> y: (..., C).
    y = weight[id];   dweight[id] += dy: an id that occurs twice gets the sum of both gradients.
    Raises ValueError for ids that are not integers in [0, V).
    """
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ValueError(f"embedding: weight must be a Tensor (V, C), and stand before the ids; got {weight!r}")
    ids = check_ids("embedding", ids, len(weight))
    V = len(weight)

    def backward(dy):
        return (embedding_backward(dy, ids, V),)

    return Tensor.from_op(weight.data.take(ids, axis=0), (weight,), backward)


@compiled("embedding")
def embedding_backward(dy: np.ndarray, ids: np.ndarray, vocabulary: int) -> np.ndarray:
    """dy: (..., C), ids: (...) -> dweight: (V, C)."""
    dweight = np.zeros((vocabulary, dy.shape[-1]))  # in float64: a frequent token's sum is long
    np.add.at(dweight, ids, dy)
    return dweight.astype(dy.dtype)


def rotary_embedding(x: Tensor, cos: np.ndarray, sin: np.ndarray) -> Tensor:
    """Turn each pair of features by an angle that grows with the position (Su et al. 2021).

    x: (B, H, T, D), cos, sin: (T, D / 2) or (B, T, D / 2) -> (B, H, T, D); feature i is paired with
    i + D / 2.
    (y1, y2) = (x1 cos - x2 sin, x2 cos + x1 sin)
    (dx1, dx2) = (dy1 cos + dy2 sin, dy2 cos - dy1 sin), turned back
    A rotation of q by t and of k by s leaves q . k depending on t - s alone: attention sees
    distances.
    """
    if x.ndim < 2:
        raise ValueError(f"rotary_embedding: x must be (B, H, T, D); got shape {x.shape}")
    a = floats(x)
    half = x.shape[-1] // 2
    cos, sin = (np.asarray(table, dtype=a.dtype) for table in (cos, sin))
    if x.shape[-1] % 2 or cos.shape[-2:] != (x.shape[-2], half) or cos.shape != sin.shape:
        raise ValueError(
            f"rotary_embedding: cos and sin must be (T, D / 2) = {(x.shape[-2], half)} for x {x.shape} (D even); "
            f"got {cos.shape} and {sin.shape}"
        )

    def backward(dy):
        return (rotate(dy, cos, -sin),)

    return Tensor.from_op(rotate(a, cos, sin), (x,), backward)


@compiled("embedding")
def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """x turned, that is y; called with ``dy`` and ``-sin``, it gives dx."""
    if cos.ndim == 3:  # rows that begin at different positions: for all heads alike
        cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, D / 2)
    x1, x2 = np.split(x, 2, axis=-1)
    return np.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1)
