"""Where does a model look? The weights of its attentions, while it reads.

>>> from minillm import models
>>> model = models.GPT2(models.GPT2Config(vocab_size=9, n_positions=8, n_embd=8, n_layer=2, n_head=2), rng=0)
>>> with record_attention(model) as weights:
...     logits = model(np.array([[3, 1, 4]]))
>>> {name: p.shape for name, p in weights.items()}
{'transformer.h.0.attn': (1, 2, 3, 3), 'transformer.h.1.attn': (1, 2, 3, 3)}
>>> weights["transformer.h.0.attn"][0, 0].round(2)  # a row for each token that asks, a column for each that is seen
array([[1.  , 0.  , 0.  ],
       [0.5 , 0.5 , 0.  ],
       [0.34, 0.33, 0.33]], dtype=float32)
"""  # noqa: W505

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..functional.attention_weights import reported_to
from ..nn import Module, RecurrentAttention


@contextlib.contextmanager
def record_attention(model: Module) -> Iterator[dict[str, np.ndarray]]:
    """Keep the weights of every attention that ``model`` computes inside, by the path of its layer.

    Each is (B, H, T, S): p[b, h, t, s], how much the query at t takes from the key at s; the sum
    over s is 1, or 0 for a query that sees nothing. The layers stand in the order of their calls; a
    layer that is called again, as in generation, replaces what it gave before: to look at a text
    that was generated, call the model on all of it once. A second attention in one call of a layer
    has " (2)" after the name. Any model whose attention is one of ``functional``'s: those of
    ``models``, ``nn.MultiHeadAttention``, your own. Only what this thread computes is kept.
    Raises TypeError for what is no Module.
    """
    if not isinstance(model, Module):
        raise TypeError(f"record_attention: expected a Module; got {type(model).__name__}")
    recorder = _Recorder()
    with contextlib.ExitStack() as undo:
        for path, module in model.named_modules():
            with contextlib.suppress(TypeError):  # a container that is never called itself
                undo.callback(module.register_forward_pre_hook(partial(recorder.enter, path, module is model)))
                undo.callback(module.register_forward_hook(recorder.leave))
        undo.enter_context(reported_to(recorder.keep))
        yield recorder.weights


class _Recorder:
    """Knows which layers are being called, and keeps what the innermost of them is reported to
    weigh.
    """

    def __init__(self) -> None:
        self.weights: dict[str, np.ndarray] = {}
        self.calls: list[tuple[str, Module, list[np.ndarray]]] = []  # the layers that are being called, outermost first
        self.thread = threading.get_ident()

    def enter(self, path: str, outermost: bool, module: Module, inputs: tuple) -> None:
        if threading.get_ident() == self.thread:
            if outermost:
                self.calls.clear()  # an earlier call may have ended in an error
            self.calls.append((path or type(module).__name__, module, []))

    def leave(self, module: Module, inputs: tuple, output: Any) -> None:
        if threading.get_ident() == self.thread and self.calls:
            self.calls.pop()

    def keep(self, p: np.ndarray) -> None:
        if not self.calls:
            return  # of another model
        path, module, before = self.calls[-1]
        if isinstance(module, RecurrentAttention):  # a step does not look at itself
            p = np.pad(p, ((0, 0), (0, 0), (0, 0), (0, 1)))
        before.append(p)
        self.weights[f"{path} ({len(before)})" if len(before) > 1 else path] = p
