"""A command whose training is interrupted after a step: what it left behind goes on."""

import os
import signal

from minillm.cli import main
from minillm.training.trainer import Trainer


def stop(trainer):
    """Ends the training as Ctrl-C does."""
    trainer.stop("Ctrl-C")


def ctrl_c(trainer):
    """Ctrl-C itself."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupted(monkeypatch, step, *arguments, by=stop):
    """Run a command that is stopped after a step."""
    train_step = Trainer.train_step

    def interrupting(trainer):
        result = train_step(trainer)
        if trainer.step == step:
            by(trainer)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupting)
        assert main(list(arguments)) == 130
