"""Forks, Python threads and what acts on the whole process, in processes of their own."""

import functools
import json
import os
import subprocess
import sys

import pytest

from minillm import kernels
from tests.one_process import EACH

pytestmark = pytest.mark.skipif(kernels.KERNELS == "numpy", reason="the definitions have no threads")

STEP = """
import os, sys, threading, time
import numpy as np
from minillm import Tensor, functional as F, kernels, optim

def train(seed=0):
    rng = np.random.default_rng(seed)
    w = [rng.standard_normal(shape).astype(np.float32) / 10 for shape in ((70, 90), (90, 3))]
    w = [Tensor(a, requires_grad=True) for a in w]
    x, y = rng.standard_normal((200, 70)).astype(np.float32), rng.standard_normal((200, 3)).astype(np.float32)
    optimizer = optim.AdamW(w, lr=0.01)
    for _ in range(3):
        loss = F.mse_loss(F.tanh(Tensor(x) @ w[0]) @ w[1], Tensor(y))
        loss.backward()
        optim.clip_grad_norm(w, 0.1)
        optimizer.step()
        optimizer.zero_grad()
    return np.concatenate([p.data.reshape(-1) for p in w])

def right(expected, seed=0):
    return np.allclose(train(seed), expected, atol=1e-5)

def forked(work):
    pid = os.fork()
    if pid == 0:
        code = 9
        try:
            code = 0 if work() else 3
        finally:
            os._exit(code)
    return pid

def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

"""
FORKS = {
    "a child of a process that has not computed yet": """
pid = forked(lambda: np.isfinite(train()).all() and kernels.KERNELS == "numba")
assert code_of(pid) == 0
""",
    "a child": """
expected = train()
pid = forked(lambda: right(expected) and kernels.KERNELS == "numpy" and kernels.get_num_threads() == 1)
assert code_of(pid) == 0
assert kernels.KERNELS == "numba" and (train() == expected).all()
""",
    "a child of a child": """
expected = train()
assert code_of(forked(lambda: right(expected) and code_of(forked(lambda: right(expected))) == 0)) == 0
""",
    "a pool": """
import multiprocessing
expected = [train(seed) for seed in range(4)]
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(pool.map(train, range(4)), expected))
""",
    "children while another thread computes": """
expected, go_on = train(), True
def work():
    while go_on:
        train()
thread = threading.Thread(target=work)
thread.start()
codes = [code_of(forked(lambda: right(expected))) for _ in range(20)]
go_on = False
thread.join()
assert codes == [0] * 20, codes
""",
}
THREADS = {
    "two threads that load the same kernels": """
results, start = [], threading.Barrier(4)
def work():
    start.wait()
    results.append(train())
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads], [t.join() for t in threads]
assert len(results) == 4 and all((r == results[0]).all() for r in results)
""",
    "two threads at once": """
expected, wrong = [train(0), train(1)], []
def work(seed):
    for _ in range(30):
        if not (train(seed) == expected[seed]).all():
            wrong.append(seed)
threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 1)]
[t.start() for t in threads], [t.join() for t in threads]
assert not wrong
""",
}
MODEL = """
from minillm import models
def train(seed=0):
    model = models.GPT2(models.GPT2Config(vocab_size=40, n_positions=32, n_embd=64, n_layer=2, n_head=4), rng=seed)
    optimizer = optim.AdamW(model.parameters(), lr=0.01)
    ids = np.random.default_rng(seed).integers(0, 40, (4, 33))
    for _ in range(3):
        loss = F.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return np.array([loss.item()])
"""


def run(program, *arguments, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}  # we set it, too
    environment = {**inherited, "MINILLM_KERNELS": "numba", **environment}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.strip()


@functools.cache
def told(before, *names, layer):
    """Programs one after the other in a process: name -> None, or how it failed."""
    programs = {name: (FORKS | THREADS)[name] for name in names}
    return json.loads(run(before + EACH, json.dumps(programs), NUMBA_THREADING_LAYER=layer))


layers = pytest.mark.parametrize("layer", ["omp", "workqueue"])


@layers
@pytest.mark.parametrize("what", [*FORKS, *THREADS])
def test_gives_an_answer(what, layer):
    assert told(STEP, *(FORKS if what in FORKS else THREADS), layer=layer)[what] is None


@layers
@pytest.mark.parametrize("what", ["a child", "two threads at once"])
def test_a_whole_model_gives_an_answer(what, layer):
    assert told(STEP + MODEL, "a child", "two threads at once", layer=layer)[what] is None


def test_a_child_goes_on_with_the_text_that_its_parent_began():
    run(
        STEP
        + """
from minillm import models
config = models.LlamaConfig(37, 24, 51, 2, 4, 2, max_position_embeddings=90, initializer_range=0.2)
for model in (models.Llama(config, rng=0).eval(), models.quantize(models.Llama(config, rng=0).eval())):
    ids, cache, other = np.arange(70)[None] % 37, model.new_cache(1, 80), model.new_cache(1, 80)
    for c in (cache, other):
        model.next_logits(ids, c)
    expected = model.next_logits(ids[:, :1], other)
    assert cache.reader.decoder is not None
    assert code_of(forked(lambda: np.allclose(model.next_logits(ids[:, :1], cache), expected, atol=1e-4))) == 0
"""
    )


# ---- the number of threads -------------------------------------------------------------------------------------------

IN_A_THREAD = """
def in_a_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start(), thread.join()
    return results[0]

def one():
    kernels.set_num_threads(1)
    return kernels.get_num_threads()
"""


def test_the_number_of_threads_belongs_to_the_python_thread():
    run(
        STEP
        + IN_A_THREAD
        + """
most = kernels.get_num_threads()
assert in_a_thread(one) == 1 and kernels.get_num_threads() == most
assert one() == 1 and in_a_thread(kernels.get_num_threads) == most
"""
    )


def test_the_environment_sets_it_for_every_python_thread():
    run(
        STEP
        + IN_A_THREAD
        + """
import numba
train()
assert kernels.get_num_threads() == 1
def computes_with():
    train()
    return numba.get_num_threads()
assert in_a_thread(computes_with) == in_a_thread(kernels.get_num_threads) == 1
""",
        MINILLM_THREADS="1",
    )


# ---- settings of the process -----------------------------------------------------------------------------------------

SETTINGS = """
import os, threading, numpy as np
from minillm import kernels, optim
optim.sum_of_squares([np.ones(9, np.float32)])
from numba import config
watched = "minillm-busy" in [thread.name for thread in threading.enumerate()]
print(os.environ.get("GOMP_SPINCOUNT"), *config.THREADING_LAYER_PRIORITY, watched)
"""


def test_settings_of_the_process_are_changed_and_can_be_left():
    on_linux = os.path.exists("/proc/self/schedstat")
    assert run(SETTINGS) == f"10000 omp tbb workqueue {on_linux}"
    assert run(SETTINGS, GOMP_SPINCOUNT="7") == f"7 omp tbb workqueue {on_linux}"
    assert run(SETTINGS, NUMBA_THREADING_LAYER_PRIORITY="workqueue omp tbb") == "10000 workqueue omp tbb False"
    assert run(SETTINGS, MINILLM_PROCESS="plain") == "None tbb omp workqueue False"
