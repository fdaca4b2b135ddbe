"""A training step of a GPT-2, as a learner writes it: forward, backward, clip, update."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .harness import Case, Contestant, Step

TITLE = "a training step (forward, backward, clip to norm 1, AdamW)"


@dataclass(frozen=True)
class Shape:
    """The sizes of a model and its batch."""

    n_layer: int
    n_head: int
    n_embd: int  # C
    batch: int  # B
    time: int  # T, also the model's context
    vocab_size: int = 65

    @property
    def matmul_parameters(self) -> int:
        """Those that every token is multiplied with: 12 C^2 a layer, and the scores."""
        return 12 * self.n_layer * self.n_embd**2 + self.vocab_size * self.n_embd

    @property
    def tokens(self) -> int:
        """In a batch."""
        return self.batch * self.time

    @property
    def flops(self) -> float:
        """Of a step: 6 a parameter and token, and 12 L T C a token for attention (Chowdhery et al. 2022, appendix B).

        Attention counts as if it were not causal, as is the custom.
        """
        return self.tokens * (6.0 * self.matmul_parameters + 12.0 * self.n_layer * self.time * self.n_embd)

    def model(self) -> dict[str, int]:
        """The fields of the model's configuration."""
        fields = asdict(self)
        return {"n_positions": self.time} | {k: v for k, v in fields.items() if k not in ("batch", "time")}


BABY = Shape(n_layer=4, n_head=4, n_embd=128, batch=12, time=64)
SMALL = Shape(n_layer=6, n_head=6, n_embd=384, batch=16, time=128)
TINY = Shape(n_layer=1, n_head=1, n_embd=16, batch=1, time=8)


def cases(quick: bool) -> list[Case]:
    """The baby and the small GPT."""
    contestants = [
        Contestant("minillm", build_minillm, ("minillm",)),
        Contestant("torch", build_torch, ("torch",)),
    ]
    if not quick:  # compiling takes a minute
        contestants.append(Contestant("torch.compile", build_torch_compile, ("torch",)))
    return [
        case(f"{name} (L{s.n_layer} H{s.n_head} C{s.n_embd}, B{s.batch} T{s.time} V{s.vocab_size})", contestants, s)
        for name, s in (("baby GPT", BABY), ("small GPT", SMALL))[: 1 if quick else 2]
    ]


def case(title: str, contestants: list[Contestant], shape: Shape, axis: tuple[str, float] | None = None) -> Case:
    """A training step of that shape."""
    return Case(title, tuple(contestants), (shape,), (TINY,), shape.flops, shape.tokens, memory="all", axis=axis)


def _batches(shape: Shape):
    """Eight batches of random tokens, over and over: ids (B, T), targets (B, T)."""
    import itertools

    import numpy as np

    tokens = np.random.default_rng(0).integers(0, shape.vocab_size, (8, shape.batch, shape.time + 1))
    return itertools.cycle([(window[:, :-1].copy(), window[:, 1:].copy()) for window in tokens])


def build_minillm(shape: Shape) -> Step:
    from minillm import functional as F
    from minillm import models, optim

    config = models.GPT2Config(**shape.model(), resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    model = models.GPT2(config, rng=0)
    parameters = model.parameters()
    optimizer = optim.AdamW(parameters, lr=1e-3)
    batches = _batches(shape)

    def step() -> None:
        ids, targets = next(batches)
        loss = F.cross_entropy(model(ids), targets)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()

    return step


def build_torch(shape: Shape, compiled: bool = False) -> Step:
    import torch
    from torch.nn import functional as F

    from .torch_gpt2 import TorchGPT2

    torch.manual_seed(0)
    model = TorchGPT2(**shape.model())
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    score = torch.compile(model) if compiled else model
    batches = _batches(shape)

    def step() -> None:
        ids, targets = map(torch.from_numpy, next(batches))
        loss = F.cross_entropy(score(ids).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def build_torch_compile(shape: Shape) -> Step:
    return build_torch(shape, compiled=True)
