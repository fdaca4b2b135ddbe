"""The loop learns, survives what may happen to it, and goes on to the same bits."""

import contextlib
import doctest
import errno
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from minillm import functional as F
from minillm import models, nn, optim
from minillm.data import DocumentDataset, PairDataset, SpanCorruptionDataset, StreamDataset
from minillm.files import read_safetensors
from minillm.tensor import Tensor
from minillm.training import callbacks, config
from minillm.training.callbacks import Callback, CompileNotice, Progress
from minillm.training.evaluate import evaluate, evaluating
from minillm.training.plot import LossPlot
from minillm.training.run import Run
from minillm.training.trainer import TrainConfig, Trainer
from tests.faults import faulty_disk
from tests.tiny_training import start_or_resume, tiny_ids, tiny_model, tiny_trainer

HOME = Path(__file__).parents[1]
TIMES = ("seconds", "tokens_per_s")


def weights(model):
    return {name: array.copy() for name, array in model.state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name]), name


def untimed(records):
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


class StopAt(Callback):
    def __init__(self, *steps):
        self.steps = steps

    def on_step(self, trainer, loss):
        if trainer.step in self.steps:
            trainer.stop("enough")


def test_docstring_examples():
    assert doctest.testmod(config).failed == 0
    assert doctest.testmod(callbacks).failed == 0


# ---- learning --------------------------------------------------------------------------------------------------------


def test_it_learns_what_there_is_to_learn():
    """Of two equally likely continuations the best model leaves log 2 = 0.693 nats."""
    model = tiny_model(dropout=0.0)
    result = tiny_trainer(model=model, steps=300, batch_size=16).run()
    assert result.stopped == "finished" and result.step == 300 and result.tokens == 300 * 16 * 8
    assert math.log(2) < result.val_loss < math.log(2) + 0.12
    assert model.training


def test_a_step_is_the_plain_loop():
    """Batch, forward, loss, backward, clip, learning rate, update: the same as written out by hand, bit for bit."""
    trained = tiny_trainer(steps=5, clip=0.5, schedule="wsd", warmup=2, weight_decay=0.3, seed=7)
    trained.run()

    model, data = tiny_model(), StreamDataset(tiny_ids()[:360], tiny_ids()[360:], context=8)
    optimizer = optim.AdamW(optim.decay_groups(model.parameters(), 0.3), lr=0.02, betas=(0.9, 0.95))
    schedule = optim.wsd(0.02, steps=5, warmup=2, final=0.002)
    for step in range(5):
        x, y = data.batch(step, 4, seed=7)
        model.set_rng(np.random.default_rng((7, step, 1)))
        loss = F.cross_entropy(model(x).reshape(-1, 17), y.reshape(-1))
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 0.5)
        optimizer.lr = schedule(step)
        optimizer.step()
        optimizer.zero_grad()
    assert_same(weights(trained.model), weights(model))


class Ragged:
    """Batches in which rows have very different numbers of targets, one row none at all."""

    tokens_per_epoch = validation_tokens = 1

    def batch(self, step, batch_size, seed):
        rng = np.random.default_rng((seed, step))
        x, y = rng.integers(0, 17, size=(2, batch_size, 8))
        y[np.arange(8) >= rng.integers(0, 9, size=(batch_size, 1))] = -100
        y[0], y[1] = -100, x[1]
        return x, y

    def validation(self, batch_size):
        yield self.batch(0, 8, 1)


@pytest.mark.parametrize("accumulate", [2, 4, 7, 32])
def test_accumulation_equals_one_batch(accumulate):
    def train(accumulate):
        model = tiny_model(np.float64, dropout=0.0)
        losses = []
        collect = Callback()
        collect.on_step = lambda trainer, loss: losses.append(loss)
        config = TrainConfig(steps=10, batch_size=32, accumulate=accumulate, learning_rate=0.01)
        Trainer(model, Ragged(), config, quiet=True, callbacks=[collect]).run()
        return losses, weights(model)

    losses, whole = train(1)
    other_losses, parts = train(accumulate)
    np.testing.assert_allclose(other_losses, losses, rtol=1e-10)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("kind", ["pairs", "spans"])
def test_an_encoder_and_a_decoder(tmp_path, kind):
    """The loop knows no architecture: T5 learns, a batch in parts is the batch, and a run in parts is the run."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(12, 20, rng.integers(3, 9)).tolist() for _ in range(40)]
    pairs = [([*text, 1], [*text[::-1], 1]) for text in texts]
    spans = SpanCorruptionDataset(texts, texts[:5], sentinels=range(2, 12), eos_id=1)
    dataset = PairDataset(pairs, pairs[:5]) if kind == "pairs" else spans

    def train(run=None, dtype=np.float32, dropout=0.2, callbacks=(), **settings):
        sizes = dict(vocab_size=20, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2, dropout_rate=dropout)
        model = models.T5(models.T5Config(**sizes), 0).astype(dtype)
        config = TrainConfig(batch_size=8, learning_rate=0.01, **settings)
        trainer = Trainer(model, dataset, config, run=run, quiet=True, callbacks=callbacks)
        trainer.callbacks = list(callbacks)
        return trainer

    whole = train(steps=40)
    result = whole.run()
    assert result.evaluation.loss < whole.history[0]["loss"] - 0.3
    assert result.evaluation.tokens == dataset.validation_tokens
    train(tmp_path / "run", steps=40, callbacks=[StopAt(17)]).run()
    rest = train(Run.open(tmp_path / "run"), steps=40)
    assert rest.resume() == 17
    rest.run()
    assert_same(weights(rest.model), weights(whole.model))
    one, parts = (train(dtype=np.float64, dropout=0.0, steps=6, accumulate=n) for n in (1, 3))
    one.run(), parts.run()
    for name, array in weights(one.model).items():
        np.testing.assert_allclose(weights(parts.model)[name], array, rtol=1e-9, atol=1e-10, err_msg=name)


def test_frozen_parameters_stay():
    model = tiny_model()
    model.transformer.wte.weight.requires_grad = False
    before = weights(model)
    tiny_trainer(model=model, steps=3).run()
    after = weights(model)
    assert np.array_equal(before["transformer.wte.weight"], after["transformer.wte.weight"])
    assert not np.array_equal(before["transformer.wpe.weight"], after["transformer.wpe.weight"])


@pytest.mark.parametrize(
    ("model", "ends"),
    [
        (models.GPT2(models.GPT2Config(9, 8, 4, 1, 1, tie_word_embeddings=False), 0), {"wte", "wpe", "lm_head"}),
        (models.Llama(models.LlamaConfig(9, 4, 6, 1, 1), 0), {"embed_tokens", "lm_head"}),
        (models.RecurrentLM(models.RecurrentLMConfig(16, 4, 1), 0), {"embedding"}),  # its gates are as many as tokens
        (models.T5(models.T5Config(9, 4, 2, 6, 1, num_heads=2), 0), {"shared", "relative_attention_bias"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_muon_is_for_the_matrices_between_embeddings_and_scores(model, ends):
    names = {id(p): name for name, p in model.named_parameters()}
    matrices = {name for name, p in model.named_parameters() if p.ndim == 2}
    hidden = {names[id(p)] for p in model.hidden_matrices()}
    assert hidden and {name.split(".")[-2] for name in matrices - hidden} == ends
    made = TrainConfig(optimizer="muon").optimizers(model)
    assert {names[id(p)] for p in made["muon"].params} == hidden
    assert {names[id(p)] for p in made["optimizer"].params} == set(names.values()) - hidden
    for name, p in model.named_parameters():
        p.requires_grad = name not in hidden
    assert list(TrainConfig(optimizer="muon").optimizers(model)) == ["optimizer"]
    for name, p in model.named_parameters():
        p.requires_grad = name in hidden
    assert list(TrainConfig(optimizer="muon").optimizers(model)) == ["muon"]


def test_muon_needs_a_model_that_knows_its_hidden_matrices():
    with pytest.raises(ValueError, match="'muon' is for the language models.*got Linear: use 'adamw'"):
        TrainConfig(optimizer="muon").optimizers(nn.Linear(2, 3))


# ---- the same bits after an interruption -----------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3, "schedule": "wsd"}, {"optimizer": "muon"}])
def test_two_hundred_steps_in_three_pieces(tmp_path, settings):
    """73 + save + load + 61 + save + load + 66 steps: weights, optimiser, log, all the same bits."""
    settings |= {"steps": 200, "log_every": 7, "checkpoint_every": 1000}
    whole = tiny_trainer(tmp_path / "whole", **settings)
    whole.run()
    for stop_at in (73, 134, None):
        piece = start_or_resume(tmp_path / "pieces", callbacks=[StopAt(stop_at)], **settings)
        assert piece.step == {73: 0, 134: 73, None: 134}[stop_at]
        result = piece.run()
        assert result.stopped == ("enough" if stop_at else "finished")
    assert_same(weights(piece.model), weights(whole.model))
    assert len(piece.optimizers) == 1 + ("optimizer" in settings)
    for kind, optimizer in piece.optimizers.items():
        assert_same(optimizer.state_dict(), whole.optimizers[kind].state_dict())
    assert untimed(piece.history) == untimed(whole.history)
    assert untimed(Run.open(tmp_path / "pieces").records()) == untimed(whole.history)
    assert piece.tokens == whole.tokens


def test_evaluating_sampling_and_saving_change_nothing():
    def sample(model):
        assert not model.training
        return "text"

    busy = tiny_trainer(sample=sample, steps=20, evaluate_every=1, sample_every=1, log_every=1)
    quiet = tiny_trainer(steps=20)
    busy.run(), quiet.run()
    assert_same(weights(busy.model), weights(quiet.model))


def test_kill_9_at_random_moments(tmp_path):
    """Thirty deaths of a real process, most of them while it saves; what is finished in the end has the same bits."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tiny_training"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HOME,
        env=os.environ | {"MINILLM_KERNELS": "numpy"},  # a process whose kernels have threads cannot be forked
    )

    def train(folder, kill_after=None):
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        pid = int(process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(pid, signal.SIGKILL)
        return int(process.stdout.readline())

    def final(folder):
        run = Run.open(folder)
        assert (run.checkpoints / "step-00000120").exists()
        return (folder / "model.safetensors").read_bytes(), untimed(run.records())

    with process:
        begun = time.monotonic()
        assert train(tmp_path / "whole") == 0
        duration = time.monotonic() - begun
        rng, killed, folders = np.random.default_rng(), 0, [tmp_path / "killed-0"]
        while killed < 30:
            code = train(folders[-1], kill_after=rng.uniform(0.02, 0.12 * duration))
            assert code in (0, -signal.SIGKILL)
            killed += code != 0
            if code == 0:
                folders.append(tmp_path / f"killed-{len(folders)}")
        assert train(folders[-1]) == 0
        expected = final(tmp_path / "whole")
        for folder in folders:
            assert final(folder) == expected
        process.stdin.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(tmp_path, number, capfd):
    class Signal(Callback):
        def on_step(self, trainer, loss):
            if trainer.step == 11:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    result = tiny_trainer(tmp_path / "run", callbacks=[Signal()]).run()
    assert result.step == 11 and result.stopped == ("Ctrl-C" if number == signal.SIGINT else "SIGTERM")
    assert signal.getsignal(number) is before
    assert str(result).startswith(f"stopped after step 11 of 60 ({result.stopped})")
    assert str(result).endswith(f"run=Run.open('{tmp_path / 'run'}')); trainer.resume(); trainer.run()")
    assert "once more to quit at once" in capfd.readouterr().err
    assert "trainer.resume()" in (tmp_path / "run" / "README.md").read_text()
    resumed = start_or_resume(tmp_path / "run")
    assert resumed.step == 11
    resumed.run()
    whole = tiny_trainer()
    whole.run()
    assert_same(weights(resumed.model), weights(whole.model))


def test_a_second_signal_ends_the_process_at_once(tmp_path):
    script = (
        "import os, signal\n"
        "from minillm.training.callbacks import Callback\n"
        "from tests.tiny_training import tiny_trainer\n"
        "class Twice(Callback):\n"
        "    def on_step(self, trainer, loss):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('still here', flush=True)\n"
        f"tiny_trainer({str(tmp_path / 'run')!r}, [Twice()]).run()\n"
    )
    env = os.environ | {"MINILLM_KERNELS": "numpy"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, cwd=HOME)
    assert done.returncode == 128 + signal.SIGINT and done.stdout == "", done.stderr


def test_resuming_before_the_first_checkpoint_begins_anew(tmp_path):
    Run.create(tmp_path / "run").log({"step": 3, "loss": 1.0})
    again = start_or_resume(tmp_path / "run", steps=10)
    assert again.step == 0 and again.history == [] and Run.open(tmp_path / "run").records() == []


def test_resuming_when_all_is_done_evaluates(tmp_path):
    first = tiny_trainer(tmp_path / "run", steps=10).run()
    again = start_or_resume(tmp_path / "run", steps=10).run()
    assert again.val_loss == first.val_loss and again.stopped == "finished" and again.resume_command is None
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000010"]


def test_a_death_between_checkpoint_and_model(tmp_path):
    """config.json goes first and comes last when the model is replaced: it may be missing, and the model be old."""
    tiny_trainer(tmp_path / "run", steps=10).run()
    expected = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "run" / "config.json").unlink()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"old")
    start_or_resume(tmp_path / "run", steps=10).run()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == expected
    assert (tmp_path / "run" / "config.json").exists()


def test_resuming_otherwise_warns(tmp_path):
    tiny_trainer(tmp_path / "run", callbacks=[StopAt(5)]).run()
    with pytest.warns(UserWarning, match=r"learning_rate was 0.02, now 0.5; seed was 0, now 3"):
        start_or_resume(tmp_path / "run", learning_rate=0.5, seed=3, evaluate_every=9)
    other = Trainer(
        nn.Linear(2, 2), StreamDataset(tiny_ids(), tiny_ids(), 8), quiet=True, run=Run.open(tmp_path / "run")
    )
    with pytest.raises(ValueError, match="missing weight"):
        other.resume()
    with pytest.raises(ValueError, match="Trainer.resume: there is no run folder"):
        tiny_trainer().resume()


@pytest.mark.parametrize("began, goes_on", [("adamw", "muon"), ("muon", "adamw")])
def test_a_run_goes_on_with_its_own_optimizer(tmp_path, began, goes_on):
    tiny_trainer(tmp_path / "run", optimizer=began, callbacks=[StopAt(5)]).run()
    with pytest.raises(ValueError, match=f"began with optimizer='{began}', and goes on with that; got '{goes_on}'"):
        start_or_resume(tmp_path / "run", optimizer=goes_on)


# ---- when it goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_with_the_step(tmp_path, where):
    class Poison(Callback):
        def on_step(self, trainer, loss):
            if trainer.step == 12 and where == "loss":
                trainer.model.transformer.wte.weight.data[:] = np.nan
            elif trainer.step == 12:
                trainer.model.transformer.wpe.weight.register_hook(lambda g: g + np.inf)

    run = tmp_path / "run"
    failing = tiny_trainer(run, callbacks=[Poison()], checkpoint_every=5)
    what = "the loss is nan" if where == "loss" else "the gradient's length is inf"
    with pytest.raises(FloatingPointError, match=f"{what} at step 13, .*The checkpoint of step 10 .* is good"):
        failing.run()
    assert start_or_resume(run).step == 10


def test_a_full_disk_is_one_clear_line_wherever_it_happens(tmp_path):
    """Every write, fsync and rename of the run fails once; a checkpoint that was good before is good after."""
    with faulty_disk() as disk:
        tiny_trainer(tmp_path / "counted", steps=4, checkpoint_every=2, evaluate_every=4).run()
    whole, failures = None, 0
    for fail_at in range(3, len(disk.log), 7):
        folder = tmp_path / f"run-{fail_at}"
        try:
            with faulty_disk(fail_at):
                tiny_trainer(folder, steps=4, checkpoint_every=2, evaluate_every=4).run()
            continue  # it failed where it does no harm: while something old was removed
        except OSError as raised:
            error, failures = raised, failures + 1
        assert error.errno == errno.ENOSPC
        promised = re.fullmatch(
            r"Trainer: no space left on the disk after step \d. (The checkpoint of step (\d) in .*checkpoints is good|"
            r"There is no checkpoint yet). Make room, then go on with: trainer = .*; trainer.run\(\)",
            str(error),
        )
        resumed = start_or_resume(folder, steps=4, checkpoint_every=2, evaluate_every=4)
        assert resumed.step >= int(promised[2] or 0)
        resumed.run()
        whole = whole or weights(resumed.model)
        assert_same(weights(resumed.model), whole)
    assert failures > 12


def test_an_existing_folder_is_never_overwritten(tmp_path):
    tiny_trainer(tmp_path / "run", steps=1).run()
    with pytest.raises(FileExistsError, match="exists already.*resume"):
        tiny_trainer(tmp_path / "run", steps=1)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be at least 1; got 2.5"),
        ({"batch_size": 4, "accumulate": 5}, "accumulate must be at most batch_size = 4; got 5"),
        ({"warmup": 2000}, "warmup must be from 0 to steps = 1000; got 2000"),
        ({"learning_rate": math.nan}, "learning_rate must be a number from 0 to inf; got nan"),
        ({"final_fraction": 1.5}, "final_fraction must be a number from 0 to 1; got 1.5"),
        ({"schedule": "linear"}, "schedule must be one of cosine, wsd, constant; got 'linear'"),
        ({"optimizer": "lion"}, "optimizer must be one of adamw, muon; got 'lion'"),
        ({"seed": -1}, "seed must be an integer >= 0; got -1"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ValueError, match=f"TrainConfig: {message}"):
        TrainConfig(**settings)


def test_numbers_of_numpy_are_numbers():
    made = TrainConfig(
        steps=np.int64(10), batch_size=np.uint8(4), warmup=np.int32(2), seed=np.int16(3), context=np.int64(8),
        learning_rate=np.float32(0.5), clip=np.float64(2.0), betas=(np.float32(0.5), np.float64(0.75)),
    )  # fmt: skip
    plain = TrainConfig(
        steps=10, batch_size=4, warmup=2, seed=3, context=8, learning_rate=0.5, clip=2.0, betas=(0.5, 0.75)
    )
    assert made == plain and json.dumps(vars(made)) == json.dumps(vars(plain))
    for wrong in (True, np.bool_(True), np.float64(3.0), "3"):
        with pytest.raises(ValueError, match="steps must be at least 1"):
            TrainConfig(steps=wrong)


def test_a_floor_of_numpy_is_logged(tmp_path):
    trainer = tiny_trainer(tmp_path / "run", steps=2)
    trainer.floor = np.float32(0.5)
    trainer.run()
    assert Run.open(tmp_path / "run").records()[-1]["floor"] == 0.5


@pytest.mark.parametrize("where", ["on_start", "on_step", "on_log", "on_evaluate", "on_end"])
def test_what_only_decorates_never_ends_a_run(tmp_path, where):
    class Fails(Callback):
        decorates = True

    failing = Fails()
    setattr(failing, where, lambda *_: 1 / 0)
    with pytest.warns(UserWarning, match="^Fails failed, and the run goes on: division by zero$"):
        result = tiny_trainer(tmp_path / "run", callbacks=[failing], steps=4, evaluate_every=2).run()
    assert result.stopped == "finished" and (tmp_path / "run" / "README.md").exists()
    failing.decorates = False
    with pytest.raises(ZeroDivisionError):
        tiny_trainer(callbacks=[failing], steps=4, evaluate_every=2).run()


def test_a_sample_or_a_card_that_fails_is_told_and_missed(tmp_path, monkeypatch):
    def sample(model):
        raise ValueError("no\nwords")

    monkeypatch.setattr(Run, "write_card", lambda *_: 1 / 0)
    with pytest.warns(UserWarning) as warned:
        result = tiny_trainer(tmp_path / "run", sample=sample, steps=2).run()
    assert [str(w.message) for w in warned] == [
        "the sample failed, and the run goes on: no words",
        "the model card failed, and the run goes on: division by zero",
    ]
    assert result.stopped == "finished" and result.sample is None


def test_the_error_that_ended_a_run_is_the_one_that_is_seen(tmp_path):
    class Poison(Callback):
        def on_step(self, trainer, loss):
            trainer.model.transformer.wte.weight.data[:] = np.nan

        def on_end(self, trainer, result):
            raise KeyError("after it")

    with pytest.warns(UserWarning, match="after it"), pytest.raises(FloatingPointError, match="the loss is nan"):
        tiny_trainer(tmp_path / "nan $_$", callbacks=[Poison(), LossPlot()], steps=4, log_every=1).run()


def test_progress_without_a_listener():
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with pytest.warns(UserWarning, match="Progress failed, and the run goes on"):
        assert tiny_trainer(callbacks=[Progress(Broken())], steps=4).run().stopped == "finished"
    ascii = io.TextIOWrapper(io.BytesIO(), "ascii")
    tiny_trainer(callbacks=[Progress(ascii)], sample=lambda model: "日本 cat", steps=4, sample_every=2).run()
    ascii.flush()
    assert b"  | ?? cat\n" in ascii.buffer.getvalue()


# ---- threads, and NumPy's switches -----------------------------------------------------------------------------------


def in_threads(*jobs):
    """Run jobs at once; returns their results."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(job) for job in jobs]]


def test_two_trainings_at_once_are_those_of_one_after_the_other():
    def train(seed):
        trainer = tiny_trainer(seed=seed, evaluate_every=3)
        trainer.run()
        return weights(trainer.model) | {"losses": np.array([record["loss"] for record in trainer.history])}

    alone = [train(seed) for seed in (1, 2)]
    for one, other in zip(alone, in_threads(lambda: train(1), lambda: train(2)), strict=True):
        assert_same(one, other)
    assert not np.array_equal(alone[0]["losses"], alone[1]["losses"])


def test_a_dataset_that_two_trainings_share():
    dataset = DocumentDataset([[i, i + 1] for i in range(1, 9)] * 3, [[1, 2]], context=8, eos_id=0)
    expected = {seed: [dataset.batch(step, 3, seed)[0] for step in range(200)] for seed in (1, 2)}
    for seed, found in zip((1, 2), in_threads(*[
        lambda seed=seed: [dataset.batch(step, 3, seed)[0] for step in range(200)] for seed in (1, 2)
    ]), strict=True):  # fmt: skip
        assert all(np.array_equal(a, b) for a, b in zip(found, expected[seed], strict=True))


def test_a_model_that_is_evaluated_in_one_thread_is_trained_in_another():
    """Dropout drops for the one and not for the other, and the training is that of a model left alone."""
    alone = tiny_trainer()
    alone.run()
    trained, done = tiny_trainer(), threading.Event()
    batches = list(trained.dataset.validation(4))

    def evaluate_all_the_time():
        losses = set()
        while not done.is_set():
            with evaluating(trained.model):
                assert not any(module.training for module in trained.model.modules())
                losses.add(evaluate(trained.model, batches[:1]).loss)
        return len(losses)

    def train():
        try:
            return trained.run()
        finally:
            done.set()

    looked, _ = in_threads(evaluate_all_the_time, train)
    assert looked and trained.model.training
    assert_same(weights(trained.model), weights(alone.model))


def test_np_seterr_does_not_break_a_training():
    """Adam's averages and far-off probabilities become smaller than any float: that is no error."""
    whole = tiny_trainer(steps=20)
    whole.run()
    with np.errstate(all="raise"):
        careful = tiny_trainer(steps=20)
        careful.model.transformer.wte.weight.data *= 1  # the same
        careful.run()
        sharp = tiny_trainer(steps=3, learning_rate=0.0)
        sharp.model.transformer.wte.weight.data *= 300.0  # tied to the head: probabilities far below 1e-38
        sharp.run()
    assert_same(weights(careful.model), weights(whole.model))


def test_data_that_makes_no_sense():
    with pytest.raises(ValueError, match=r"token ids, \(N,\) integers; got float64 \(3,\)"):
        Trainer(tiny_model(), np.zeros(3), quiet=True)
    with pytest.raises(ValueError, match="shorter than one context"):
        Trainer(tiny_model(), [1, 2, 3], quiet=True)


# ---- what can be seen ------------------------------------------------------------------------------------------------


def test_callbacks_hear_everything_in_order(tmp_path):
    heard = []

    class Listen(Callback):
        def __init__(self):
            for name in ("on_start", "on_step", "on_log", "on_evaluate", "on_sample", "on_end"):
                setattr(self, name, lambda trainer, *what, name=name: heard.append((trainer.step, name[3:])))

    tiny_trainer(
        callbacks=[Listen()], sample=lambda model: "once", steps=4, evaluate_every=2, sample_every=3, log_every=3
    ).run()
    assert heard == [
        (0, "start"),
        (1, "step"), (1, "log"),
        (2, "step"), (2, "evaluate"), (2, "log"),
        (3, "step"), (3, "log"), (3, "sample"),
        (4, "step"), (4, "evaluate"), (4, "log"),
        (4, "end"),
    ]  # fmt: skip


def test_a_sample_may_be_left_out_where_it_is_no_time_for_one():
    told, callback = [], Callback()
    callback.on_sample = lambda trainer, text: told.append(trainer.step)
    later = tiny_trainer(callbacks=[callback], steps=6, sample_every=2)
    later.sample = lambda model: "once" if later.step > 2 else None
    assert later.run().sample == "once" and told == [4]


def test_the_log(tmp_path):
    losses = []
    collect = Callback()
    collect.on_step = lambda trainer, loss: losses.append(loss)
    trainer = tiny_trainer(tmp_path / "run", callbacks=[collect], steps=10, log_every=4, evaluate_every=100)
    trainer.floor = 0.5
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 4, 8, 10]
    assert [line["val_loss"] is not None for line in lines] == [False, False, False, True]
    assert lines[2]["loss"] == pytest.approx(np.mean(losses[4:8]), rel=1e-12)
    assert {*lines[0]} == {"step", "loss", "val_loss", "floor", "tokens_per_s", "lr", "grad_norm", "seconds", "tokens"}
    assert lines[2]["tokens"] == 8 * 4 * 8 and lines[0]["floor"] == 0.5
    assert lines[3]["lr"] == pytest.approx(0.02 * 0.1)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_in_a_file_and_in_a_terminal():
    outputs = []
    for stream in (io.StringIO(), Terminal()):
        trainer = tiny_trainer(callbacks=[Progress(stream)], sample=lambda m: "Once\nupon", steps=60, sample_every=30)
        trainer.floor = 0.6931
        trainer.run()
        outputs.append(stream.getvalue())
    for output in outputs:
        assert "a sample after step 30\n  | Once\n  | upon" in output
        assert "finished 60 steps in 0:0" in output and "above the floor of 0.6931" in output
        assert "validation" in output and "floor 0.693" in output and "tokens/s" in output and " left" in output
    lines = [line for line in outputs[0].splitlines() if line.startswith("step")]
    assert [line.split("  loss")[0] for line in lines] == ["step  1/60", "step 20/60", "step 40/60", "step 60/60"]
    assert "100% |" in outputs[1] and "60/60" in outputs[1]


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_a_narrow_terminal_shows_the_loss():
    import fcntl
    import struct
    import termios

    reader, writer = os.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    with open(writer, "w") as stream:
        tiny_trainer(steps=3, callbacks=[Progress(stream)]).run()
        shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    bars = re.findall(r"100%[^\r\n]*", shown)
    assert bars and re.match(r"100%  loss \d\.\d{3}", bars[-1]) and max(map(len, bars)) <= 40


def test_the_notice_while_kernels_compile(monkeypatch):
    from minillm import kernels

    listeners = []
    monkeypatch.setattr(kernels, "on_compile", lambda f: listeners.append(f) or listeners.clear, raising=False)
    clock = iter(np.arange(100.0, 1000.0, 2.0))
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: next(clock))
    said = []
    with CompileNotice(said.append) as notice:
        tell = listeners[0]
        tell("_softmax_rows", None)
        tell("exp", None)  # called by the first, and compiled on the way
        tell("exp", 2.0)
        tell("_softmax_rows", 6.0)
        tell("matmul", None)
        tell("matmul", 2.0)
        notice.finish()
        notice.finish()
    assert said[0].startswith("compiling kernels for this machine, once")
    assert "compiling matmul (2 done)" in said
    assert said[-1] == "compiled 3 kernels in 8 s; they are kept for the next time"
    assert listeners == []
    outer, inner = [], []
    with CompileNotice(outer.append, about=20):
        listeners[0]("exp", None)
        listeners[0]("exp", 1.0)
        with CompileNotice(inner.append):
            for tell in listeners:  # both hear it, and the innermost speaks
                tell("matmul", None)
                tell("matmul", 1.0)
    assert outer[0] == "compiling kernels for this machine, once (the first time only, about 20 s)"
    assert [line.split(" in ")[0] for line in outer[1:]] == ["compiled 1 kernels"]
    assert not any("once" in line for line in inner) and inner[-1].startswith("compiled 1 kernels")


def test_any_module_can_be_trained(tmp_path):
    """A model that a learner wrote: no configuration, no way to save itself."""

    class Bigram(nn.Module):
        context = 4

        def __init__(self):
            self.table = Tensor(np.zeros((17, 17), np.float32), requires_grad=True)

        def forward(self, ids):
            return F.embedding(self.table, ids)

    model = Bigram()
    result = Trainer(
        model, tiny_ids(), TrainConfig(steps=200, learning_rate=0.1), quiet=True, run=tmp_path / "run"
    ).run()
    assert result.val_loss < 0.8
    assert np.array_equal(read_safetensors(tmp_path / "run" / "model.safetensors")["table"], model.table.data)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "model.load_state_dict(read_safetensors(" in card and "minillm generate" not in card


class Points:
    """x (B, 2) and targets: the class, or, for a loss of its own, two numbers."""

    tokens_per_epoch, validation_tokens = 400, 60

    def __init__(self, targets):
        self.x = np.random.default_rng(0).standard_normal((100, 2)).astype(np.float32)
        self.y = targets(self.x)

    def batch(self, step, batch_size, seed):
        rows = np.random.default_rng((seed, step)).integers(0, 60, batch_size)
        return self.x[rows], self.y[rows]

    def validation(self, batch_size):
        for start in range(60, 100, 16):
            yield self.x[start : start + 16], self.y[start : start + 16]


def squares(model, batch):
    return F.mse_loss(model(Tensor(batch[0])), Tensor(batch[1]))


def test_a_classifier_learns_with_the_loss_that_is_there():
    model = nn.Sequential(nn.Linear(2, 2, rng=0))
    settings = TrainConfig(steps=60, batch_size=16, learning_rate=0.1)
    result = Trainer(model, Points(lambda x: (x[:, 0] > 0).astype(int)), settings, quiet=True,
                     loss=lambda model, batch: F.cross_entropy(model(Tensor(batch[0])), batch[1])).run()  # fmt: skip
    assert result.evaluation.loss < 0.3 and result.evaluation.tokens == 40


def test_a_loss_of_its_own_is_learned_evaluated_and_told(tmp_path):
    data = Points(lambda x: x @ np.array([[2.0, 0.0], [1.0, -1.0]], np.float32))
    losses = {}
    for accumulate in (1, 4):
        model = nn.Linear(2, 2, rng=0)
        settings = TrainConfig(steps=60, batch_size=16, learning_rate=0.1, accumulate=accumulate)
        trainer = Trainer(model, data, settings, quiet=True, loss=squares, run=tmp_path / f"run{accumulate}")
        result = trainer.run()
        losses[accumulate] = result.loss
        error = np.square(model(Tensor(data.x[60:])).data - data.y[60:]).mean()
        assert result.evaluation.loss == pytest.approx(error, rel=1e-5) and error < 0.1
    assert losses[1] == pytest.approx(losses[4], rel=1e-3)
    assert re.fullmatch(r"loss 0\.0\d{3}; 80 targets at [\d,]+ a second", str(result.evaluation))
    assert "perplexity" not in result.evaluation.to_dict()
    card = (tmp_path / "run4" / "README.md").read_text()
    assert "| | own loss |" in card and "perplexity" not in card and "nats" not in card
    plain = evaluate(model, data.validation(8), loss=squares)
    assert plain.loss == pytest.approx(result.evaluation.loss, rel=1e-6)
