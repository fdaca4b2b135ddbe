"""``save`` and ``load``: what was saved comes back, and a file is whole or not there."""

import doctest

import numpy as np
import pytest

import minillm
from minillm import Tensor, files, nn, optim
from minillm.nn import saving
from tests.faults import faulty_disk


def test_docstring_examples():
    assert doctest.testmod(saving).failed == 0


def test_a_module_is_saved_and_taken_over(tmp_path):
    one, other = (nn.Sequential(nn.Linear(2, 3, rng=seed), nn.BatchNorm1d(3)) for seed in (0, 1))
    one(Tensor(np.random.default_rng(0).standard_normal((8, 2))))
    minillm.save(one, tmp_path / "new folder" / "w.safetensors")
    other.load_state_dict(minillm.load(tmp_path / "new folder" / "w.safetensors"))
    for name, array in one.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)
    assert other.state_dict()["1.running_mean"].any()
    with pytest.raises(ValueError, match="missing weight"):
        nn.Linear(2, 3).load_state_dict(minillm.load(tmp_path / "new folder" / "w.safetensors"))


def test_training_goes_on_from_a_nested_dictionary(tmp_path):
    def steps(model, optimizer, first, last):
        for step in range(first, last):
            x = np.random.default_rng(step).standard_normal((4, 2)).astype(np.float32)
            (model(Tensor(x)) ** 2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    def made():
        model = nn.Linear(2, 3, rng=0)
        return model, optim.AdamW(model.parameters(), lr=0.1)

    whole, first, second = made(), made(), made()
    steps(*whole, 0, 6)
    steps(*first, 0, 3)
    state = {"model": first[0], "optimizer": first[1].state_dict(), "step": 3, "best": 0.5, "seen": [1, 2]}
    minillm.save(state, tmp_path / "c")
    found = minillm.load(tmp_path / "c")
    assert list(found["seen"]) == [1, 2] and float(found["best"]) == 0.5
    second[0].load_state_dict(found["model"])
    second[1].load_state_dict(found["optimizer"])
    steps(*second, int(found["step"]), 6)
    np.testing.assert_array_equal(second[0].weight.data, whole[0].weight.data)


def test_others_read_the_file_and_theirs_are_read(tmp_path):
    other = pytest.importorskip("safetensors.numpy")
    minillm.save({"a": {"b": Tensor([1.0, 2.0])}, "c": np.int8(3)}, tmp_path / "ours")
    found = other.load_file(tmp_path / "ours")
    assert found["a/b"].tolist() == [1, 2] and found["c"] == 3 and found["c"].dtype == np.int8
    other.save_file({"layer.weight": np.ones(2, np.float16)}, tmp_path / "theirs")
    assert minillm.load(tmp_path / "theirs")["layer.weight"].tolist() == [1, 1]


def test_a_file_may_be_replaced_while_its_arrays_are_in_use(tmp_path):
    path = tmp_path / "w"
    minillm.save({"x": np.arange(5000.0)}, path)
    before = minillm.load(path)["x"]
    minillm.save({"x": before + 1, "more": before}, path)
    assert before[4999] == 4999 and minillm.load(path)["x"][4999] == 5000
    with faulty_disk(fail_at=2), pytest.raises(OSError):
        minillm.save({"x": np.zeros(9)}, path)
    assert minillm.load(path)["x"][4999] == 5000 and [p.name for p in tmp_path.iterdir()] == ["w"]


@pytest.mark.parametrize(
    "state, error, says",
    [
        ({"a/b": 1}, ValueError, "a name must be a text without '/'; got 'a/b'"),
        ({"a": {1: 2}}, ValueError, "a name must be a text"),
        ({"a": {"name": "x"}}, TypeError, "save: a/name must be a Module, or arrays.*; got str. JSON keeps the rest"),
        ({"a": None}, TypeError, "got NoneType"),
        (np.ones(2), TypeError, "give the array a name"),
        ("model", TypeError, "save: state must be a Module"),
    ],
)
def test_what_cannot_be_saved_is_said_and_leaves_no_file(tmp_path, state, error, says):
    with pytest.raises(error, match=says):
        minillm.save(state, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_loaded_is_said(tmp_path):
    path = tmp_path / "x.pt"
    for start in (b"PK\3\4" + bytes(60), b"\x80\x02}q\x00." + bytes(60)):
        path.write_bytes(start)
        with pytest.raises(ValueError, match="looks like a pickle, which runs code.*save_file"):
            minillm.load(path)
    for inner in (np.float32, np.float64):  # the wider dtype lies first in the file
        files.write_safetensors(path, {"a/b": np.ones(1, inner), "a": np.ones(1, np.float32)})
        with pytest.raises(ValueError, match="'a/?b?' (lies inside an entry|is an array, and holds others)"):
            minillm.load(path)
    with pytest.raises(FileNotFoundError):
        minillm.load(tmp_path / "nowhere")
