"""The training step of train.py as the model, the context and the number of threads grow."""

from __future__ import annotations

from . import train
from .harness import Case, Contestant, cores

TITLE = "the training step as the model, the context and the threads grow"

SIZES = ((4, 4, 64), (4, 4, 128), (4, 4, 256), (6, 6, 384))  # n_layer, n_head, n_embd: 0.2, 0.8, 3, 10 million
CONTEXTS = (64, 128, 256, 512, 1024)
TOKENS = 1024  # a batch, however long its texts are


def cases(quick: bool) -> list[Case]:
    """Four sizes, five contexts, and one thread against all."""
    contestants = [
        Contestant("minillm", train.build_minillm, ("minillm",)),
        Contestant("torch", train.build_torch, ("torch",)),
    ]
    found = []
    for L, H, C in SIZES[: 2 if quick else None]:
        shape = train.Shape(L, H, C, TOKENS // 128, 128)
        millions = shape.matmul_parameters / 1e6
        axis = ("million parameters", millions)
        found.append(train.case(f"{millions:.1f} M parameters (L{L} C{C}), T128", contestants, shape, axis))
    for T in CONTEXTS[: 2 if quick else None]:
        shape = train.Shape(4, 4, 128, TOKENS // T, T)
        found.append(train.case(f"context {T}, B{TOKENS // T} (L4 C128)", contestants, shape, ("context", T)))
    alone = Contestant("minillm, 1 thread", train.build_minillm, ("minillm",), threads=1)
    for name, shape in (("baby", train.BABY), ("small", train.SMALL))[: 1 if quick else 2]:
        found.append(train.case(f"{cores()} threads against one, {name} GPT", [contestants[0], alone], shape))
    return found
