"""Single operations, forward and backward, called as a learner calls them: through ``minillm.functional``."""

from __future__ import annotations

import numpy as np

from .harness import Case, Contestant, Step

TITLE = "single operations, forward + backward, float32"

ATTENTION = ((12, 4, 64, 32), (16, 6, 128, 64), (1, 8, 1024, 64), (1, 8, 4096, 64))  # (B, H, T, D)
ROWS = {
    "gelu": (768, 512),
    "layer_norm": (768, 512),
    "rms_norm": (768, 512),
    "softmax": (768, 512),
    "cross_entropy": (768, 4096),
}


def cases(quick: bool) -> list[Case]:
    """Attention at four lengths, operations on rows, and the optimiser."""
    attention = _pair(build_minillm_attention, build_torch_attention)
    rows = _pair(build_minillm_rows, build_torch_rows)
    update = _pair(build_minillm_update, build_torch_update)
    muon = _pair(build_minillm_muon, build_torch_muon)
    return [
        *(
            Case(f"causal attention {shape}", attention, shape, (1, 1, 8, shape[3]), _flops(*shape), memory="step")
            for shape in ATTENTION[: 2 if quick else 4]
        ),
        *(Case(f"{name} {shape}", rows, (name, *shape)) for name, shape in ROWS.items()),
        Case("clip and AdamW, 16 x (256, 256)", update),
        Case("Muon, 16 x (256, 256)", muon),
    ]


def _pair(ours, theirs) -> tuple[Contestant, ...]:
    return Contestant("minillm", ours, ("minillm",)), Contestant("torch", theirs, ("torch",))


def _flops(B: int, H: int, T: int, D: int) -> float:
    """Of causal attention: two products forward and four backward, each over the T (T + 1) / 2 pairs that are seen.

    What backward computes again, because the scores were not kept, is not counted.
    """
    return 6 * 2.0 * D * B * H * T * (T + 1) / 2


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


# ---- attention -------------------------------------------------------------------------------------------------------


def build_minillm_attention(*shape: int) -> Step:
    from minillm import Tensor
    from minillm import functional as F

    q, k, v = inputs = [Tensor(x, requires_grad=True) for x in _normal(3, *shape)]
    dy = _normal(*shape)

    def step() -> None:
        for t in inputs:
            t.grad = None
        F.scaled_dot_product_attention(q, k, v, causal=True).backward(dy)

    return step


def build_torch_attention(*shape: int) -> Step:
    import torch
    from torch.nn import functional as F

    q, k, v = inputs = [torch.tensor(x, requires_grad=True) for x in _normal(3, *shape)]
    dy = torch.from_numpy(_normal(*shape))

    def step() -> None:
        for t in inputs:
            t.grad = None
        F.scaled_dot_product_attention(q, k, v, is_causal=True).backward(dy)

    return step


# ---- operations on rows ----------------------------------------------------------------------------------------------


def build_minillm_rows(name: str, N: int, C: int) -> Step:
    from minillm import Tensor
    from minillm import functional as F

    x, w, b = (Tensor(values, requires_grad=True) for values in (_normal(N, C), np.ones(C, np.float32), _normal(C)))
    dy, targets = _normal(N, C), np.random.default_rng(0).integers(0, C, N)
    forward = {
        "gelu": lambda: F.gelu(x),
        "layer_norm": lambda: F.layer_norm(x, w, b),
        "rms_norm": lambda: F.rms_norm(x, w),
        "softmax": lambda: F.softmax(x),
        "cross_entropy": lambda: F.cross_entropy(x, targets),
    }[name]

    def step() -> None:
        x.grad = w.grad = b.grad = None
        forward().backward(None if name == "cross_entropy" else dy)

    return step


def build_torch_rows(name: str, N: int, C: int) -> Step:
    import torch
    from torch.nn import functional as F

    x, w, b = (
        torch.tensor(values, requires_grad=True) for values in (_normal(N, C), np.ones(C, np.float32), _normal(C))
    )
    dy, targets = torch.from_numpy(_normal(N, C)), torch.from_numpy(np.random.default_rng(0).integers(0, C, N))
    forward = {
        "gelu": lambda: F.gelu(x, approximate="tanh"),
        "layer_norm": lambda: F.layer_norm(x, (C,), w, b),
        "rms_norm": lambda: F.rms_norm(x, (C,), w),
        "softmax": lambda: F.softmax(x, -1),
        "cross_entropy": lambda: F.cross_entropy(x, targets),
    }[name]

    def step() -> None:
        x.grad = w.grad = b.grad = None
        forward().backward(None if name == "cross_entropy" else dy)

    return step


# ---- the optimiser ---------------------------------------------------------------------------------------------------

SHRINK = 0.9999  # each step clips the gradients, which stay from step to step, to a little less than they were


def build_minillm_update() -> Step:
    from minillm import Tensor, optim

    parameters = [Tensor(x, requires_grad=True) for x in _normal(16, 256, 256)]
    for p in parameters:
        p.grad = _normal(*p.shape)
    optimizer, norm = optim.AdamW(parameters, lr=1e-3), 1000.0

    def step() -> None:
        nonlocal norm
        norm = SHRINK * optim.clip_grad_norm(parameters, norm)
        optimizer.step()

    return step


def build_torch_update() -> Step:
    import torch

    parameters = [torch.tensor(x, requires_grad=True) for x in _normal(16, 256, 256)]
    for p in parameters:
        p.grad = torch.from_numpy(_normal(*p.shape))
    optimizer, norm = torch.optim.AdamW(parameters, lr=1e-3, fused=True), 1000.0

    def step() -> None:
        nonlocal norm
        norm = SHRINK * float(torch.nn.utils.clip_grad_norm_(parameters, norm))
        optimizer.step()

    return step


def build_minillm_muon() -> Step:
    from minillm import Tensor, optim

    parameters = [Tensor(x, requires_grad=True) for x in _normal(16, 256, 256)]
    for p in parameters:
        p.grad = _normal(*p.shape)
    return optim.Muon(parameters, lr=1e-3).step


def build_torch_muon() -> Step:
    """It multiplies in bfloat16."""
    import torch

    parameters = [torch.tensor(x, requires_grad=True) for x in _normal(16, 256, 256)]
    for p in parameters:
        p.grad = torch.from_numpy(_normal(*p.shape))
    return torch.optim.Muon(parameters, lr=1e-3, adjust_lr_fn="match_rms_adamw").step
