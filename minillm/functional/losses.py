"""How wrong a prediction is, as one number to go down on."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import kernels
from ..tensor import Tensor, operand
from .layers import check_ids

IGNORE = -100  # a target that does not count: padding, or another speaker's words


def cross_entropy(
    logits: Tensor,
    targets: Any,
    ignore_index: int = IGNORE,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """How surprised the model is by what really came: -log of the probability it gave to each target, in nats.

    logits: (..., V), targets: (...) integers in [0, V) or ``ignore_index`` -> one number (mean over the counted
    targets, or sum), or (...) for reduction "none".
    l = log sum_j exp(z_j) - z_t;   dz = softmax(z) - onehot(t): each score goes down by the probability it got, and the
    target's goes up by 1. With label_smoothing e the target keeps 1 - e, and e is spread evenly over all V.
    Raises ValueError for targets out of range, of the wrong shape, or when none counts.
    """
    V = logits.shape[-1]
    targets = check_ids("cross_entropy", targets, V, "targets", ignore_index)
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy: targets must have the shape of logits without its last axis, {logits.shape[:-1]}; "
            f"got {targets.shape}"
        )
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1); got {label_smoothing}")
    check_reduction("cross_entropy", reduction)
    z, t = logits.data.reshape(-1, V), targets.reshape(-1)
    losses, lse = kernels.cross_entropy_forward(z, t, ignore_index, label_smoothing)  # (N,), (N,)
    count = int((t != ignore_index).sum())
    if reduction == "mean" and count == 0:
        raise ValueError(f"cross_entropy: every target is ignore_index ({ignore_index}); the mean of none is undefined")
    shape = logits.shape

    def backward(dl):
        if reduction == "none":
            dlosses = np.ascontiguousarray(dl).reshape(-1)
        else:
            dlosses = np.full(t.shape, dl / count if reduction == "mean" else dl, dtype=z.dtype)
        dz = kernels.cross_entropy_backward(dlosses, z, t, lse, ignore_index, label_smoothing)
        return (dz.reshape(shape),)

    if reduction == "none":
        return Tensor.from_op(losses.reshape(targets.shape), (logits,), backward)
    total = losses.sum(dtype=np.float64)  # thousands of terms: the sum in double precision
    return Tensor.from_op(np.asarray(total / (count if reduction == "mean" else 1), z.dtype), (logits,), backward)


def check_reduction(name: str, reduction: str) -> None:
    """Refuse what is not "mean", "sum" or "none"."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of all losses, or the losses themselves."""
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def mse_loss(prediction: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """l = (prediction - target)^2, entry by entry, then its mean (or sum, or none)."""
    check_reduction("mse_loss", reduction)
    difference = prediction - operand(target, prediction)
    return reduced(difference * difference, reduction)
