"""Checkpoints: whatever fails, the newest one that was saved is found again, or the one before, and never a mixture."""

from __future__ import annotations

import contextlib
import errno
import json
import sys
import warnings

import numpy as np
import pytest

from minillm import kernels
from minillm.training import checkpoint
from minillm.training.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from tests.faults import dies, faulty_disk, kill_repeatedly, snapshot


def content(step):
    """Tensors and state in which everything depends on the step: a mixture of two would show."""
    rng = np.random.default_rng(step)
    tensors = {
        "model.w": rng.standard_normal((30, 20)).astype(np.float32),
        "optimizer.exp_avg.w": rng.standard_normal((30, 20)),
        "ids": rng.integers(1000, size=7),
    }
    return tensors, {"seed": step, "rng": rng.bit_generator.state, "loss": float(rng.random()), "cursor": {"epoch": 1}}


def save(folder, step, keep=2):
    return save_checkpoint(folder, step, *content(step), keep=keep)


def check(loaded):
    """Fail unless the checkpoint is exactly what was saved at its step."""
    tensors, state = content(loaded.step)
    assert loaded.state == state
    assert loaded.tensors.keys() == tensors.keys()
    for name, array in tensors.items():
        assert loaded.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded.tensors[name], array)
    return loaded.step


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_loaded_and_old_ones_go(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in (0, 100, 200, 1_000_000_000):
            path = save(tmp_path / "deep" / "checkpoints", step)
            loaded = load_checkpoint(tmp_path / "deep" / "checkpoints")
            assert check(loaded) == step and loaded.path == path
    assert names(tmp_path / "deep" / "checkpoints") == ["step-00000200", "step-1000000000"]
    loaded.tensors["model.w"] += 1  # the arrays are the caller's
    assert check(load_checkpoint(tmp_path / "deep" / "checkpoints"))


@pytest.mark.parametrize("keep, kept", [(1, [4]), (3, [2, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_keep(tmp_path, keep, kept):
    for step in range(5):
        save(tmp_path, step, keep=keep)
    assert names(tmp_path) == [f"step-{step:08}" for step in kept]


def test_numbers_of_numpy_are_stored_and_what_json_cannot_hold_is_refused(tmp_path):
    state = {"loss": np.float32(0.1), "step": np.int64(3), "done": np.bool_(True), "betas": (0.9, 0.95)}
    save_checkpoint(tmp_path, 1, {}, state)
    assert load_checkpoint(tmp_path).state == {
        "loss": float(np.float32(0.1)), "step": 3, "done": True, "betas": [0.9, 0.95]
    }  # fmt: skip
    for bad in (float("nan"), float("inf"), np.zeros(2), object(), {1, 2}):
        with pytest.raises(ValueError, match="save_checkpoint: state cannot be stored"):
            save_checkpoint(tmp_path, 2, {}, {"x": bad})
    with pytest.raises(ValueError, match="float16"):
        save_checkpoint(tmp_path, 2, {"w": np.zeros(2, np.float16)}, {})
    for step, keep in ((-1, 2), (1.5, 2), (1, 0)):
        with pytest.raises(ValueError, match="expected step >= 0 and keep >= 1"):
            save_checkpoint(tmp_path, step, {}, {}, keep=keep)
    assert names(tmp_path) == ["step-00000001"]


# ---- failures while saving -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, None], ids=["full", "broken", "crash"])
def test_a_failure_at_any_operation_leaves_the_old_or_the_new_checkpoint(tmp_path, error, monkeypatch):
    environment = checkpoint.environment()
    monkeypatch.setattr(checkpoint, "environment", lambda: environment)  # OpenMP does not survive the fork of `dies`
    monkeypatch.setattr("warnings.warn", pytest.fail)

    def save_all(folder, *steps):
        with faulty_disk():
            for step in steps:
                save(folder, step)

    save_all(tmp_path / "good", 100, 200)
    with faulty_disk() as disk:
        save(tmp_path / "good", 300)
    steps = []
    for fail_at in range(len(disk.log)):
        folder = tmp_path / f"{fail_at}"
        save_all(folder, 100, 200)
        if error is None:
            assert dies(lambda folder=folder: save(folder, 300), fail_at)
        else:
            with faulty_disk(fail_at, error), contextlib.suppress(OSError):
                save(folder, 300)
                pytest.fail("the error was swallowed")
        steps.append(check(load_checkpoint(folder)))
        save_all(folder, 300, 400)  # the run goes on, and clears the remains away
        assert check(load_checkpoint(folder)) == 400
        assert names(folder)[-1] == "step-00000400" and len(names(folder)) == 2
    assert steps == sorted(steps) and set(steps) == {200, 300}  # up to the commit point the old one, then the new


def test_kill_minus_nine_of_a_process_that_saves_all_the_time(tmp_path):
    folder, alive = tmp_path / "run", tmp_path / "alive"
    script = f"""
import sys; sys.path[:0] = {sys.path!r}
from pathlib import Path
from tests.test_checkpoint import check, load_checkpoint, save
folder = Path({str(folder)!r})
step = check(load_checkpoint(folder))
Path({str(alive)!r}).touch()
while True:
    step += 1
    save(folder, step)
"""
    save(folder, 0)
    steps = []

    def check_loaded():
        steps.append(check(load_checkpoint(folder)))
        alive.unlink()

    rng = np.random.default_rng(5)
    command = [sys.executable, "-c", script]
    assert kill_repeatedly(command, check_loaded, rng, cycles=4, longest=0.3, ready=alive.exists) == 4
    assert steps == sorted(steps) and steps[-1] > 4


# ---- damage after saving ---------------------------------------------------------------------------------------------


def damages(data, rng):
    """Cut the file off, or flip a bit, at the ends (but for a last newline, which means nothing) and anywhere."""
    for length in (0, 1, len(data) - 2, *rng.integers(len(data), size=8)):
        yield data[:length]
    for position in (0, 8, len(data) - 2, *rng.integers(len(data), size=30)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.integers(8)
        yield bytes(flipped)
    yield data + b"\0"


@pytest.mark.parametrize("name", ["tensors.safetensors", "trainer_state.json"])
def test_any_damage_is_noticed_and_the_checkpoint_before_is_taken(tmp_path, name):
    save(tmp_path, 100)
    path = save(tmp_path, 200) / name
    good = path.read_bytes()
    for damaged in damages(good, np.random.default_rng(3)):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=f"went back to step-00000100: .*step-00000200/{name}"):
            assert check(load_checkpoint(tmp_path)) == 100
    path.unlink()
    with pytest.warns(UserWarning, match="step-00000200"):
        assert check(load_checkpoint(tmp_path)) == 100


def test_a_file_of_another_checkpoint_is_noticed(tmp_path):
    first, second = save(tmp_path, 100), save(tmp_path, 200)
    (second / "tensors.safetensors").write_bytes((first / "tensors.safetensors").read_bytes())
    with pytest.warns(UserWarning, match="does not match its SHA-256"):
        assert check(load_checkpoint(tmp_path)) == 100


def test_when_all_are_damaged_the_error_names_each(tmp_path):
    for step in (100, 200):
        (save(tmp_path, step) / "tensors.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="step-00000200.*; .*step-00000100"):
        load_checkpoint(tmp_path)


def test_no_checkpoint(tmp_path):
    (tmp_path / "step-00000300.tmp-1-0123abcd").mkdir()
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match="no checkpoint here"):
            load_checkpoint(folder)


def test_a_state_of_another_format_is_refused(tmp_path):
    path = save(tmp_path, 1) / "trainer_state.json"
    state = json.loads(path.read_text())
    state["format"] = "minillm checkpoint 99"
    del state["sha256"]
    path.write_text(json.dumps(state | {"sha256": checkpoint._seal(state)}))
    with pytest.raises(CheckpointError, match="expected the format 'minillm checkpoint 1'"):
        load_checkpoint(tmp_path)


def test_a_run_that_went_back_saves_over_the_damaged_future(tmp_path):
    for step in (100, 200):
        save(tmp_path, step)
    (tmp_path / "step-00000200" / "trainer_state.json").write_text("{}")
    with pytest.warns(UserWarning):
        assert load_checkpoint(tmp_path).step == 100
    save(tmp_path, 150)
    assert names(tmp_path) == ["step-00000100", "step-00000150"]
    (tmp_path / "step-00000150" / "trainer_state.json").write_text("{}")
    save(tmp_path, 150)  # the name is taken by the damaged one until the new one is on the disk
    assert names(tmp_path) == ["step-00000100", "step-00000150.2"]
    assert check(load_checkpoint(tmp_path)) == 150
    save(tmp_path, 160)
    assert names(tmp_path) == ["step-00000150.2", "step-00000160"]


def test_a_whole_checkpoint_of_a_later_step_is_never_removed(tmp_path):
    save(tmp_path, 200)
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="step-00000200 is later than step 5"):
        save(tmp_path, 5)
    assert snapshot(tmp_path) == before


# ---- what a result depends on ----------------------------------------------------------------------------------------


def test_another_version_or_number_of_threads_is_warned_about(tmp_path, monkeypatch):
    save(tmp_path, 1)
    threads = kernels.get_num_threads()
    monkeypatch.setattr(np, "__version__", "1.0")
    monkeypatch.setattr(kernels, "get_num_threads", lambda: threads + 1)
    expected = f"saved with numpy .*, threads {threads}; now numpy 1.0, threads {threads + 1}: the run goes on, but not"
    with pytest.warns(UserWarning, match=expected):
        assert check(load_checkpoint(tmp_path)) == 1


@pytest.mark.skipif(kernels.KERNELS == "numpy", reason="the definitions know one way")
def test_another_way_of_the_products_is_warned_about(tmp_path, monkeypatch):
    save(tmp_path / "measured", 1)
    monkeypatch.setenv("MINILLM_PRODUCTS", "blas")
    save(tmp_path / "forced", 1)
    with pytest.warns(UserWarning, match="saved with products measured; now products blas: the run goes on, but not"):
        load_checkpoint(tmp_path / "measured")
    assert load_checkpoint(tmp_path / "forced").step == 1  # no warning: nothing has changed
    monkeypatch.delenv("MINILLM_PRODUCTS")
    with pytest.warns(UserWarning, match="saved with products blas; now products measured"):
        load_checkpoint(tmp_path / "forced")


def test_the_environment_is_in_the_file(tmp_path):
    state = json.loads((save(tmp_path, 1) / "trainer_state.json").read_text())
    assert state["environment"]["numpy"] == np.__version__
    assert state["environment"].keys() == {"python", "numpy", "numba", "minillm", "processor", "kernels", "threads"}
    assert state["step"] == 1 and state["files"].keys() == {"tensors.safetensors"}
