"""The weights of attention, for whoever asks.

Attention itself never has them as a whole: its kernels go tile by tile. So they are computed once
more, and only while somebody listens: see ``record_attention``.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import numpy as np

Listener = Callable[[np.ndarray], None]  # takes (B, H, T, S), each row sums to 1, or is 0 where no key is seen


class _ThisThread(threading.local):
    listener: Listener | None = None


_this_thread = _ThisThread()


def report(weights: Callable[[], np.ndarray]) -> None:
    """Give the weights that ``weights()`` computes to this thread's listener, if there is one."""
    if _this_thread.listener is not None:
        _this_thread.listener(weights())


@contextlib.contextmanager
def reported_to(listener: Listener) -> Iterator[None]:
    """Let ``listener`` have the weights of every attention that this thread computes inside."""
    before, _this_thread.listener = _this_thread.listener, listener
    try:
        yield
    finally:
        _this_thread.listener = before
