"""What happens beside the learning: `Callback` says when, `Progress` shows how it goes,
`Interrupts` end it gently.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from .clock import minutes
from .compile_notice import CompileNotice
from .evaluate import Evaluation

__all__ = ["Callback", "CompileNotice", "Interrupts", "Progress", "not_ending_the_run", "writable"]


WIDE = "{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt}  {desc}"
NARROW = "{percentage:3.0f}%  {desc}  {bar}"  # what does not fit is cut off at the right: the loss comes first


class Callback:
    """The moments of a training run. Override those of interest; the others do nothing.

    ``trainer`` shows where the run stands (``trainer.step``, ``trainer.model``, ``trainer.history``
    ...), and ``trainer.stop("why")`` ends it after the current step, as Ctrl-C does.

    >>> class StopWhenGoodEnough(Callback):
    ...     def on_evaluate(self, trainer, evaluation):
    ...         if evaluation.above_floor < 0.05:
    ...             trainer.stop("good enough")

    decorates: whether it only shows something. Then a failure is told in one line, and the run goes
    on; what another callback raises ends the run.
    """

    decorates = False

    def on_start(self, trainer: Any) -> None:
        """Before the first step, or the first after a resumption."""

    def on_step(self, trainer: Any, loss: float) -> None:
        """After each step, with the loss of its batch."""

    def on_log(self, trainer: Any, record: dict[str, Any]) -> None:
        """When a line was written to the log; ``record`` is that line."""

    def on_evaluate(self, trainer: Any, evaluation: Evaluation) -> None:
        """After each evaluation on the validation data."""

    def on_sample(self, trainer: Any, text: str) -> None:
        """When the model has written a sample."""

    def on_finish(self, trainer: Any) -> None:
        """When all steps are done and saved, before the result is made: the last moment to change
        the model.
        """

    def on_end(self, trainer: Any, result: Any) -> None:
        """After the last step, when all but the model card is written (``result`` is None after a
        failure).
        """


class Progress(Callback):
    """Shows a run: a bar in a terminal, plain lines where the output goes to a file.

    stream: where to write, standard error by default.
    """

    decorates = True

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr or io.StringIO()  # a process may have no standard error
        self._live = self._stream.isatty()
        self._bar: Any = None
        self._smooth_loss: float | None = None
        self._line_time = 0.0
        self._notice = CompileNotice(self._say, self._describe if self._live else None)

    def on_start(self, trainer: Any) -> None:
        """Announce the run, and listen for kernels that must be compiled first."""
        from tqdm import tqdm

        steps = trainer.config.steps
        if trainer.step:
            self._say(f"going on after step {trainer.step:,} of {steps:,}")
        if self._live:
            self._bar = tqdm(
                initial=trainer.step,
                total=steps,
                file=self._stream,
                dynamic_ncols=True,
                bar_format=WIDE if _columns(self._stream) >= 60 else NARROW,
            )
        self._notice.__enter__()

    def on_step(self, trainer: Any, loss: float) -> None:
        """Move the bar."""
        self._notice.finish()
        # the mean of the last 10 steps or so: the loss of single batches jumps too much to be read
        self._smooth_loss = loss if self._smooth_loss is None else 0.9 * self._smooth_loss + 0.1 * loss
        if self._bar is not None:
            self._bar.set_description_str(self._figures(trainer, self._smooth_loss), refresh=False)
            self._bar.update()

    def on_log(self, trainer: Any, record: dict[str, Any]) -> None:
        """Write a line where there is no bar: with each evaluation, else every ten seconds."""
        now = time.monotonic()
        if self._live or (record["val_loss"] is None and now - self._line_time < 10.0):
            return
        self._line_time = now
        steps = trainer.config.steps
        self._say(f"step {trainer.step:>{len(str(steps))}}/{steps}  {self._figures(trainer, record['loss'])}")

    def on_sample(self, trainer: Any, text: str) -> None:
        """Show what the model writes by now."""
        body = "\n".join(f"  | {line}" for line in text.strip().splitlines())
        self._say(f"\n  a sample after step {trainer.step:,}\n{body}\n")

    def on_end(self, trainer: Any, result: Any) -> None:
        """Put the bar away and say how it ended."""
        self._notice.__exit__()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if result is not None:
            self._say(str(result))

    def _figures(self, trainer: Any, loss: float) -> str:
        parts = [f"loss {loss:.3f}"]
        if trainer.evaluation is not None:
            parts.append(f"validation {trainer.evaluation.loss:.3f}")
        if trainer.floor is not None:
            parts.append(f"floor {trainer.floor:.3f}")
        if trainer.tokens_per_s:
            parts.append(f"{_short(trainer.tokens_per_s)} tokens/s")
        if trainer.clock.pace("learning"):
            parts.append(f"{minutes(seconds_left(trainer))} left")
        return "  ".join(parts)

    def _describe(self, text: str) -> None:
        if self._bar is not None:
            self._bar.set_description_str(text)

    def _say(self, text: str) -> None:
        text = writable(text, self._stream)
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # it only looks like a terminal
        return 80


@contextlib.contextmanager
def not_ending_the_run(what: str) -> Iterator[None]:
    """Inside stands what only decorates a run: where it fails, a line says so, and the run goes on.
    """
    try:
        yield
    except Exception as error:
        why = " ".join(str(error).split()) or repr(error)
        warnings.warn(f"{what} failed, and the run goes on: {why}", stacklevel=3)


def seconds_left(trainer: Any) -> float:
    """What the steps, evaluations and samples to come will take, if they take as long as those
    before.

    Before the first evaluation: a third of the time of learning from as many tokens, for there is
    no backward.
    """
    clock, config = trainer.clock, trainer.config
    step, tokens = clock.pace("learning"), trainer.tokens / trainer.step

    def still(every: int) -> int:
        return config.steps // every - trainer.step // every + (config.steps % every > 0)

    guess = step * trainer.dataset.validation_tokens / tokens / 3
    left = (config.steps - trainer.step) * step
    left += still(config.evaluate_every) * (clock.pace("evaluating") or guess)
    return left + still(config.sample_every) * (clock.pace("sampling") or 0.0)


def writable(text: str, stream: TextIO) -> str:
    """The text as a stream can write it: what its encoding lacks is replaced by question marks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


class Interrupts:
    """Ctrl-C and SIGTERM, inside: the first calls ``stop(why)``, which ends gently; a second one
    ends the process.
    """

    def __init__(self, stop: Callable[[str], None]) -> None:
        self._stop, self._received = stop, False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # only there can signals be caught
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._previous[signum] = signal.signal(signum, self._on_signal)

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, signum: int, frame: Any) -> None:
        if self._received:
            os._exit(128 + signum)  # what is being written is a checkpoint under another name: nothing breaks
        self._received = True
        with contextlib.suppress(OSError):  # nobody may be there to read it
            os.write(2, b"\nfinishing this step, then saving; once more to quit at once\n")
        self._stop("Ctrl-C" if signum == signal.SIGINT else "SIGTERM")


def _short(number: float) -> str:
    """Three digits are enough for the eye: 41234 -> 41.2k."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"

