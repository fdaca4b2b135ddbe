"""A second process compiles for the first: just what is needed, and its failure is nobody's."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minillm import Tensor, kernels, optim
from minillm import functional as F
from minillm.tokenizer.pieces import unique_pieces
from minillm.training import warm_up
from minillm.training.recipe import Recipe

needs_numba = pytest.mark.skipif(kernels.KERNELS == "numpy", reason="the definitions compile nothing")

WHAT_IS_LEFT = """
import numpy as np
from minillm import data, kernels, Trainer, TrainConfig
from minillm.training import warm_up
from minillm.training.recipe import Recipe
from minillm.training.build import build_model

def signatures():
    import sys
    from numba.core.dispatcher import Dispatcher
    found = set()
    for name, module in list(sys.modules.items()):
        if name.startswith("minillm.kernels"):
            for value in vars(module).values():
                for one in (value, getattr(value, "alone", None), getattr(value, "parallel", None)):
                    if isinstance(one, Dispatcher):
                        found |= {(one.py_func.__qualname__, str(s)) for s in one.signatures}
    return found

for kind in ("llama", "gpt2", "rnn"):
    heads = None if kind == "rnn" else 2
    recipe = Recipe(model=kind, layers=1, width=32, heads=heads, context=24, batch_size=4, vocab_size=300)
    warm_up.compile_sampling(warm_up.compile_decoder(kind, recipe))
    before = signatures()
    assert len(before) > 15, before
    ids = np.random.default_rng(0).integers(0, 300, 2000)
    model = build_model(recipe, 300)
    config = TrainConfig(steps=2, batch_size=4, context=24, optimizer=recipe.optimizer)
    Trainer(model, data.StreamDataset(ids, ids[:100], 24), config, quiet=True).run()
    cache = model.eval().new_cache(1, 4)
    model.next_logits(np.ones((1, 1), int), cache)
    print(kind, sorted(signatures() - before))
"""


@needs_numba
def test_nothing_is_left_to_compile_for_a_training_and_a_sample():
    done = subprocess.run([sys.executable, "-c", WHAT_IS_LEFT], capture_output=True, text=True)
    assert done.stdout == "llama []\ngpt2 []\nrnn []\n", done.stdout + done.stderr


def test_calls_are_noted_while_the_definitions_compute():
    x = np.array([[0.0, np.log(3.0)]], np.float32)
    with kernels.noting_calls() as calls:
        y = F.softmax(Tensor(x, requires_grad=True))
        F.softmax(Tensor(x))
        y.sum().backward()
    np.testing.assert_allclose(y.data, [[0.25, 0.75]], rtol=1e-6)
    names = [name for _, name, _ in calls]
    if kernels.KERNELS == "numba":
        assert names[0] == "softmax_forward" and names.count("softmax_forward") == 1 and "softmax_backward" in names
        file, name, arguments = calls[0]
        np.testing.assert_allclose(kernels.load(file, name)(*arguments), y.data, rtol=1e-6)
    with kernels.noting_calls() as later:
        pass
    assert later == []


@needs_numba
def test_what_a_definition_calls_itself_is_not_noted():
    weights, zeros = [np.eye(3, dtype=np.float32)], np.zeros(9, np.float32)
    with kernels.noting_calls() as calls:
        optim.muon_update(zeros.copy(), weights, zeros.copy(), 0.1, 0.9, 0.0)  # multiplies matrices
    assert [name for _, name, _ in calls] == ["muon_update"]


class TestProcess:
    @pytest.fixture(autouse=True)
    def started(self, monkeypatch, tmp_path):
        """Stands in for a process that compiles for ever; the list of those that were started."""
        started = []

        def start(recipe):
            started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]))
            return started[-1]

        monkeypatch.setattr(warm_up, "_start", start)
        monkeypatch.setattr(kernels, "cache_folder", lambda: tmp_path)
        monkeypatch.setattr(kernels, "get_num_threads", lambda: 2)
        yield started
        assert all(process.poll() is not None for process in started), "none outlives the run"

    @needs_numba
    def test_it_ends_with_the_run_also_after_an_error(self, started):
        with warm_up.WarmUp(Recipe()):
            assert len(started) == 1 and started[0].poll() is None
        assert started[0].poll() is not None
        with pytest.raises(ZeroDivisionError), warm_up.WarmUp(Recipe()):
            raise ZeroDivisionError

    @needs_numba
    def test_none_is_started_where_all_is_compiled(self, started, tmp_path):
        (tmp_path / f"all-of-gpt2-{kernels.cache_key()}").touch()
        with warm_up.WarmUp(Recipe(model="gpt2")):
            assert not started
        with warm_up.WarmUp(Recipe(model="llama")):
            assert len(started) == 1

    @needs_numba
    def test_only_a_run_that_has_done_all_itself_says_that_all_is_compiled(self, started, monkeypatch):
        with warm_up.WarmUp(Recipe()):  # as after Ctrl-C
            pass
        with warm_up.WarmUp(Recipe()) as warm:
            warm.all_compiled()  # not yet: that is for the second process to say
        with warm_up.WarmUp(Recipe()):
            assert len(started) == 3
        monkeypatch.setattr(kernels, "get_num_threads", lambda: 1)
        with warm_up.WarmUp(Recipe()) as warm:
            warm.all_compiled()
        monkeypatch.setattr(kernels, "get_num_threads", lambda: 2)
        with warm_up.WarmUp(Recipe()) as warm:
            assert len(started) == 3 and warm.is_needless

    @needs_numba
    def test_the_command_that_compiles_everything_says_so(self, started, monkeypatch):
        from minillm.cli import main, warmup

        monkeypatch.setattr(warmup, "_work", lambda part: lambda: None)
        main(["warmup", "llama"])
        with warm_up.WarmUp(Recipe()) as warm:
            assert not warm.is_needless
        main(["warmup"])
        for kind in warmup.DECODERS:
            with warm_up.WarmUp(Recipe(model=kind)) as warm:
                assert warm.is_needless

    @needs_numba
    @pytest.mark.parametrize(
        "chosen, by", [({}, "definition"), ({"data": "book.txt"}, "kernel"), ({"tokenizer": "unigram"}, "kernel")]
    )
    def test_few_words_are_learned_by_the_definitions_while_kernels_compile(self, started, monkeypatch, chosen, by):
        pieces = (b"abab", [2, 4], [3, 1])
        arrays = np.frombuffer(pieces[0], np.uint8), *(np.array(numbers, np.int64) for numbers in pieces[1:])
        monkeypatch.setitem(kernels._what_runs, "unique_pieces", lambda *arguments: "kernel")
        with warm_up.WarmUp(Recipe(**chosen)):
            found = unique_pieces(*arrays)
        assert found == "kernel" if by == "kernel" else (found[0].tobytes(), found[2].tolist()) == (b"ab", [4])

    @pytest.mark.parametrize("name, value", [("get_num_threads", 1), ("cache_folder", None), ("KERNELS", "numpy")])
    def test_none_is_started_where_nothing_would_be_gained(self, started, monkeypatch, name, value):
        monkeypatch.setattr(kernels, name, value if name == "KERNELS" else lambda: value)
        with warm_up.WarmUp(Recipe()):
            assert not started


@needs_numba
def test_the_second_process_leaves_a_stamp(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "cache_folder", lambda: tmp_path)
    compiled = []
    monkeypatch.setattr(warm_up, "compile_decoder", lambda kind, recipe: compiled.append((kind, recipe.width)))
    monkeypatch.setattr(warm_up, "compile_sampling", lambda model: compiled.append("sampling"))
    monkeypatch.setattr(warm_up.os, "nice", lambda more: more)
    monkeypatch.setattr(warm_up, "_only_where_idle", lambda: compiled.append("idle"))
    monkeypatch.setattr(warm_up, "compile_tokenizers", lambda kinds: compiled.append("tokenizers"))
    warm_up.main([json.dumps(Recipe(model="rnn", width=64).to_dict())])
    assert compiled == [("rnn", 64), "idle", "sampling", "tokenizers"]
    assert [path.name for path in tmp_path.iterdir()] == [f"all-of-rnn-{kernels.cache_key()}"]


def test_the_second_process_knows_every_kind_of_model(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(warm_up.os, "nice", lambda more: more)
    monkeypatch.setattr(warm_up, "_only_where_idle", lambda: None)
    sizes = {"layers": 1, "width": 16, "context": 8, "batch_size": 2, "vocab_size": 300, "steps": 1}
    kinds = {"t5": {"data": "pairs.tsv"}, "gru": {}, "lstm": {"attention": "additive"}}
    for kind, chosen in kinds.items():
        warm_up.main([json.dumps(Recipe(model=kind, **sizes | chosen).to_dict())])
    key = kernels.cache_key()
    assert {path.name for path in tmp_path.iterdir()} == {f"all-of-{n}-{key}" for n in ("t5", "gru", "lstm-additive")}


@needs_numba
def test_a_program_that_dies_at_once_is_nobodys_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(kernels, "get_num_threads", lambda: 2)
    monkeypatch.setattr(warm_up.sys, "executable", "/bin/false")
    with warm_up.WarmUp(Recipe()) as warm:
        time.sleep(0.1)
    assert warm.process is not None and warm.process.returncode is not None
    monkeypatch.setattr(warm_up.sys, "executable", str(tmp_path / "missing"))
    with warm_up.WarmUp(Recipe()) as warm:
        assert warm.process is None


@needs_numba
def test_the_program_is_of_this_package_whatever_the_current_folder_holds(tmp_path, monkeypatch):
    elsewhere = tmp_path / "minillm"
    elsewhere.mkdir()
    (elsewhere / "__init__.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    program = warm_up.PROGRAM.format(warm_up.__name__)
    code = program.replace("end_with_parent(); main(sys.argv[1:])", "print(main.__code__.co_filename)")
    assert code != program
    done = subprocess.run([sys.executable, "-c", code, json.dumps(sys.path)], capture_output=True, text=True)
    assert done.stdout.strip() == warm_up.__file__, done.stderr


def test_it_ends_with_the_process_that_started_it_however_that_ends(monkeypatch):
    """A parent that is killed cannot say so: its pipe closes."""
    code = "from minillm.training import warm_up as w; "
    code += "w.end_with_parent(); print(1, flush=True); w.threading.Event().wait(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"1\n"
    child.send_signal(signal.SIGINT)  # as a terminal sends it to both
    time.sleep(0.2)
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(20) == 1
    child.stdout.close()
    asked = []
    monkeypatch.setattr(warm_up.subprocess, "Popen", lambda command, **how: asked.append((command, how)))
    warm_up._start(Recipe())
    ((command, how),) = asked
    assert how["stdin"] == subprocess.PIPE and "end_with_parent(); main(" in command[2]
