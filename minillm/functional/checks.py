"""Sentences for arguments that do not fit, before they reach a kernel, which checks nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor

Starts = np.ndarray | None  # (B,): the step at which each row of a batch begins; what is before is padding


def check_ids(name: str, ids: Any, vocabulary: int, what: str = "ids", ignore: int | None = None) -> np.ndarray:
    """``ids`` as an int64 array within [0, vocabulary), or a ValueError that shows the first that
    is not.
    """
    ids = np.asarray(ids.data if isinstance(ids, Tensor) else ids)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name}: {what} must be integers in [0, {vocabulary}); got {ids.dtype}")
    if ids.size == 0 or (ids.min() >= 0 and ids.max() < vocabulary):  # as a rule, and two quick looks
        return ids.astype(np.int64, copy=False)
    wrong = (ids < 0) | (ids >= vocabulary)
    if ignore is not None:
        wrong &= ids != ignore
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{name}: {what} must be integers in [0, {vocabulary}); got {ids[at]} at {at}")
    return ids.astype(np.int64, copy=False)


def check_gelu(name: str, approximate: str) -> None:
    """Refuse what is not one of the two forms of gelu."""
    if approximate not in ("tanh", "none"):
        raise ValueError(f"{name}: approximate must be 'tanh' or 'none'; got {approximate!r}")


def last_axis(name: str, x: Tensor) -> int:
    """The length of the last axis, or a ValueError for a single number, which has none."""
    if not isinstance(x, Tensor) or x.ndim == 0:
        raise ValueError(f"{name}: expected a Tensor with at least one axis; got {x!r}")
    return x.shape[-1]


def one_axis(name: str, x: Tensor, axis: Any, more: int = 0) -> int:
    """``axis`` of ``x`` (or of a result with ``more`` axes), counted from the front; or a
    ValueError.
    """
    ndim = x.ndim + more
    if not ndim:
        raise ValueError(f"{name}: expected a Tensor with at least one axis; got {x!r}")
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)) or not -ndim <= axis < ndim:
        of = "that the result will have" if more else f"of shape {x.shape}"
        raise ValueError(f"{name}: axis must be one of the {ndim} {of}; got {axis}")
    return int(axis) % ndim


def check_reduction(name: str, reduction: str) -> None:
    """Refuse what is not "mean", "sum" or "none"."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")


def check_starts(name: str, starts: Any, rows: int) -> Starts:
    """``starts`` as int64, one for each row of the batch, or None."""
    if starts is None:
        return None
    starts = np.asarray(starts)
    if starts.shape != (rows,) or starts.dtype.kind not in "iu":
        raise ValueError(
            f"{name}: starts must be (B,) = ({rows},) integers; got {starts.dtype} of shape {starts.shape}"
        )
    return starts.astype(np.int64)
