"""Products that have a name."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor


def matmul(a: Any, b: Any) -> Tensor:
    """The product ``a @ b``: (..., M, K) times (..., K, N) gives (..., M, N)."""
    return (a if isinstance(a, Tensor) else Tensor(a)) @ b


def outer(a: Tensor, b: Tensor) -> Tensor:
    """Every product of an entry of a with one of b: (M,), (N,) -> (M, N)."""
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"outer: expected two vectors; got shapes {a.shape} and {b.shape}")
    return a.reshape(-1, 1) * b.reshape(1, -1)


def einsum(subscripts: str, *tensors: Any) -> Tensor:
    """Products and sums by letters: ``einsum("bij,bjk->bik", a, b)`` is a batch of matrix products.

    Each letter is an axis; letters that are missing on the right are summed over. The gradient of one factor is an
    einsum of dy with the other factors, with the letters of that factor on the right.
    Raises ValueError for a letter twice in one term, or "..." (write the axes out).
    """
    parts = [t if isinstance(t, Tensor) else Tensor(t) for t in tensors]
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:  # NumPy's rule: the letters that occur once, in the alphabet's order
        right = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
    if "..." in subscripts or any(len(set(term)) != len(term) for term in terms):
        raise ValueError(f"einsum: expected each letter at most once in a term, and no '...'; got {subscripts!r}")
    if len(terms) != len(parts):
        raise ValueError(f"einsum: {subscripts!r} has {len(terms)} terms; got {len(parts)} tensors")
    for term, t in zip(terms, parts, strict=True):
        if len(term) != t.ndim:
            raise ValueError(f"einsum: the term {term!r} has {len(term)} axes; got a tensor of shape {t.shape}")
    arrays = [t.data for t in parts]

    def backward(dy):
        gradients = []
        for i, (term, a) in enumerate(zip(terms, arrays, strict=True)):
            others = [(terms[j], arrays[j]) for j in range(len(terms)) if j != i]
            known = "".join(letter for letter in term if letter in right or any(letter in name for name, _ in others))
            rule = ",".join([right, *(name for name, _ in others)]) + "->" + known
            g = np.einsum(rule, dy, *(other for _, other in others), optimize=len(others) > 1)
            # a letter that only this term has was summed over: every entry along it gets the same gradient
            spread = g.reshape([n if letter in known else 1 for letter, n in zip(term, a.shape, strict=True)])
            gradients.append(np.broadcast_to(spread, a.shape))
        return gradients

    y = np.einsum(f"{left}->{right}", *arrays, optimize=len(arrays) > 2)
    return Tensor.from_op(np.asarray(y), tuple(parts), backward)
