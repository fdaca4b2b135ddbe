"""Products that have a name."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import Any

import numpy as np

from ..tensor import Tensor
from .shaping import common_dtype


def matmul(a: Any, b: Any) -> Tensor:
    """y = a b, each entry a row of a times a column of b;   da = dy b^T,  db = a^T dy.

    a: (..., M, K), b: (..., K, N) -> (..., M, N). A vector on the left is a row, on the right a
    column.
    """
    return (a if isinstance(a, Tensor) else Tensor(a)) @ b


def outer(a: Tensor, b: Tensor) -> Tensor:
    """y_ij = a_i b_j;   da_i = sum_j dy_ij b_j,  db_j = sum_i dy_ij a_i.
    a: (M,), b: (N,) -> (M, N)
    """
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"outer: expected two vectors; got shapes {a.shape} and {b.shape}")
    return a.reshape(-1, 1) * b.reshape(1, -1)


def einsum(subscripts: str, *tensors: Any) -> Tensor:
    """Products and sums by letters: ``einsum("bij,bjk->bik", a, b)`` is a batch of matrix products.

    Each letter is an axis; letters that are missing on the right are summed over. Without an arrow
    the right side has the letters that occur once, in the alphabet's order. A letter twice in one
    term takes the diagonal; "..." stands for axes that are not spelled out, and broadcast.
    tensors: one shape per term -> the shape of the right side. "ij,jk->ik": y_ik = sum_j a_ij b_jk.
    The gradient of one factor is an einsum of dy with the other factors, with the letters of that
    factor on the right: there da = einsum("ik,jk->ij", dy, b), db = einsum("ik,ij->jk", dy, a).
    Integers and booleans beside floats become floats of that width; a sum over booleans counts
    them.
    Raises ValueError for terms that do not fit the tensors.
    """
    parts = tuple(t if isinstance(t, Tensor) else Tensor(t) for t in tensors)
    shapes = [t.shape for t in parts]
    spelled, right = _spelled_out(subscripts, shapes)
    terms = ["".join(dict.fromkeys(term)) for term in spelled]  # each letter once
    dtype = common_dtype(parts)
    if dtype.kind == "b" and set("".join(terms)) - set(right):
        dtype = np.dtype(np.int64)  # a sum of booleans counts them, as ``Tensor.sum`` does
    views = [_diagonal(s, term, t.data) for s, term, t in zip(spelled, terms, parts, strict=True)]
    arrays = [a.astype(dtype, copy=False) for a in views]

    def backward(dy):
        gradients = []
        for i, (term, a) in enumerate(zip(terms, arrays, strict=True)):
            others = [(terms[j], arrays[j]) for j in range(len(terms)) if j != i]
            elsewhere = right + "".join(name for name, _ in others)
            known = [letter for letter, n in zip(term, a.shape, strict=True) if letter in elsewhere and n != 1]
            back = ",".join([right, *(name for name, _ in others)])
            g = _einsum(back, "".join(known), [dy, *(other for _, other in others)])
            # along a letter that only this term has, all entries get the same; one of length 1 was
            # stretched, its sum
            spread = np.expand_dims(g, tuple(k for k, letter in enumerate(term) if letter not in known))
            dx = np.zeros(shapes[i], dy.dtype)
            _diagonal(spelled[i], term, dx)[...] = spread
            gradients.append(dx)
        return gradients

    return Tensor.from_op(_einsum(",".join(terms), right, arrays), parts, backward)


def _einsum(left: str, right: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
    """A new array by ``np.einsum``; sums of float32 numbers are taken in float64."""
    dtype = arrays[0].dtype
    if dtype == np.float32 and set(left) - {",", *right}:
        arrays = [a.astype(np.float64) for a in arrays]
    return np.array(np.einsum(f"{left}->{right}", *arrays, optimize=len(arrays) > 2), dtype)


def _diagonal(spelled: str, term: str, a: np.ndarray) -> np.ndarray:
    """A view of ``a`` in which each letter has one axis: the diagonal, where it stands twice."""
    return a if spelled == term else np.einsum(f"{spelled}->{term}", a)


def _spelled_out(subscripts: str, shapes: Sequence[tuple[int, ...]]) -> tuple[list[str], str]:
    """The terms on the left and the right side, with letters instead of "..." and of what was left
    unsaid.
    """
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(f"einsum: {subscripts!r} has {len(terms)} terms; got {len(shapes)} tensors")
    unused = [letter for letter in ascii_letters if letter not in subscripts]
    most, spelled = "", []
    for term, shape in zip(terms, shapes, strict=True):
        n = len(shape) - len(term.replace("...", ""))  # how many axes the dots stand for; the last ones match
        if n < 0 or (n and "..." not in term):
            raise ValueError(f"einsum: the term {term!r} has {len(term)} axes; got a tensor of shape {shape}")
        dots = "".join(reversed(unused[:n]))
        most = max(most, dots, key=len)
        spelled.append(term.replace("...", dots))
    once = "".join(sorted(letter for letter in left if letter.isalpha() and left.count(letter) == 1))
    right = right.replace("...", most) if arrow else most + once
    return spelled, right
