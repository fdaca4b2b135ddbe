"""torch computes with one thread: a second would wait for work at full speed, on the core that our own threads need."""

import contextlib

with contextlib.suppress(ImportError):
    import torch

    torch.set_num_threads(1)
