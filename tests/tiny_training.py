"""A training small enough to be killed many times, and a process that starts it again quickly.

Run as a module, it reads the name of a run folder from each line of standard input, trains or resumes there in a copy
of itself (a fork, so that nothing is imported twice), and prints the copy's process id, then its exit code.
"""

import os
import sys
from pathlib import Path

import numpy as np

from minillm import models
from minillm.training.run import Run
from minillm.training.trainer import TrainConfig, Trainer

SIZES = {"vocab_size": 17, "n_positions": 8, "n_embd": 8, "n_layer": 1, "n_head": 2}


def tiny_model(dtype=np.float32, dropout=0.2):
    dropouts = {name: dropout for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    return models.GPT2(models.GPT2Config(**SIZES, **dropouts), rng=3).astype(dtype)


def tiny_ids(count=400):
    """Tokens in which there is something to learn: each is the one before plus 1 or 2."""
    return np.cumsum(np.random.default_rng(5).integers(1, 3, size=count)) % SIZES["vocab_size"]


def tiny_trainer(run=None, callbacks=(), sample=None, model=None, **settings):
    settings = {"steps": 60, "batch_size": 4, "learning_rate": 0.02, "evaluate_every": 20} | settings
    model = model or tiny_model()
    config = TrainConfig(**settings)
    trainer = Trainer(model, tiny_ids(), config, run=run, quiet=True, callbacks=callbacks, sample=sample)
    trainer.callbacks = list(callbacks)  # a picture for each of a hundred runs would take too long
    return trainer


def start_or_resume(folder, **settings):
    if not Path(folder).exists():
        return tiny_trainer(folder, **settings)
    trainer = tiny_trainer(Run.open(folder), **settings)
    trainer.resume()
    return trainer


def serve():
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                start_or_resume(line.strip(), steps=120, checkpoint_every=4, log_every=5).run()
                code = 0
            finally:
                os._exit(code)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
