"""Every switch belongs to the thread that set it, and is put back whatever happens."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import minillm.functional as F
from minillm import Tensor, detect_anomaly, nn, no_grad, optim
from minillm.autograd import this_thread


def in_a_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


class Held:
    """Another thread that has entered a context, and stays there until it is released."""

    def __init__(self, context):
        self.context, self.inside, self.leave = context, threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        with self.context:
            self.inside.set()
            assert self.leave.wait(30)

    def __enter__(self):
        self.thread.start()
        assert self.inside.wait(30)
        return self

    def __exit__(self, *exc):
        self.leave.set()
        self.thread.join()


def records():
    x = Tensor([2.0], requires_grad=True)
    return (x * x).requires_grad


def test_no_grad_in_one_thread_leaves_the_others_recording():
    with Held(no_grad()):
        assert records() and in_a_thread(records)
    assert records()


def test_a_thread_that_begins_inside_no_grad_records():
    with no_grad():
        assert not records() and in_a_thread(records)


def test_exits_that_overlap_put_back_what_each_thread_had():
    with no_grad():
        other = Held(no_grad())
        other.__enter__()
    assert records()  # ours ended first
    other.__exit__()
    assert records() and in_a_thread(records)


def test_one_no_grad_object_serves_two_threads():
    switch = no_grad()
    with Held(switch):
        with switch:
            assert not records()
        assert records()
    assert records()


def test_no_grad_nests_and_ends_with_an_error():
    @no_grad()
    def deep(n):
        return deep(n - 1) if n else records()

    assert not deep(3) and records()
    with pytest.raises(KeyError), no_grad(), no_grad():
        raise KeyError
    assert records() and not this_thread.outer


def test_anomalies_are_looked_for_in_one_thread_alone():
    x = Tensor([0.0], requires_grad=True)
    with np.errstate(divide="ignore"):
        with Held(detect_anomaly()):
            assert np.isneginf(F.log(x).data).all()
        with detect_anomaly():
            assert np.isneginf(in_a_thread(lambda: quiet_log(x))).all()
            with pytest.raises(FloatingPointError):
                F.log(x)


def quiet_log(x):
    with np.errstate(divide="ignore"):
        return F.log(x).data


def trained(seed, steps=20):
    rng = np.random.default_rng(seed)
    model = nn.Sequential(nn.Linear(6, 16, rng=rng), nn.Tanh(), nn.Linear(16, 3, rng=rng))
    x, y = Tensor(rng.standard_normal((32, 6)).astype(np.float32)), rng.integers(0, 3, 32)
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
    return [p.data.copy() for p in model.parameters()]


def read(model_seed, times=60):
    """What a thread that writes text does all the time."""
    layer = nn.Linear(6, 16, rng=model_seed)
    for _ in range(times):
        with no_grad():
            layer(Tensor(np.ones((2, 6), np.float32)))


def test_trainings_beside_each_other_and_beside_readers_end_as_alone():
    alone = [trained(seed) for seed in range(3)]
    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read, seed) for seed in range(3)]
        together = [result.result() for result in [pool.submit(trained, seed) for seed in range(3)]]
        for reader in readers:
            reader.result()
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
