"""Optimisers: from gradients to better parameters.

A gradient says in which direction the loss grows, for the smallest of steps. An optimiser decides
how far to go the other way. `SGD` takes the gradient as it is; `AdamW` gives every single weight a
step size of its own; `Muon` gives a matrix the same step in every direction.

The loop around it is always the same, here with one weight that should become 3:

>>> from minillm import Tensor
>>> w = Tensor([0.0], requires_grad=True)
>>> optimizer = SGD([w], lr=0.25)
>>> for _ in range(20):
...     loss = ((w - 3.0) ** 2).sum()
...     loss.backward()                     # w.grad = d loss / d w = 2 (w - 3)
...     optimizer.step()                    # w <- w - lr w.grad
...     optimizer.zero_grad()               # gradients add: the next one would be piled on top
>>> round(w.item(), 3)
3.0
"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .autograd.torch_words import OPTIM, OPTIMIZER, sentence, torch_arguments
from .kernels import compiled
from .tensor import Tensor, product

__all__ = [
    "SGD",
    "AdamW",
    "Muon",
    "Optimizer",
    "Schedule",
    "clip_grad_norm",
    "constant",
    "decay_groups",
    "warmup_cosine",
    "wsd",
]

Group = dict[str, Any]  # {"params": iterable of Tensor, "weight_decay": float, "lr": float}, the last two if wanted


class Optimizer:
    """What optimisers share: the parameters, the learning rate, `zero_grad`, and a state that can
    be saved.

    params: tensors with ``requires_grad``, or groups ``{"params": ..., "lr": ..., "weight_decay":
    ...}`` of them. ``lr`` may be set at any time, as schedules do; a group that was given a tenth
    of it keeps to a tenth. Raises ValueError when there is no parameter, or one is given twice.
    """

    _averages: tuple[str, ...] = ()  # attributes with one number per weight, kept between steps

    def __init__(self, params: Iterable[Tensor] | Iterable[Group], lr: float, weight_decay: float) -> None:
        name = type(self).__name__
        self.lr = _within(name, "lr", lr, 0.0)
        settings = _settings(name, params, self.lr, weight_decay)
        self.params, self.lr_scales, self.weight_decays = map(list, zip(*settings, strict=True))
        self.steps = [0] * len(self.params)  # that each parameter has made: none without a gradient
        self._rows = _InOneArray(self.params)

    @property
    def flat(self) -> np.ndarray:
        """All parameters as one array, of which each ``p.data`` is a part."""
        return self._rows.flat

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(sentence(type(self).__name__, name, OPTIMIZER), name=name, obj=self)

    @torch_arguments
    def zero_grad(self) -> None:
        """Forget all gradients: the next `backward()` begins from nothing instead of adding to
        them.
        """
        for p in self.params:
            p.grad = None

    def step(self) -> None:
        """Change every parameter that has a gradient. Raises ValueError, and changes none, where a
        gradient has another shape than its parameter.
        """
        for i, p in enumerate(self.params):
            if p.grad is not None and p.grad.shape != p.shape:
                raise ValueError(
                    f"{type(self).__name__}.step: parameter {i} has shape {p.shape}, and its gradient {p.grad.shape}"
                )
        self._rows.take_in()
        for i, p in enumerate(self.params):
            self.steps[i] += p.grad is not None
        for where, first, grads in self._rows.with_gradients(self.lr_scales, self.weight_decays, self.steps):
            lr = self.lr * self.lr_scales[first]
            self._update(where, grads, lr, self.weight_decays[first], self.steps[first])
        for p in self.params:
            p.mark_changed()

    def _update(self, where: slice, grads: list[np.ndarray], lr: float, weight_decay: float, step: int) -> None:
        """Change ``flat[where]``, whose gradients these are; ``step`` counts from 1."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on beside the parameters: name -> array (views, not
        copies).
        """
        state = {"lr": np.array(self.lr), "steps": np.array(self.steps)}
        for name in self._averages:
            state |= {f"{name}.{i}": array for i, array in enumerate(self._rows.by_parameter(getattr(self, name)))}
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a state that `state_dict` gave; raises ValueError when it belongs to other
        parameters.
        """
        own = self.state_dict()
        for name, array in own.items():
            if name not in state or np.shape(state[name]) != array.shape:
                found = f"shape {np.shape(state[name])}" if name in state else "nothing"
                raise ValueError(
                    f"{type(self).__name__}.load_state_dict: expected {name!r} of shape {array.shape}; got {found}"
                )
        unexpected = sorted(set(state) - set(own))
        if unexpected:
            raise ValueError(f"{type(self).__name__}.load_state_dict: unexpected entry {unexpected[0]!r}")
        for name, array in own.items():
            array[...] = state[name]
        self.lr, self.steps = float(own["lr"]), own["steps"].tolist()


class SGD(Optimizer):
    """Gradient descent, with momentum if wanted.

    b <- momentum * b + g + weight_decay * w;   w <- w - lr * b

    With momentum the step is a running sum of gradients: directions on which they agree add up,
    directions on which they change sign cancel. "Stochastic" because the gradient g is that of one
    batch, not of all the data.
    """

    _averages = ("velocity",)

    @torch_arguments
    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.momentum = _within("SGD", "momentum", momentum, 0.0, 1.0)
        self.velocity = np.zeros_like(self.flat)

    def _update(self, where: slice, grads: list[np.ndarray], lr: float, weight_decay: float, step: int) -> None:
        sgd_update(self.flat[where], grads, self.velocity[where], lr, self.momentum, weight_decay)


@compiled("optim")
def sgd_update(
    w: np.ndarray, grads: Sequence[np.ndarray], velocity: np.ndarray, lr: float, momentum: float, weight_decay: float
) -> None:
    """One step in place.   w, velocity: (n,); grads: arrays of any shapes that hold n numbers
    together.
    """
    g = _in_a_row(grads)  # (n,)
    velocity[...] = momentum * velocity + g + weight_decay * w
    w -= lr * velocity


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv:1711.05101).

    m <- beta1 m + (1 - beta1) g            the mean gradient of the last 1 / (1 - beta1) steps or so
    v <- beta2 v + (1 - beta2) g^2          the mean of its square
    w <- w - lr (m' / (sqrt(v') + eps) + weight_decay w)

    where m' = m / (1 - beta1^t) and v' = v / (1 - beta2^t): both start at 0 and would be too small
    in the first steps. The quotient is about 1 for a weight whose gradient keeps its sign, and near
    0 for one whose gradient is mostly noise: every weight moves at most about ``lr``, whatever the
    scale of its gradient. `adamw_update` is the step.
    """  # noqa: W505

    _averages = ("m", "v")

    @torch_arguments
    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.betas = tuple(_within("AdamW", f"betas[{i}]", betas[i], 0.0, 1.0) for i in range(2))
        self.eps = _within("AdamW", "eps", eps, 0.0)
        self.m, self.v = np.zeros_like(self.flat), np.zeros_like(self.flat)

    def _update(self, where: slice, grads: list[np.ndarray], lr: float, weight_decay: float, step: int) -> None:
        beta1, beta2 = self.betas
        adamw_update(
            self.flat[where], grads, self.m[where], self.v[where], lr, beta1, beta2, self.eps, weight_decay, step
        )


@compiled("optim")
def adamw_update(
    w: np.ndarray,
    grads: Sequence[np.ndarray],
    m: np.ndarray,
    v: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    step: int,
) -> None:
    """One step in place.   w, m, v: (n,); grads: arrays of any shapes that hold n numbers together;
    step: 1, 2 ...
    """
    g = _in_a_row(grads)  # (n,)
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g**2
    mean, square = m / (1 - beta1**step), v / (1 - beta2**step)
    w -= lr * (mean / (np.sqrt(square) + eps) + weight_decay * w)


class Muon(Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), for
    the matrices inside a network; embeddings, scores and vectors are left to `AdamW`.

    m <- momentum m + (1 - momentum) g
    u = orthogonal(momentum m + (1 - momentum) g)
    w <- w - lr (0.2 sqrt(max(rows, columns)) u + weight_decay w)

    A gradient matrix is large in the few directions that most examples share, and tiny in the rare
    ones, from which something new is learned. `orthogonal` keeps its directions and makes them all
    equally long. The factor gives each weight a step of about 0.2 lr, as AdamW does (Liu et al.
    2025, arXiv:2502.16982): both learn well at the same ``lr``. Raises ValueError for what is no
    matrix.
    """

    _averages = ("m",)

    @torch_arguments
    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.momentum = _within("Muon", "momentum", momentum, 0.0, 1.0)
        for p in self.params:
            if p.ndim != 2:
                raise ValueError(f"Muon: params must be matrices, what is none is AdamW's; got shape {p.shape}")
        self.m = np.zeros_like(self.flat)

    def _update(self, where: slice, grads: list[np.ndarray], lr: float, weight_decay: float, step: int) -> None:
        muon_update(self.flat[where], grads, self.m[where], lr, self.momentum, weight_decay)


@compiled("optim")
def muon_update(
    w: np.ndarray, grads: Sequence[np.ndarray], m: np.ndarray, lr: float, momentum: float, weight_decay: float
) -> None:
    """One step in place.   w, m: (n,); grads: matrices that hold n numbers together."""
    begin = 0
    for g in grads:
        w_i, m_i = (flat[begin : begin + g.size].reshape(g.shape) for flat in (w, m))
        m_i += (1 - momentum) * (g - m_i)
        u = orthogonal(g + momentum * (m_i - g))
        w_i -= lr * (0.2 * math.sqrt(max(g.shape)) * u + weight_decay * w_i)
        begin += g.size


def orthogonal(g: np.ndarray) -> np.ndarray:
    """U V^T, about, for a matrix g = U S V^T: its singular values s become 0.7 to 1.2, all but the
    tiniest, below |g| / 700.

    Without a decomposition: X <- a X + (b A + c A^2) X with A = X X^T changes s alone, into a s +
    b s^3 + c s^5, and five times are enough (Newton-Schulz). What is 0 stays 0.
    """
    x = g if len(g) <= g.shape[1] else g.T  # A is small
    x = x / max(math.sqrt(sum_of_squares([x])), 1e-7)  # s <= 1
    for _ in range(5):
        A = product(x, x.T)
        x = 3.4445 * x + product(-4.7750 * A + 2.0315 * product(A, A), x)
    return x if len(g) <= g.shape[1] else x.T


def _in_a_row(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of any shapes -> their numbers one after another, (n,)."""
    return np.concatenate([x.reshape(-1) for x in arrays])


def decay_groups(params: Iterable[Tensor], weight_decay: float) -> list[Group]:
    """Two groups: weight decay for matrices, none for biases and the gains of norms, which have no
    excess to lose.
    """
    tensors = [p for p in params if p.requires_grad]
    groups: list[Group] = [
        {"params": [p for p in tensors if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in tensors if p.ndim < 2], "weight_decay": 0.0},
    ]
    return groups


def clip_grad_norm(params: Iterable[Tensor], max_norm: float) -> float:
    """Shorten the gradient, all parameters' as one long vector, to length ``max_norm`` where it is
    longer.

    g <- g * min(1, max_norm / (|g| + 1e-6)). Its direction stays. One strange batch can then not
    throw the weights far away. Returns the length |g| before; an infinity or NaN is not repaired,
    and comes out as the returned number. With max_norm=inf it only measures.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm: max_norm must be a number >= 0; got {max_norm}")
    grads = [p.grad for p in params if p.grad is not None]
    norm = math.sqrt(sum_of_squares(grads))
    scale = max_norm / (norm + 1e-6)
    if scale < 1.0 and norm < math.inf:
        scale_all(grads, scale)
    return norm


@compiled("optim")
def sum_of_squares(arrays: Sequence[np.ndarray]) -> float:
    """sum x_i^2 over all of the arrays, in float64: the square of a gradient's length."""
    return float(np.square(_in_a_row(arrays), dtype=np.float64).sum()) if arrays else 0.0


@compiled("optim")
def scale_all(arrays: Sequence[np.ndarray], factor: float) -> None:
    """x <- factor x, in place, for each of the arrays."""
    for x in arrays:
        x *= factor


# ---- schedules: the learning rate of each step ---------------------------------------------------

Schedule = Callable[[int], float]  # step (the first is 0) -> learning rate


def constant(lr: float, *, steps: int, warmup: int = 0) -> Schedule:
    """The learning rate ``lr``, reached in a straight line over ``warmup`` steps.

    Why warm up: Adam's averages know little in the first steps, so its first moves are as large as
    they are uncertain.
    """
    _check_schedule("constant", steps, warmup)
    return lambda step: lr * min(1.0, (step + 1) / (warmup + 1))


def warmup_cosine(lr: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Warm up to ``lr``, then fall along half a cosine to ``final`` at the last of ``steps`` steps.

    Long strides first, then ever smaller ones that settle (Loshchilov and Hutter 2017,
    arXiv:1608.03983).

    >>> schedule = warmup_cosine(1.0, steps=9, warmup=4)
    >>> [round(schedule(step), 2) for step in range(9)]
    [0.2, 0.4, 0.6, 0.8, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    _check_schedule("warmup_cosine", steps, warmup)

    def schedule(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / (warmup + 1)
        progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))  # 0 -> 1
        return final + (lr - final) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return schedule


def wsd(lr: float, *, steps: int, warmup: int = 0, decay: float = 0.2, final: float = 0.0) -> Schedule:
    """Warm up, stay at ``lr``, and fall in a straight line over the last share ``decay`` of the
    steps.

    Warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395): as good as a cosine, and the length
    of the run need not be known before the fall begins.
    """
    _check_schedule("wsd", steps, warmup)
    _within("wsd", "decay", decay, 0.0, 1.0)
    fall = max(1, min(round(decay * steps), steps - 1 - warmup))

    def schedule(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / (warmup + 1)
        left = max(0, steps - 1 - step) / fall  # 1 -> 0 in the fall
        return final + (lr - final) * min(1.0, left) if steps > 1 else lr

    return schedule


# ---- all parameters in one array -----------------------------------------------------------------


class _InOneArray:
    """The parameters side by side in one long array, ``flat``, of which each ``p.data`` becomes a
    view.

    One call of a kernel can then change all of them, where a call for each would spend its time on
    waking threads.
    """

    def __init__(self, params: list[Tensor]) -> None:
        self.params = params
        self.ends = np.cumsum([p.size for p in params]).tolist()
        self.flat = np.empty(self.ends[-1], dtype=params[0].dtype)
        self.views = self.by_parameter(self.flat)
        self.take_in()

    def take_in(self) -> None:
        """Bring in the parameters whose ``data`` is another array: at first all, later those that
        were replaced.
        """
        for p, view in zip(self.params, self.views, strict=True):
            if p.data is not view:
                view[...] = p.data
                p.data = view

    def by_parameter(self, flat: np.ndarray) -> list[np.ndarray]:
        """An array as long as ``flat`` -> for each parameter the part that is its own, in its shape
        (views).
        """
        pieces = np.split(flat, self.ends[:-1])
        return [piece.reshape(p.shape) for piece, p in zip(pieces, self.params, strict=True)]

    def with_gradients(self, *alike: list[Any]) -> Iterator[tuple[slice, int, list[np.ndarray]]]:
        """Runs of neighbours that have a gradient, and whose entries in the lists ``alike`` are the
        same.

        Yields where a run lies in ``flat``, its first parameter's index, and the gradients. As a
        rule all are one run.
        """
        keys = list(zip([p.grad is None for p in self.params], *alike, strict=True))
        for (without, *_), group in itertools.groupby(range(len(keys)), key=keys.__getitem__):
            if not without:
                run = list(group)
                first, last = run[0], run[-1]
                where = slice(self.ends[first] - self.params[first].size, self.ends[last])
                yield where, first, [p.grad for p in self.params[first : last + 1] if p.grad is not None]


# ---- arguments -----------------------------------------------------------------------------------


def _settings(
    name: str, params: Iterable[Tensor] | Iterable[Group], lr: float, weight_decay: float
) -> list[tuple[Tensor, float, float]]:
    """Parameters, or groups of them -> each parameter, the factor of ``lr`` that is its learning
    rate, its weight decay.
    """
    settings: list[tuple[Tensor, float, float]] = []
    for entry in params:
        group: Any = {"params": [entry]} if isinstance(entry, Tensor) else entry
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError(
                f'{name}: params must be Tensors, or groups such as {{"params": tensors, "lr": 1e-3}}; '
                f"got {type(entry).__name__}"
            )
        if unknown := sorted(set(group) - {"params", "lr", "weight_decay"}):
            raise ValueError(f"{name}: a group has 'params', 'lr' and 'weight_decay'; got {unknown[0]!r}")
        own = _within(name, "lr", group.get("lr", lr), 0.0)
        if own != lr and not lr:
            raise ValueError(f"{name}: the lr of a group is kept as a multiple of lr, which must not be 0 then")
        decay = _within(name, "weight_decay", group.get("weight_decay", weight_decay), 0.0)
        tensors = [group["params"]] if isinstance(group["params"], Tensor) else group["params"]
        settings += [(p, own / lr if lr else 1.0, decay) for p in tensors]
    tensors = [p for p, _, _ in settings]
    if not tensors:
        raise ValueError(f"{name}: params must hold at least one parameter; got none")
    if len({id(p) for p in tensors}) < len(tensors):
        raise ValueError(f"{name}: params holds the same parameter twice")
    if len(dtypes := {p.dtype for p in tensors}) > 1:
        raise ValueError(f"{name}: params must be of one dtype; got {', '.join(map(str, dtypes))}")
    return settings


def _check_schedule(function: str, steps: int, warmup: int) -> None:
    if not 0 <= warmup <= steps:
        raise ValueError(f"{function}: warmup must be from 0 to steps = {steps}; got {warmup}")


def _within(function: str, name: str, value: float, low: float, high: float = math.inf) -> float:
    """``value`` as a float, if low <= value < high (infinity and NaN are never inside)."""
    if not (isinstance(value, numbers.Real) and low <= value < high):
        bounds = f"a number >= {low:g}" if high == math.inf else f"in [{low:g}, {high:g})"
        raise ValueError(f"{function}: {name} must be {bounds}; got {value}")
    return float(value)


def __getattr__(name: str) -> None:
    otherwise = "here are SGD, AdamW and Muon; one of your own is an optim.Optimizer with an _update"
    raise AttributeError(sentence("minillm.optim", name, OPTIM, otherwise if name[0].isupper() else ""))
