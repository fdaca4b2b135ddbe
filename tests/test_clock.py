"""Where the time goes, and how much is left."""

import types

import pytest

from minillm import kernels
from minillm.training import clock as clock_file
from minillm.training.callbacks import seconds_left
from minillm.training.clock import RECENT, Clock, minutes


class Run:
    """Stands in for a trainer, and for the time that passes."""

    def __init__(self, monkeypatch, steps):
        self.now = 0.0
        monkeypatch.setattr(clock_file.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(kernels, "on_compile", self.listen, raising=False)
        self.clock, self.step, self.tokens = Clock(), 0, 0
        self.config = types.SimpleNamespace(steps=steps, evaluate_every=steps // 10, sample_every=steps // 5)
        self.dataset = types.SimpleNamespace(validation_tokens=300)

    def listen(self, tell):
        self.tell = tell
        return lambda: None

    def work(self, kind, seconds, compiling=0.0):
        with self.clock.timing(kind):
            if compiling:
                self.tell("kernel", None)
                self.now += compiling
                self.tell("kernel", compiling)
            self.now += seconds

    def learn(self, seconds):
        self.work("learning" if self.step else "starting", seconds)
        self.step, self.tokens = self.step + 1, self.tokens + 100
        if self.step % self.config.evaluate_every == 0:
            self.work("evaluating", seconds)  # 300 tokens, without backward


def test_the_time_left_is_that_of_the_steps_evaluations_and_samples_to_come(monkeypatch):
    run = Run(monkeypatch, steps=100)
    for _ in range(20):
        run.learn(2.0)
    assert seconds_left(run) == pytest.approx(80 * 2.0 + 8 * 2.0)
    run.work("sampling", 5.0)
    assert seconds_left(run) == pytest.approx(80 * 2.0 + 8 * 2.0 + 4 * 5.0)


def test_compiling_is_no_part_of_a_step(monkeypatch):
    run = Run(monkeypatch, steps=100)
    run.work("learning", 2.0, compiling=30.0)
    assert run.clock.pace("learning") == 2.0 and run.clock.seconds["compiling"] == 30.0


def test_the_last_steps_tell_the_pace(monkeypatch):
    run = Run(monkeypatch, steps=1000)
    for seconds in [1.0] * RECENT + [3.0] * RECENT:
        run.work("learning", seconds)
    assert run.clock.pace("learning") == 3.0
    assert str(run.clock) == f"{minutes(4 * RECENT)} in all: learning {minutes(4 * RECENT)}"


def test_a_step_that_takes_long_changes_nothing(monkeypatch):
    run = Run(monkeypatch, steps=100)
    for seconds in (9.0, 2.0, 2.0, 2.0, 30.0, 2.0):
        run.work("learning", seconds)
    assert run.clock.pace("learning") == 2.0


def test_minutes():
    assert [minutes(seconds) for seconds in (0.4, 59.6, 130, 3725)] == ["0:00", "1:00", "2:10", "1:02:05"]
