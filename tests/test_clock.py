"""The time left is right also while something that will end makes the steps slower."""

import types

import pytest

from minillm import kernels
from minillm.training import clock as clock_file
from minillm.training.callbacks import seconds_left
from minillm.training.clock import RECENT, Clock, minutes


class Run:
    """Stands in for a trainer, and for the time that passes."""

    def __init__(self, monkeypatch, steps, disturbed=lambda: False):
        self.now = 0.0
        monkeypatch.setattr(clock_file.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(kernels, "on_compile", self.listen, raising=False)
        self.clock, self.step, self.tokens = Clock(disturbed), 0, 0
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


def test_the_time_left_is_right_while_another_process_compiles(monkeypatch):
    disturbed = False
    run, told = Run(monkeypatch, steps=200, disturbed=lambda: disturbed), {}
    run.work("starting", 1.0, compiling=20.0)
    for step in range(200):
        disturbed = 9 <= step < 70  # 61 slow steps and 3 slow evaluations lose about as much as those 20 s
        run.learn(0.55 if disturbed else 0.32 if 0 < step < 8 else 0.25)
        if run.step >= 10:
            told[run.step] = run.now, seconds_left(run)
    for step in range(10, 190):
        now, left = told[step]
        assert left == pytest.approx(run.now - now, rel=0.15), f"after step {step}"


def test_a_disturbed_piece_of_work_tells_no_pace(monkeypatch):
    run = Run(monkeypatch, steps=100, disturbed=lambda: True)
    run.work("evaluating", 3.0)
    assert run.clock.pace("evaluating") is None and run.clock.lost == 0 and run.clock.seconds["evaluating"] == 3.0


def test_the_last_steps_tell_the_pace(monkeypatch):
    run = Run(monkeypatch, steps=1000)
    for seconds in [1.0] * RECENT + [3.0] * RECENT:
        run.work("learning", seconds)
    assert run.clock.pace("learning") == 3.0
    assert str(run.clock) == "6:40 in all: learning 6:40"


def test_minutes():
    assert [minutes(seconds) for seconds in (0.4, 59.6, 130, 3725)] == ["0:00", "1:00", "2:10", "1:02:05"]
