"""LoRA: what fine-tuning changes in a matrix is learned beside it, as a product of two thin ones.

Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models",
https://arxiv.org/abs/2106.09685.

Full fine-tuning moves every weight, W = W0 + dW, and keeps a gradient and AdamW's two averages for
each of them. The paper's hypothesis is that the dW which a new task needs has a low rank. So W0
stays as it is, and dW alone is learned, in a form that cannot have a higher rank (section 4.1):

    h = W0 x + dW x,    dW = (alpha / r) B A        W0, dW: (N, C), A: (r, C), B: (N, r)

r is far smaller than C and N: 8, where a small language model has 576. A begins random and B as
zeros, so that the model begins as it was. The gradient reaches A and B alone; W0 costs one product
on the way back, dx = dy W0, and none for its own gradient. alpha / r lets a learning rate that was
found for one rank serve for others. When all is learned, dW is added to W0, and the model is as
fast as before.

    model = models.from_pretrained("SmolLM2-135M-Instruct")
    print(add_lora(model, rank=8))              0.34 % of 134,975,808 numbers are trained: 460,800
    Trainer(model, dataset).run()
    save_adapter(model, "adapter")              A and B alone: 2 MB
    merge(model)                                W0 + dW: a plain model again
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np

from .. import functional as F
from ..models.gpt2 import Conv1D
from ..nn import Dropout, Linear, Module, init
from ..tensor import Tensor

# Where our architectures compute queries and values, which the paper found to need it most (section
# 7.1): Llama, GPT-2 (with the keys), T5, recurrent attention.
QUERIES_AND_VALUES = ("q_proj", "v_proj", "c_attn", "q", "v", "query", "output")


class LoRA(Module):
    """dW x = (alpha / r) B A x: (..., C) -> (..., N), which is added to what a linear layer gives.

    A: (r, C), uniform in +-1 / sqrt(C) at first, B: (N, r), zeros at first. dropout: of x.
    rank_stabilized: alpha / sqrt(r) in the place of alpha / r, which keeps dW x equally large for
    large ranks too (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732).
    """

    def __init__(
        self,
        layer: Linear | Conv1D,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        rank_stabilized: bool = False,
        rng: np.random.Generator | int | None = None,
    ) -> None:
        rng = np.random.default_rng(rng)
        self.by_columns = isinstance(layer, Conv1D)  # GPT-2 stores W0 as (C, N)
        N, C = layer.weight.shape[::-1] if self.by_columns else layer.weight.shape
        self.rank, self.alpha, self.rank_stabilized = rank, alpha, rank_stabilized
        self.A = init.fan_in(rng, (rank, C), C)
        self.B = init.constant((N, rank), 0.0)
        self.dropout = Dropout(dropout, rng)
        self.astype(layer.weight.dtype).train(layer.training)
        self.hook = layer.register_forward_hook(add_to_output)

    @property
    def scale(self) -> float:
        """The factor before B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., N)."""
        h = F.linear(self.dropout(x), self.A)  # (..., r)
        return F.linear(h * self.scale, self.B)  # (..., N)

    def change(self) -> np.ndarray:
        """dW, as the layer stores W0: (N, C), or (C, N) by columns."""
        dW = self.scale * (self.B.data @ self.A.data)  # (N, C)
        return dW.T if self.by_columns else dW

    def fold_into(self, state: dict[str, np.ndarray], path: str) -> None:
        """In a file there is W0 + dW, and no A and B."""
        del state[f"{path}.A"], state[f"{path}.B"]
        weight = f"{path.removesuffix('.lora')}.weight"
        state[weight] = state[weight] + self.change()

    def extra_repr(self) -> str:
        """Its settings."""
        return f"rank={self.rank}, alpha={self.alpha:g}"


def add_to_output(layer: Any, inputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    """h = W0 x + dW x; a hook of the layer, whose output W0 x is y."""
    return y + layer.lora(inputs[0])


class Trainable(NamedTuple):
    """How many numbers of a model are trained."""

    trained: int
    all: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.trained / self.all

    @classmethod
    def of(cls, model: Any) -> Trainable:
        """As a model is now."""
        return cls(sum(p.size for p in model.parameters() if p.requires_grad), model.num_parameters())

    def __str__(self) -> str:
        return f"{self.share:.2%} of {self.all:,} numbers are trained: {self.trained:,}"


def add_lora(
    model: Any,
    rank: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] | None = None,
    dropout: float = 0.0,
    rank_stabilized: bool = False,
    rng: np.random.Generator | int | None = None,
    beside: Collection[str] = (),
) -> Trainable:
    """Freeze a model, and give linear layers a `LoRA`, which learns in their place; returns how
    much that is.

    beside: names of parameters that go on learning themselves, such as an embedding with new rows.
    targets: names of layers, such as "v_proj", or whole paths, or patterns of either: "layers.0.*",
    "*" for all; None for the queries and values of attention. The model stays what it is, with
    ``layer.lora`` in each such layer; saved as a model folder, it is as `merge` would leave it.
    Raises ValueError where a target is no linear layer, or the model has an adapter already.
    """
    if rank < 1:
        raise ValueError(f"add_lora: rank must be at least 1; got {rank}")
    if isinstance(targets, str):
        raise ValueError(f"add_lora: targets must be a list of names; got the string {targets!r}")
    layers, wanted = linear_layers(model), targets or QUERIES_AND_VALUES
    lacking = [target for target in targets or () if not any(_is_called(path, target) for path in layers)]
    chosen = [path for path in layers if any(_is_called(path, target) for target in wanted)]
    if lacking or not chosen:
        names = ", ".join(sorted({path.rsplit(".")[-1] for path in layers})) or "none"
        what = f"no linear layer is called {lacking[0]!r}" if lacking else "name the layers"
        raise ValueError(f"add_lora: targets: {what}; the linear layers of this {type(model).__name__} are: {names}")
    most = max(min(layers[path].weight.shape) for path in chosen)
    if rank > most:
        raise ValueError(f"add_lora: rank must be at most {most}: no dW of these layers has a higher one; got {rank}")
    parameters = dict(model.named_parameters())
    if unknown := [name for name in beside if name not in parameters]:
        raise ValueError(f"add_lora: beside: no parameter is called {unknown[0]!r}; names are {', '.join(parameters)}")
    attach(model, chosen, rank, alpha, dropout, rank_stabilized, rng)
    for name in beside:
        parameters[name].requires_grad = True
    return Trainable.of(model)


def attach(
    model: Any,
    paths: Sequence[str],
    rank: int,
    alpha: float,
    dropout: float,
    rank_stabilized: bool,
    rng: np.random.Generator | int | None = None,
) -> Trainable:
    """Freeze a model, and give the layers at these paths a `LoRA`."""
    if adapters(model):
        raise ValueError("add_lora: the model has an adapter already: merge(model) first")
    layers, rng = linear_layers(model), np.random.default_rng(rng)
    new = {path: LoRA(layers[path], rank, alpha, dropout, rank_stabilized, rng) for path in paths}
    for parameter in model.parameters():
        parameter.requires_grad = False
    for path, lora in new.items():
        layers[path].lora = lora
    return Trainable.of(model)


def merge(model: Any) -> None:
    """W0 <- W0 + dW in every layer, without the adapter from then on: a plain model, as fast as
    before, all of whose parameters can be trained. Raises ValueError where there is no adapter.
    """
    found = adapters(model)
    if not found:
        raise ValueError("merge: the model has no adapter")
    state, layers = model.plain_state(), linear_layers(model)
    for path, adapter in found.items():
        adapter.hook.remove()
        del layers[path].lora
    model.load_state_dict(state, copy=False)
    for parameter in model.parameters():
        parameter.requires_grad = True


def adapters(model: Module) -> dict[str, LoRA]:
    """Each `LoRA` of a model, by the path of the layer that it belongs to."""
    return {path.removesuffix(".lora"): part for path, part in model.named_modules() if isinstance(part, LoRA)}


def linear_layers(model: Module) -> dict[str, Any]:
    """The linear layers of a model by their paths."""
    return {path: part for path, part in model.named_modules() if path and isinstance(part, Linear | Conv1D)}


def _is_called(path: str, target: str) -> bool:
    return fnmatchcase(path, target) or fnmatchcase(path, f"*.{target}")
