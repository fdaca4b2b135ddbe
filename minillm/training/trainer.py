"""The loop in which a model learns.

    batch -> forward -> loss -> backward -> clip -> schedule -> update -> log         and again, thousands of times

`Trainer.train_step` is that line in code. What stands around it keeps a run safe: it is evaluated
and logged, it survives a crash, and what was interrupted goes on to the same weights, bit for bit,
as if nothing had happened. For that, a step depends on the parameters, the optimiser's state and
(seed, step) alone: the order of the data and dropout are drawn from the last.
"""  # noqa: W505

from __future__ import annotations

import dataclasses
import errno
import functools
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import optim
from ..autograd.targets import IGNORE
from ..data import Batch, BucketedDataset, Dataset, DocumentDataset, ShardDataset, StreamDataset
from ..data.beginning import beginning
from ..data.digest import id_digest
from ..tensor import no_grad
from ..tokenizer import Tokenizer
from .callbacks import Callback, Interrupts, Progress, not_ending_the_run
from .checkpoint import load_checkpoint, save_checkpoint
from .clock import Clock
from .config import TrainConfig, TrainResult
from .evaluate import Evaluation, Loss, evaluate, evaluating, next_token_loss
from .plot import LossPlot
from .run import Run

__all__ = ["TrainConfig", "TrainResult", "Trainer"]


class Trainer:
    """Trains a model on a dataset.

    model: any model of ``models``, or one with the same small interface. dataset: a `Dataset`, or
    plain token ids (N,), whose last tenth is kept for validation. run: the folder to make, or a
    `Run`; without one nothing is written. floor: the entropy of the validation data, nats per
    token, where it is known. sample: a function that lets the model write a text. tokenizer: saved
    with the run, and gives bits per byte; it is told after which token texts begin in this data
    (`Tokenizer.set_beginning`), so that generation begins them alike. quiet: show no progress.
    loss: what is learned, a function of (model, batch) that gives the mean over the batch's
    targets, its last array; the cross-entropy of ``model(*inputs)`` unless given, which suits
    classifiers too. The validation loss is the same function's mean over all targets.

    Raises ValueError, with what is missing, for a dataset that is neither.

        result = Trainer(model, dataset, TrainConfig(steps=500), run="runs/first").run()
    """

    def __init__(
        self,
        model: Any,
        dataset: Dataset | Any,
        config: TrainConfig | None = None,
        *,
        tokenizer: Any = None,
        run: Run | str | os.PathLike[str] | None = None,
        floor: float | None = None,
        sample: Callable[[Any], str] | None = None,
        callbacks: Sequence[Callback] = (),
        quiet: bool = False,
        loss: Loss | None = None,
    ) -> None:
        self.model, self.config, self.tokenizer, self.floor = model, config or TrainConfig(), tokenizer, floor
        self.dataset = _as_dataset(dataset, model, self.config)
        if isinstance(tokenizer, Tokenizer) and not getattr(model, "is_encoder_decoder", False):
            found = beginning(self.dataset, tokenizer, self.config.steps, self.config.batch_size, self.config.seed)
            if found is not None:
                tokenizer.set_beginning(*found)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizers = self.config.optimizers(model)
        self.optimizer = next(iter(self.optimizers.values()))
        self.learning_rates = self.config.learning_rates()
        self.sample, self.loss = sample, loss
        self.callbacks: list[Callback] = [LossPlot(), *callbacks] if quiet else [Progress(), LossPlot(), *callbacks]
        self.run_folder = run if isinstance(run, Run) or run is None else Run.create(run)

        self.step = 0  # steps done
        self.tokens = 0  # targets learned from
        self.history: list[dict[str, Any]] = []  # the lines of the log
        self.evaluation: Evaluation | None = None  # the last one
        self.tokens_per_s = 0.0  # between the last two lines of the log
        self.clock = Clock()
        self._since_log = _SinceLog()
        self._seconds_before, self._begun = 0.0, time.perf_counter()  # of earlier sessions; of this one
        self._saved_step = -1
        self._last_sample: str | None = None
        self._stopped = ""

    # ---- learning --------------------------------------------------------------------------------

    @np.errstate(under="ignore")  # what becomes 0 because it is tiny is as good as 0
    def train_step(self) -> tuple[float, float]:
        """Learn from one batch; returns its loss, and the length of its gradient before clipping.
        """
        config = self.config
        batch = self.dataset.batch(self.step, config.batch_size, config.seed)
        self.model.set_rng(np.random.default_rng((config.seed, self.step, 1)))  # for dropout
        loss = 0.0
        for part, share in _parts(batch, config.accumulate):
            part_loss = (self.loss or next_token_loss)(self.model, part)
            part_loss.backward(share)  # the gradients of the parts add up to that of the whole batch
            loss += share * part_loss.item()
        # Processes that share a batch would average their gradients and losses here, before
        # anything looks at them.
        grad_norm = optim.clip_grad_norm(self.parameters, math.inf if config.clip is None else config.clip)
        self._check_finite(loss, grad_norm)
        for optimizer in self.optimizers.values():
            optimizer.lr = self.learning_rates(self.step)
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        self.tokens += _count(batch)
        return loss, grad_norm

    def run(self) -> TrainResult:
        """Train until all steps are done, or until `stop`, Ctrl-C or SIGTERM, which finish the step
        and save.

        Raises FloatingPointError, with the step, when the loss is no longer a number, and OSError
        when the disk is full; the last good checkpoint is then still there. Raises BlockingIOError
        when another process trains in the run folder, and ValueError when a model was saved there
        before, and `resume` was not called.
        """
        if self.run_folder is None:
            return self._run()
        with self.run_folder.lock():
            if self._saved_step < 0 and self.run_folder.holds_model:
                raise ValueError(
                    f"Trainer.run: {self.run_folder.path} holds a model already, which would be overwritten: "
                    "call trainer.resume() first, or choose another folder"
                )
            return self._run()

    def _run(self) -> TrainResult:
        self._begun, self._stopped = time.perf_counter(), ""
        self.model.train()
        result = None
        try:
            with Interrupts(self.stop):
                self._tell("on_start")
                while self.step < self.config.steps and not self._stopped:
                    self._learn_and_report()
                result = self._finish()
                self._tell("on_end", result)
                self._write_card(result)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._disk_full(error) from None
            raise
        finally:
            if result is None:  # the error that is on its way is the one to be seen
                with not_ending_the_run("after a failure, a callback"):
                    self._tell("on_end", None)
        return result

    def stop(self, why: str) -> None:
        """End the run after the step that is being done: save, and return from `run`."""
        self._stopped = self._stopped or why

    def _learn_and_report(self) -> None:
        config, tokens, begun = self.config, self.tokens, time.perf_counter()
        with self.clock.timing("learning" if self.clock.times["starting"] else "starting"):
            loss, grad_norm = self.train_step()
        self._since_log.add(loss, self.tokens - tokens, time.perf_counter() - begun)
        self._tell("on_step", loss)
        last = self.step == config.steps
        evaluated = self._evaluate() if self.step % config.evaluate_every == 0 or last else None
        if evaluated or self.step % config.log_every == 0 or self.step == 1:
            self._log(grad_norm, evaluated)
        if self.sample and (self.step % config.sample_every == 0 or last):
            self._write_sample(self.sample)
            if self._last_sample is not None and not last:
                self._tell("on_sample", self._last_sample)
        if self.step % config.checkpoint_every == 0:
            self.save()

    def measure(self) -> Evaluation:
        """Evaluate the model as it is, and let it write: the result will tell of that."""
        evaluation = self._evaluate_quietly()
        if self.sample:
            self._write_sample(self.sample)
        return evaluation

    def _evaluate(self) -> Evaluation:
        evaluation = self._evaluate_quietly()
        self._tell("on_evaluate", evaluation)
        return evaluation

    def _evaluate_quietly(self) -> Evaluation:
        rows = max(1, self.config.batch_size // self.config.accumulate)
        batches = self.dataset.validation(rows)
        with self.clock.timing("evaluating"):
            self.evaluation = evaluate(
                self.model, batches, tokenizer=self.tokenizer, floor=self.floor, loss=self.loss
            )
        return self.evaluation

    def _write_sample(self, sample: Callable[[Any], str]) -> None:
        self._last_sample = None
        sampling = self.clock.timing("sampling")
        with not_ending_the_run("the sample"), evaluating(self.model), no_grad(), sampling:
            self._last_sample = sample(self.model)

    def _write_card(self, result: TrainResult) -> None:
        if self.run_folder:
            with not_ending_the_run("the model card"):
                self.run_folder.write_card(self, result)

    def _log(self, grad_norm: float, evaluated: Evaluation | None) -> None:
        loss, self.tokens_per_s = self._since_log.means()
        self._since_log = _SinceLog()
        record = {
            "step": self.step,
            "loss": loss,
            "val_loss": evaluated.loss if evaluated else None,
            "floor": self.floor,
            "tokens_per_s": round(self.tokens_per_s, 1),
            "lr": self.optimizer.lr,
            "grad_norm": grad_norm,
            "seconds": round(self.seconds, 3),
            "tokens": self.tokens,
        }
        self.history.append(record)
        if self.run_folder:
            self.run_folder.log(record)
        self._tell("on_log", record)

    def _finish(self) -> TrainResult:
        finished = self.step >= self.config.steps
        if finished and self.evaluation is None:  # resumed when all was done
            self._evaluate()
            if self._last_sample is None and self.sample:
                self._write_sample(self.sample)
        self.save()
        if finished:
            self._tell("on_finish")
        return TrainResult(
            step=self.step,
            steps=self.config.steps,
            stopped="finished" if finished else self._stopped,
            loss=self.history[-1]["loss"] if self.history else math.nan,
            evaluation=self.evaluation,
            tokens=self.tokens,
            seconds=self.seconds,
            sample=self._last_sample,
            resume_command=self.run_folder.resume_command if self.run_folder and not finished else None,
        )

    # ---- safety ----------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """How long the run has lasted, in all its sessions."""
        return self._seconds_before + time.perf_counter() - self._begun

    def save(self) -> None:
        """Save a checkpoint of the step that was done last, if there is a run folder and it has
        none yet.
        """
        if self.run_folder is None or self.step == self._saved_step:
            return
        tensors = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        for kind, optimizer in self.optimizers.items():
            tensors |= {f"{kind}.{name}": array for name, array in optimizer.state_dict().items()}
        state = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "since_log": dataclasses.asdict(self._since_log),
            "sample": self._last_sample,
            "depends_on": self._depends_on(),
        }
        save_checkpoint(self.run_folder.checkpoints, self.step, tensors, state, keep=self.config.keep_checkpoints)
        self._saved_step = self.step
        self.run_folder.save_model(self.model, self.tokenizer)

    def resume(self) -> int:
        """Go back to the newest whole checkpoint of the run folder; returns its step, 0 when there
        is none yet.

        Warns when the configuration or the data is no longer that of the checkpoint; with other
        steps it says how the learning rate goes on. Raises FileNotFoundError when a model was saved
        and the checkpoints are gone, ValueError when all checkpoints are damaged, or belong to
        another model, and BlockingIOError when another process trains in the run folder.
        """
        if self.run_folder is None:
            raise ValueError("Trainer.resume: there is no run folder; pass run=Run.open(folder)")
        with self.run_folder.lock():
            if self.run_folder.saved_step() is None:  # it ended before the first checkpoint
                self.history = self.run_folder.cut_log(0)
                return 0
            checkpoint = load_checkpoint(self.run_folder.checkpoints)
            tensors, state = checkpoint.tensors, checkpoint.state
            began_with = state["depends_on"].get("optimizer", "adamw")  # those of old had no choice
            if began_with != self.config.optimizer:
                raise ValueError(
                    f"Trainer.resume: the run began with optimizer={began_with!r}, and goes on with that; "
                    f"got {self.config.optimizer!r}"
                )
            self.model.load_state_dict(_under("model.", tensors))
            for kind, optimizer in self.optimizers.items():
                optimizer.load_state_dict(_under(f"{kind}.", tensors))
            self.step = self._saved_step = checkpoint.step
            self.tokens, self._seconds_before = state["tokens"], state["seconds"]
            self._since_log = _SinceLog(**state["since_log"])
            self._last_sample = state.get("sample")
            self.history = self.run_folder.cut_log(self.step)
            self.run_folder.save_model(self.model, self.tokenizer)  # the end may have come before it was written
        if changed := self._changes(state["depends_on"]):
            warnings.warn(f"the run goes on, but not as it would have: {'; '.join(changed)}", stacklevel=2)
        return self.step

    def _changes(self, then: dict[str, Any]) -> list[str]:
        """What is no longer as a checkpoint says that it was; old ones say nothing of the data."""
        now = self._depends_on()
        names = [name for name in now if then.get(name, now[name]) != now[name]]
        changed = {name: f"{name} was {then[name]}, now {now[name]}" for name in names}
        if "tokens_per_epoch" in changed:
            changed.pop("data", None)
        if "steps" in changed and self.step < self.config.steps:
            planned = dataclasses.replace(self.config, steps=then["steps"], warmup=then.get("warmup")).learning_rates()
            before, after = planned(min(self.step, then["steps"] - 1)), self.learning_rates(self.step)
            changed["steps"] += f", so the learning rate goes on at {after:.3g}, not {before:.3g}"
        return list(changed.values())

    def _depends_on(self) -> dict[str, Any]:
        """What the weights after the last step depend on, beside the checkpoint."""
        reports = {f"{what}_every" for what in ("log", "evaluate", "sample", "checkpoint")} | {"keep_checkpoints"}
        settings = {name: value for name, value in dataclasses.asdict(self.config).items() if name not in reports}
        settings["betas"] = list(settings["betas"])  # as JSON gives it back
        return settings | {"tokens_per_epoch": self.dataset.tokens_per_epoch, "data": self._digest}

    @functools.cached_property
    def _digest(self) -> str:
        """Of the data; of a dataset that gives no digest, of its first batch."""
        if isinstance(self.dataset, StreamDataset | DocumentDataset | BucketedDataset | ShardDataset):
            return self.dataset.digest()[:16]
        batch = self.dataset.batch(0, self.config.batch_size, self.config.seed)
        return id_digest(map(np.asarray, batch))[:16]

    def _check_finite(self, loss: float, grad_norm: float) -> None:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's length is {grad_norm}"
            raise FloatingPointError(
                f"Trainer: {what} at step {self.step + 1}, which was not taken. {self._last_checkpoint()} "
                "A lower learning rate, a longer warm-up or a shorter clip may help"
            )

    def _disk_full(self, error: OSError) -> OSError:
        explained = OSError(
            f"Trainer: no space left on the disk after step {self.step}. {self._last_checkpoint()} "
            f"Make room, then go on with: {self.run_folder.resume_command if self.run_folder else ''}"
        )
        explained.errno = error.errno
        return explained

    def _last_checkpoint(self) -> str:
        if self.run_folder is None or self._saved_step < 0:
            return "There is no checkpoint yet."
        return f"The checkpoint of step {self._saved_step} in {self.run_folder.checkpoints} is good."

    def _tell(self, moment: str, *what: Any) -> None:
        for callback in self.callbacks:
            if callback.decorates:
                with not_ending_the_run(type(callback).__name__):
                    getattr(callback, moment)(self, *what)
            else:
                getattr(callback, moment)(self, *what)


@dataclass
class _SinceLog:
    """What happened since the last line of the log."""

    steps: int = 0
    loss: float = 0.0  # the sum
    tokens: int = 0
    seconds: float = 0.0  # spent on learning alone

    def add(self, loss: float, tokens: int, seconds: float) -> None:
        self.steps, self.loss = self.steps + 1, self.loss + loss
        self.tokens, self.seconds = self.tokens + tokens, self.seconds + seconds

    def means(self) -> tuple[float, float]:
        """The mean loss, and the tokens per second."""
        return self.loss / self.steps, self.tokens / max(self.seconds, 1e-9)


def _parts(batch: Batch, count: int) -> Iterator[tuple[Batch, float]]:
    """A batch cut by rows into ``count`` parts, each with its share of the targets.

    The mean loss of the batch is the sum of the parts' means, each times its share; so is its
    gradient.
    """
    if count == 1:
        yield batch, 1.0
        return
    for rows in np.array_split(np.arange(len(batch[-1])), count):
        part = tuple(array[rows] for array in batch)
        if _count(part):
            yield part, _count(part) / _count(batch)


def _count(batch: Batch) -> int:
    """How many targets of a batch are counted."""
    return int(np.count_nonzero(batch[-1] != IGNORE))


def _under(prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _as_dataset(dataset: Any, model: Any, config: TrainConfig) -> Dataset:
    """The dataset, once it has all that a `Dataset` has; plain ids as one."""
    if not callable(getattr(dataset, "batch", None)):
        return _windows_of(dataset, model, config)
    needed = {
        "validation": "validation(batch_size), which yields the batches to evaluate on",
        "tokens_per_epoch": "tokens_per_epoch, the number of targets in one pass",
        "validation_tokens": "validation_tokens, the number of targets that validation() yields",
    }
    if missing := [what for name, what in needed.items() if not hasattr(dataset, name)]:
        raise ValueError(f"Trainer: dataset {type(dataset).__name__} has no {'; no '.join(missing)}")
    if dataset.validation_tokens == 0:
        raise ValueError(
            f"Trainer: {type(dataset).__name__} holds nothing to evaluate on (its validation_tokens are 0): "
            "hold out a part of what there is to learn"
        )
    return dataset


def _windows_of(ids: Any, model: Any, config: TrainConfig) -> StreamDataset:
    """Plain ids as a dataset: the last tenth, at most 100,000 tokens, for validation."""
    ids = np.asanyarray(ids)
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(
            f"Trainer: dataset must have batch() and validation(), or be token ids, (N,) integers; "
            f"got {ids.dtype} {ids.shape}"
        )
    context = config.context or getattr(model, "context", None)
    if context is None:
        raise ValueError("Trainer: this model sees any number of tokens: say how many a row has, TrainConfig(context=)")
    cut = len(ids) - min(len(ids) // 10, 100_000)
    return StreamDataset(ids[:cut], ids[cut:], context)
