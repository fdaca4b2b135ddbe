"""How wrong a prediction is, as a single number that training makes smaller."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ..autograd.shapes import floats
from ..autograd.targets import IGNORE
from ..kernels import compiled
from ..tensor import Tensor, operand
from .activations import softplus
from .checks import check_ids, check_reduction, last_axis
from .elementwise import abs, log, where
from .shaping import gather


def cross_entropy(
    logits: Tensor,
    targets: Any,
    ignore_index: int = IGNORE,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """How surprised the model is by what really came: -log of the probability it gave to each
    target, in nats.

    logits: (..., V), targets: (...) integers in [0, V) or ``ignore_index`` -> one number (mean over
    the counted targets, or sum), or (...) for reduction "none".
    l = log sum_j exp(z_j) - z_t;
    dz = softmax(z) - onehot(t): each score goes down by the probability it got, and the target's
    goes up by 1. With label_smoothing e the target keeps 1 - e, and e is spread evenly over all V.
    Raises ValueError for targets out of range, of the wrong shape, or when none counts.
    """
    V = last_axis("cross_entropy", logits)
    targets = check_ids("cross_entropy", targets, V, "targets", ignore_index)
    if targets.shape != logits.shape[:-1]:
        raise ValueError(
            f"cross_entropy: targets must have the shape of logits without its last axis, {logits.shape[:-1]}; "
            f"got {targets.shape}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1]; got {label_smoothing}")
    check_reduction("cross_entropy", reduction)
    z, t = floats(logits).reshape(targets.size, V), targets.reshape(-1)
    losses, lse = cross_entropy_forward(z, t, ignore_index, label_smoothing)  # (N,), (N,)
    count = int((t != ignore_index).sum())
    if reduction == "mean" and count == 0:
        raise ValueError(f"cross_entropy: every target is ignore_index ({ignore_index}); the mean of none is undefined")
    shape = logits.shape

    def backward(dl):
        if reduction == "none":
            dlosses = np.ascontiguousarray(dl).reshape(-1)
        else:
            dlosses = np.full(t.shape, dl / count if reduction == "mean" else dl, dtype=z.dtype)
        dz = cross_entropy_backward(dlosses, z, t, lse, ignore_index, label_smoothing)
        return (dz.reshape(shape),)

    if reduction == "none":
        return Tensor.from_op(losses.reshape(targets.shape), (logits,), backward)
    total = losses.sum(dtype=np.float64)  # thousands of terms: the sum in double precision
    return Tensor.from_op(np.asarray(total / (count if reduction == "mean" else 1), z.dtype), (logits,), backward)


@compiled("softmax")
def cross_entropy_forward(
    logits: np.ndarray, targets: np.ndarray, ignore_index: int, label_smoothing: float
) -> tuple[np.ndarray, np.ndarray]:
    """(N, V), (N,) -> losses (N,), 0 where ignored, and lse (N,) = log sum_j e^z_j, which the
    backward needs.
    """
    kept = targets != ignore_index
    top = logits.max(axis=-1)
    z = logits - top[:, None]  # as softmax: nothing overflows
    log_sum = np.log(np.exp(z).sum(axis=-1))
    losses = log_sum - z[np.arange(len(z)), np.where(kept, targets, 0)]
    if label_smoothing > 0:
        losses = (1 - label_smoothing) * losses + label_smoothing * (log_sum - z.mean(axis=-1))
    return np.where(kept, losses, 0), top + log_sum


@compiled("softmax")
def cross_entropy_backward(
    dlosses: np.ndarray,
    logits: np.ndarray,
    targets: np.ndarray,
    lse: np.ndarray,
    ignore_index: int,
    label_smoothing: float,
) -> np.ndarray:
    """What the model believed minus what it should have believed:  dz = dl (softmax(z) - (1 - e)
    onehot(t) - e / V).
    """
    kept = targets != ignore_index
    dz = np.exp(logits - lse[:, None]) - label_smoothing / logits.shape[1]
    dz[np.arange(len(dz)), np.where(kept, targets, 0)] -= 1 - label_smoothing
    return np.where(kept[:, None], dlosses[:, None] * dz, 0)


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of all losses, or the losses themselves."""
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses


def _difference(name: str, prediction: Tensor, target: Any) -> Tensor:
    """prediction - target, with a warning when they only fit by broadcasting: (N, 1) and (N,) make
    (N, N) losses.
    """
    target = operand(target, prediction)
    if target.ndim and target.shape != prediction.shape:
        warnings.warn(
            f"{name}: prediction {prediction.shape} and target {target.shape} are broadcast to one shape; "
            "reshape one of them if that is not meant",
            stacklevel=4,  # of mse_loss(...), which is called by way of torch_arguments
        )
    return prediction - target


def mse_loss(prediction: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """l = (prediction - target)^2, then the mean of all (or sum, or none);
    dl/dprediction = 2 (prediction - target).

    prediction, target: (...) -> one number, or (...) for reduction "none".
    """
    check_reduction("mse_loss", reduction)
    difference = _difference("mse_loss", prediction, target)
    return reduced(difference * difference, reduction)


def nll_loss(log_probabilities: Tensor, targets: Any, ignore_index: int = IGNORE, reduction: str = "mean") -> Tensor:
    """l = -log_probabilities[target]: cross-entropy after a ``log_softmax`` of one's own.

    log_probabilities: (..., V), targets: (...) -> one number, or (...) for reduction "none".
    Its gradient is -1 at each target, 0 elsewhere.
    """
    check_reduction("nll_loss", reduction)
    V = last_axis("nll_loss", log_probabilities)
    t = check_ids("nll_loss", targets, V, "targets", ignore_index)
    if t.shape != log_probabilities.shape[:-1]:
        raise ValueError(f"nll_loss: targets must have the shape {log_probabilities.shape[:-1]}; got {t.shape}")
    counted = t != ignore_index
    if reduction == "mean" and not counted.any():
        raise ValueError(f"nll_loss: every target is ignore_index ({ignore_index}); the mean of none is undefined")
    chosen = gather(log_probabilities, np.where(counted, t, 0)[..., None])
    losses = where(counted, -chosen.reshape(t.shape), 0.0)
    return losses.sum() / float(counted.sum()) if reduction == "mean" else reduced(losses, reduction)


def l1_loss(prediction: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """l = |prediction - target|, then the mean of all (or sum, or none);
    dl/dprediction = its sign, 1 or -1.

    prediction, target: (...) -> one number, or (...) for reduction "none".
    """
    check_reduction("l1_loss", reduction)
    return reduced(abs(_difference("l1_loss", prediction, target)), reduction)


def huber_loss(prediction: Tensor, target: Any, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """l = d^2 / 2 while |d| <= delta, then delta (|d| - delta / 2): far-off points pull no harder
    (Huber 1964).

    prediction, target: (...) -> one number, or (...) for reduction "none".
    d = prediction - target;   dl/dd = d, clipped to [-delta, delta].
    """
    check_reduction("huber_loss", reduction)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive; got {delta}")
    distance = abs(_difference("huber_loss", prediction, target))
    # both pieces are p (|d| - p / 2), p = min(|d|, delta); p is also the slope dl / d|d|, and may
    # stand as a constant
    pull = np.minimum(floats(distance), float(delta))
    return reduced((distance - pull / 2) * pull, reduction)


def binary_cross_entropy_with_logits(logits: Tensor, targets: Any, reduction: str = "mean") -> Tensor:
    """l = -(t ln p + (1 - t) ln(1 - p)), p = sigmoid(z), computed as softplus(z) - t z;
    dl/dz = p - t.

    logits z, targets t in [0, 1]: (...) -> one number (mean or sum), or (...) for reduction "none".
    """
    check_reduction("binary_cross_entropy_with_logits", reduction)
    t = operand(targets, logits)
    if t.ndim and t.shape != logits.shape:
        raise ValueError(
            f"binary_cross_entropy_with_logits: targets must have the shape of logits, {logits.shape}; got {t.shape}"
        )
    return reduced(softplus(logits) - logits * t, reduction)


def kl_div(log_q: Tensor, p: Any, reduction: str = "mean") -> Tensor:
    """KL(p || q) = sum p (ln p - ln q), p given as probabilities, q as their logarithms; 0 ln 0 =
    0, p < 0 gives NaN.

    log_q, p: (..., V) -> one number, or (..., V) for reduction "none";
    dlog_q = -p,  dp = ln p - log_q + 1.
    reduction: "mean" over the rows (torch's "batchmean" for two axes), "sum", or "none" per entry.
    """
    check_reduction("kl_div", reduction)
    last_axis("kl_div", log_q)
    p = operand(p, log_q)
    entropy = where(p.data == 0, 0.0, p * log(where(p.data == 0, 1.0, p)))
    losses = entropy - p * log_q
    rows = math.prod(log_q.shape[:-1])
    return losses.sum() / rows if reduction == "mean" else reduced(losses, reduction)
