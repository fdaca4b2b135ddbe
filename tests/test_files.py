"""Files: what we write is what was meant, what we read is right or refused, and a folder is whole or absent."""

from __future__ import annotations

import contextlib
import doctest
import errno
import json
import os
import struct
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minillm import files
from tests.faults import dies, faulty_disk, snapshot

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def raw_file(path, header, data=b"", length=None):
    """Write a safetensors file with any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


# ---- safetensors: right files ----------------------------------------------------------------------------------------

DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8"]
DTYPES += ["uint64", "uint32", "uint16", "uint8", "bool"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)


@settings(deadline=None, max_examples=60)
@given(tensors=st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), arrays, max_size=5))
def test_same_arrays_as_the_safetensors_library_both_ways(tmp_path_factory, tensors):
    folder = tmp_path_factory.mktemp("both")
    files.write_safetensors(folder / "ours", tensors)
    theirs = safetensors.numpy.load_file(folder / "ours")
    safetensors.numpy.save_file({name: np.ascontiguousarray(a) for name, a in tensors.items()}, folder / "theirs")
    for read in (theirs, files.read_safetensors(folder / "theirs"), files.read_safetensors(folder / "ours")):
        assert read.keys() == tensors.keys()
        for name, array in tensors.items():
            expected = array.astype(np.float32) if read is not theirs and array.dtype == np.float16 else array
            assert read[name].dtype == expected.dtype
            np.testing.assert_array_equal(read[name].reshape(array.shape), expected)  # save_file makes 0-d 1-d


def test_layout_of_what_we_write(tmp_path):
    strided = np.arange(6, dtype=np.float32).reshape(2, 3).T
    big_endian = np.arange(3, dtype=">f8")
    files.write_safetensors(tmp_path / "x", {"b": np.int8([1, 2, 3]), "strided": strided, "big": big_endian})
    data = (tmp_path / "x").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"] == {"format": "pt"}
    assert [header[name]["data_offsets"] for name in ("big", "strided", "b")] == [[0, 24], [24, 48], [48, 51]]
    read = files.read_safetensors(tmp_path / "x")
    np.testing.assert_array_equal(read["strided"], strided)
    np.testing.assert_array_equal(read["big"], [0.0, 1.0, 2.0])
    assert oct(os.stat(tmp_path / "x").st_mode & 0o777) == oct(0o666 & ~current_umask())


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    "name, array", [("x", np.array([None])), ("x", np.zeros(1, complex)), ("__metadata__", np.ones(1))]
)
def test_what_cannot_be_stored_is_refused(tmp_path, name, array):
    with pytest.raises(ValueError, match="write_safetensors: cannot store"):
        files.write_safetensors(tmp_path / "x", {name: array})
    assert not (tmp_path / "x").exists()


def test_float32_is_a_window_into_the_file_and_writing_into_it_leaves_the_file_alone(tmp_path):
    path = tmp_path / "x"
    files.write_safetensors(path, {"w": np.arange(4, dtype=np.float32)})
    before = path.read_bytes()
    w = files.read_safetensors(path)["w"]
    assert not w.flags.owndata and w.flags.writeable and w.flags.aligned
    w += 1
    np.testing.assert_array_equal(w, [1, 2, 3, 4])
    assert path.read_bytes() == before
    np.testing.assert_array_equal(files.read_safetensors(path)["w"], [0, 1, 2, 3])


def test_every_bfloat16_and_float16_becomes_its_float32(tmp_path):
    bits = np.arange(2**16, dtype=np.uint16)
    header = {
        "b": {"dtype": "BF16", "shape": [256, 256], "data_offsets": [0, 2**17]},
        "h": {"dtype": "F16", "shape": [2**16], "data_offsets": [2**17, 2**18]},
    }
    tensors = files.read_safetensors(raw_file(tmp_path / "x", header, bits.tobytes() * 2))
    assert tensors["b"].shape == (256, 256) and tensors["b"].dtype == tensors["h"].dtype == np.float32
    assert tensors["b"].ravel()[[0x3F80, 0xBF80, 0x4049, 0x0001, 0xFF80]].tolist() == [
        1.0, -1.0, 3.140625, 2.0**-133, -np.inf,
    ]  # fmt: skip
    np.testing.assert_array_equal(tensors["b"].ravel().view(np.uint32), bits.astype(np.uint32) * 65536)
    np.testing.assert_array_equal(tensors["h"], bits.view(np.float16).astype(np.float32))


def test_converting_gives_no_page_of_a_neighbour_back(tmp_path):
    """A float32 tensor that shares a page with a bfloat16 one was changed by its owner: it must stay changed."""
    half = 3000  # elements: two thirds of the second page
    header = {
        "a": {"dtype": "F32", "shape": [10], "data_offsets": [0, 40]},
        "b": {"dtype": "BF16", "shape": [half], "data_offsets": [40, 40 + 2 * half]},
        "c": {"dtype": "F32", "shape": [10], "data_offsets": [40 + 2 * half, 80 + 2 * half]},
    }
    opened = files.open_safetensors(raw_file(tmp_path / "x", header, bytes(80 + 2 * half)))
    a, c = opened["a"].read(), opened["c"].read()
    a += 1
    c += 1
    assert opened["b"].read().sum() == 0
    assert a.sum() == 10 and c.sum() == 10


def test_a_header_of_odd_length_gives_aligned_arrays(tmp_path):
    text = json.dumps({"w": ENTRY}).encode()
    text += b" " * (7 - len(text) % 8)  # 7 mod 8: no element lies at a multiple of four
    w = files.read_safetensors(raw_file(tmp_path / "x", text, np.float32([1, 2]).tobytes()))["w"]
    assert w.flags.aligned and w.tolist() == [1, 2]


# ---- safetensors: wrong files ----------------------------------------------------------------------------------------

WRONG = {
    "too few": (b"", b"", None),
    "the header claims": ({"w": ENTRY}, bytes(8), 10**6),
    "the header claims 18,446,744,073,709,551,615": ({"w": ENTRY}, bytes(8), 2**64 - 1),
    "no JSON object": (b"[1, 2]", b"", None),
    "not valid JSON": (b'{"w": ', b"", None),
    "not valid JSON: 'utf-8' codec": (b'{"\xff": 1}', b"", None),
    "nested too deeply": (b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", None),
    "NaN is no JSON number": (b'{"w": NaN}', b"", None),
    "key 'w' appears twice": (b'{"w": {}, "v": {}, "w": {}}', b"", None),
    "key 'dtype' appears twice": (b'{"w": {"dtype": "F32", "dtype": "F64"}}', b"", None),
    "lists more than 1,000,000 values": (b'{"w": [' + b"0," * 1_000_001 + b"0]}", b"", None),
    "__metadata__ must be": ({"__metadata__": {"format": 1}, "w": ENTRY}, bytes(8), None),
    "'w' must have dtype, shape and data_offsets": ({"w": {"dtype": "F32", "shape": [2]}}, bytes(8), None),
    "data_offsets, and nothing else": ({"w": ENTRY | {"more": 1}}, bytes(8), None),
    "'w' has dtype 'F8_E4M3'": ({"w": ENTRY | {"dtype": "F8_E4M3"}}, bytes(8), None),
    r"'w' has dtype \['F32'\]": ({"w": ENTRY | {"dtype": ["F32"]}}, bytes(8), None),
    r"'w' has shape \[-2\]": ({"w": ENTRY | {"shape": [-2]}}, bytes(8), None),
    r"'w' has shape \[2.0\]": ({"w": ENTRY | {"shape": [2.0]}}, bytes(8), None),
    r"'w' has shape \[True, 2\]": ({"w": ENTRY | {"shape": [True, 2]}}, bytes(8), None),
    r"'w' has shape \[1, 1,": ({"w": ENTRY | {"shape": [1] * 65}}, bytes(8), None),
    r"'w' has shape \[0, 2": ({"w": ENTRY | {"shape": [0, 2**48, 2**48], "data_offsets": [0, 0]}}, b"", None),
    "'w' has shape '2'": ({"w": ENTRY | {"shape": "2"}}, bytes(8), None),
    r"'w' has data_offsets \[0\]": ({"w": ENTRY | {"data_offsets": [0]}}, bytes(8), None),
    r"'w' has data_offsets \[-8, 0\]": ({"w": ENTRY | {"data_offsets": [-8, 0]}}, bytes(8), None),
    r"'w', F32 \[3\], needs 12 bytes; has 8": ({"w": ENTRY | {"shape": [3]}}, bytes(8), None),
    "needs 8 bytes; has -8": ({"w": ENTRY | {"data_offsets": [8, 0]}}, bytes(8), None),
    "an overlap at tensor 'v'": ({"w": ENTRY, "v": ENTRY | {"data_offsets": [4, 12]}}, bytes(12), None),
    "a hole before tensor 'v'": ({"w": ENTRY, "v": ENTRY | {"data_offsets": [12, 20]}}, bytes(20), None),
    "a hole before tensor 'w'": ({"w": ENTRY | {"data_offsets": [4, 12]}}, bytes(12), None),
    "end at byte 8 of the data; the file has 9": ({"w": ENTRY}, bytes(9), None),
    "end at byte 8 of the data; the file has 7": ({"w": ENTRY}, bytes(7), None),
}

# Entries that NumPy has no array for, and fields with a meaning that we cannot know.
STRICTER = {r"'w' has shape \[1, 1,", r"'w' has shape \[0, 2", "'w' has dtype 'F8_E4M3'"}
STRICTER |= {"data_offsets, and nothing else"}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_file_is_refused_and_the_message_says_why(tmp_path, message):
    header, data, length = WRONG[message]
    path = raw_file(tmp_path / "bad.safetensors", header, data, length)
    if message == "too few":
        path.write_bytes(b"1234567")
    with pytest.raises(ValueError, match=message) as caught:
        files.read_safetensors(path)
    assert str(path) in str(caught.value)
    if message not in STRICTER:
        with pytest.raises(safetensors.SafetensorError):  # the library of the format's authors agrees
            safetensors.numpy.load_file(path)


def test_a_header_beyond_the_limit_is_refused_unread(tmp_path):
    path = raw_file(tmp_path / "x.safetensors", b"{", length=100_000_001)
    os.truncate(path, 200_000_000)  # sparse: it takes no room on the disk
    with pytest.raises(ValueError, match="claims 100,000,001 bytes; at most 100,000,000 are allowed"):
        files.read_safetensors(path)


def test_a_pipe_or_a_device_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match="not a regular file"):
            files.read_safetensors(path)
        with pytest.raises(ValueError, match="not a regular file"):
            files.read_json(path)


def mutated(data, rng):
    """Return a safetensors file with one thing changed, as a fault or a stranger would change it."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    kind = rng.integers(9)
    if kind == 0:  # a bit of the header, or of its length
        changed = bytearray(data)
        changed[rng.integers(8 + length)] ^= 1 << rng.integers(8)
        return bytes(changed)
    if kind == 1:  # cut off
        return data[: rng.integers(len(data))]
    if kind == 2:  # something behind the end
        return data + bytes(int(rng.integers(1, 100)))
    if kind == 3:  # some bytes of the header are lost
        cut = rng.integers(length)
        header = header[:cut] + header[cut + rng.integers(1, 20) :]
    if kind == 4:  # noise
        at = rng.integers(length)
        header = header[:at] + rng.bytes(8) + header[at + 8 :]
    if kind == 5:  # two digits exchanged for others
        digits = [i for i, byte in enumerate(header) if 48 <= byte <= 57]
        header = bytearray(header)
        for i in rng.choice(digits, 2):
            header[i] = 48 + rng.integers(10)
    if kind in (6, 7, 8):  # another value in the table
        table = json.loads(header)
        entry = table[list(table)[rng.integers(1, len(table))]]
        values = [-1, 0, 7, 2**31, 2**63, 1e400, None, True, "F32", "I64", [], [0], [4, 4], [0, 2**62], {}, "x" * 1000]
        entry[["dtype", "shape", "data_offsets"][rng.integers(3)]] = values[rng.integers(len(values))]
        header = json.dumps(table).encode()
    return struct.pack("<Q", len(header)) + bytes(header) + rest


def test_300_mutated_files(tmp_path):
    """Each is refused with a ValueError that names the file, or is right; quickly, and in little memory."""
    rng = np.random.default_rng(7)
    tensors = {f"h.{i}.weight": rng.standard_normal((40, 50 + i)).astype(np.float32) for i in range(40)}
    path = tmp_path / "model.safetensors"
    files.write_safetensors(path, tensors)
    good = path.read_bytes()
    refused = 0
    for _ in range(300):
        path.write_bytes(mutated(good, rng))
        tracemalloc.start()
        begun = time.process_time()
        try:
            ours = files.read_safetensors(path)
        except ValueError as error:
            ours = None
            assert str(path) in str(error) and len(str(error)) < 1000
            refused += 1
        assert time.process_time() - begun < 1
        assert tracemalloc.get_traced_memory()[1] < 2 * len(good)
        tracemalloc.stop()
        if ours is not None:  # a change that the format allows: the library reads the same
            theirs = safetensors.numpy.load_file(path)
            assert ours.keys() == theirs.keys()
            assert all(np.array_equal(ours[name], theirs[name], equal_nan=True) for name in ours)
    assert refused > 250


# ---- shards ----------------------------------------------------------------------------------------------------------


def shards(folder, weight_map=None):
    files.write_safetensors(folder / "model-1.safetensors", {"a": np.float32([1]), "b": np.float32([2])})
    files.write_safetensors(folder / "model-2.safetensors", {"c": np.float32([3])})
    places = {"a": "model-1.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}
    index = {"metadata": {"total_size": 12}, "weight_map": places | (weight_map or {})}
    index["weight_map"] = {name: place for name, place in index["weight_map"].items() if place != "absent"}
    files.write_json(folder / "model.safetensors.index.json", index)


def test_shards_are_read_through_their_index(tmp_path):
    shards(tmp_path)
    opened = files.open_weights(tmp_path)
    assert {name: tensor.read().item() for name, tensor in opened.items()} == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize(
    "change, message",
    [
        ({"a": "absent"}, r"model-1.safetensors: holds tensors that the index does not place here: \['a'\]"),
        ({"c": "model-1.safetensors"}, r"index.json: lists tensors that no shard holds: \['c'\]"),
        ({"d": "model-2.safetensors"}, r"index.json: lists tensors that no shard holds: \['d'\]"),
        ({"a": "../model-1.safetensors"}, "index.json: weight_map must say"),
        ({"a": "/etc/passwd"}, "index.json: weight_map must say"),
        ({"a": 1}, "index.json: weight_map must say"),
    ],
)
def test_an_index_that_disagrees_with_its_shards_is_refused(tmp_path, change, message):
    shards(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        files.open_weights(tmp_path)


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights here"):
        files.open_weights(tmp_path)
    shards(tmp_path)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-2.safetensors"):
        files.open_weights(tmp_path)


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_json_round_trip(tmp_path):
    value = {"n": 1, "x": 0.1, "text": "é\u2028\U0001f600", "list": [None, True, {"a": []}], "big": 2**127}
    files.write_json(tmp_path / "x.json", value)
    assert files.read_json(tmp_path / "x.json") == value
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "y.json", {"loss": float("nan")})


@pytest.mark.parametrize(
    "data, message",
    [
        (b"[]", "expected a JSON object; got list"),
        (b'{"a": 1, "a": 2}', "key 'a' appears twice"),
        (b'{"a": Infinity}', "Infinity is no JSON number"),
        (b'{"a": "\xe9"}', "'utf-8' codec can't decode byte 0xe9 in position 7"),
        (b'{"a": 1', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON: Exceeds the limit"),
        (b'{"a": "' + b"x" * 10_000 + b'"}', "larger than the 10,000 bytes"),
    ],
)
def test_json_that_is_refused(tmp_path, data, message):
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        files.read_json(tmp_path / "x.json", limit=200_000 if data.startswith(b"[[") else 10_000)
    assert str(caught.value).startswith(str(tmp_path / "x.json"))


# ---- folders ---------------------------------------------------------------------------------------------------------


def write_model(path):
    with files.atomic_folder(path) as folder:
        files.write_safetensors(folder / "model.safetensors", {"w": np.arange(1000, dtype=np.float32)})
        files.write_json(folder / "config.json", {"a": 1})
        (folder / "deeper").mkdir()
        (folder / "deeper" / "vocab.txt").write_text("not fsynced by its author")


def test_a_folder_appears_with_all_its_files(tmp_path):
    write_model(tmp_path / "new" / "parent" / "model")
    assert sorted(snapshot(tmp_path)) == [
        f"new/parent/model/{name}" for name in ("config.json", "deeper/vocab.txt", "model.safetensors")
    ]
    with pytest.raises(FileExistsError, match="exists already"):
        write_model(tmp_path / "new" / "parent" / "model")


def test_every_file_is_on_the_disk_before_the_rename_and_the_name_after_it(tmp_path):
    with faulty_disk() as disk:
        write_model(tmp_path / "model")
    staging = next(path for operation, path in disk.log if operation == "rename")
    commit = disk.log.index(("rename", staging))
    for name in ("model.safetensors", "config.json", "deeper", "deeper/vocab.txt", ""):
        path = os.path.join(staging, name).rstrip("/")
        fsynced = max(i for i, entry in enumerate(disk.log) if entry == ("fsync", path))
        assert all(i < fsynced for i, entry in enumerate(disk.log) if entry == ("write", path))
        assert fsynced < commit
    assert ("fsync", str(tmp_path)) in disk.log[commit:]


def test_a_single_file_is_on_the_disk_when_its_writer_returns(tmp_path):
    with faulty_disk() as disk:
        files.write_json(tmp_path / "x.json", {})
        files.write_safetensors(tmp_path / "y", {"w": np.ones(2)})
    for name in ("x.json", "y"):
        of_this_file = [operation for operation, path in disk.log if path == str(tmp_path / name)]
        assert set(of_this_file) == {"write", "fsync"} and of_this_file[-1] == "fsync"


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, None], ids=["full", "broken", "crash"])
def test_a_failure_at_any_operation_leaves_the_folder_whole_or_absent(tmp_path, error):
    with faulty_disk() as disk:
        write_model(tmp_path / "good")
    good = snapshot(tmp_path / "good")
    for fail_at in range(len(disk.log)):
        path = tmp_path / f"{fail_at}" / "model"
        path.parent.mkdir()
        if error is None:
            assert dies(lambda path=path: write_model(path), fail_at)
        else:
            with faulty_disk(fail_at, error), pytest.raises(OSError) as caught:
                write_model(path)
            assert caught.value.errno == error
            assert [item.name for item in path.parent.iterdir()] in ([], ["model"])
        if path.exists():
            assert snapshot(path) == good
        else:
            with faulty_disk():
                write_model(path)  # the next attempt succeeds, and clears the remains away
        assert [item.name for item in path.parent.iterdir()] == ["model"]


def test_a_full_disk_for_real(tmp_path):
    """A limit on the size of files gives a real error of the operating system, in the middle of a file."""
    script = f"""
import resource, numpy as np
from minillm import files
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with files.atomic_folder({str(tmp_path / "model")!r}) as folder:
    files.write_safetensors(folder / "x", {{"w": np.zeros(100_000)}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_exception_or_an_interrupt_leaves_nothing(tmp_path):
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), files.atomic_folder(tmp_path / "model") as folder:
            files.write_json(folder / "config.json", {})
            raise error
    assert list(tmp_path.iterdir()) == []


def test_only_remains_of_the_dead_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    names = {
        f"model.tmp-{dead.pid}-0123abcd": False,
        f"model.tmp-{os.getpid()}-0123abcd": False,  # of a dead process that had our number
        f"model.tmp-{os.getppid()}-0123abcd": True,  # alive
        f"other.tmp-{dead.pid}-0123abcd": True,  # of another model
        f"model.tmp-{dead.pid}": True,  # somebody else's name
        "model.tmp-notes": True,
    }
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    with files.atomic_folder(tmp_path / "model"), files.atomic_folder(tmp_path / "model2"):
        files.remove_stale(tmp_path, "model")  # leaves what this very process is writing
    assert {item.name for item in tmp_path.iterdir()} == {name for name, stays in names.items() if stays} | {
        "model", "model2"
    }  # fmt: skip
    files.remove_stale(tmp_path)
    assert not (tmp_path / f"other.tmp-{dead.pid}-0123abcd").exists()


def update_model(folder, config):
    with files.atomic_update(folder, commit="config.json") as staging:
        files.write_json(staging / "config.json", {"a": config})
        files.write_safetensors(staging / "model.safetensors", {"w": np.arange(2000, dtype=np.float32)})


@pytest.mark.parametrize("config, possible", [(2, {"old", "none", "new"}), (1, {"old", "new"})], ids=["two", "one"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, None], ids=["full", "broken", "crash"])
def test_a_failure_at_any_operation_of_an_update_gives_no_mixture(tmp_path, error, config, possible):
    """Two files change: the old, the new or none; only one changes: the old or the new."""

    def old(path):
        with faulty_disk():
            write_model(path)
        (path / "log.jsonl").write_text("stays")
        return snapshot(path)

    before = old(tmp_path / "good")
    with faulty_disk() as disk:
        update_model(tmp_path / "good", config)
    after = snapshot(tmp_path / "good")
    assert after.keys() == before.keys() and after["log.jsonl"] == b"stays" and after != before
    outcomes = set()
    for fail_at in range(len(disk.log)):
        path = tmp_path / f"{fail_at}"
        old(path)
        if error is None:
            assert dies(lambda path=path: update_model(path, config), fail_at)
        else:
            with faulty_disk(fail_at, error), contextlib.suppress(OSError):
                update_model(path, config)
                silent = snapshot(path)
                assert {name: silent[name] for name in after} == after  # only clearing up may fail in silence
        files.remove_stale(path)
        now = snapshot(path)
        outcomes.add("old" if now == before else "new" if now == after else "none")
        assert now in (before, after) or "config.json" not in now
        with faulty_disk():
            update_model(path, config)
        assert snapshot(path) == after
    assert outcomes == possible


def test_an_update_that_changes_nothing_leaves_the_files_alone(tmp_path):
    write_model(tmp_path / "model")
    update_model(tmp_path / "model", 2)
    inodes = {path: path.stat().st_ino for path in (tmp_path / "model").rglob("*")}
    update_model(tmp_path / "model", 2)
    assert inodes == {path: path.stat().st_ino for path in (tmp_path / "model").rglob("*")}


def test_names_that_are_not_utf8(tmp_path):
    assert doctest.testmod(files.names).failed == 0
    path = os.fsdecode(b"caf\xe9 \xf0\x9f\x90\x88")
    files.write_json(tmp_path / "x.json", {"data": path})
    assert files.read_json(tmp_path / "x.json") == {"data": path}
    assert b'"caf\\udce9 \xf0\x9f\x90\x88"' in (tmp_path / "x.json").read_bytes(), "only that letter is escaped"
    for name in (path, "it's", "a b", "\n", "$HOME", "\\", "'\udce9", "-x"):
        word = subprocess.run(["bash", "-c", f"printf %s {files.shell_path(name)}"], capture_output=True, check=True)
        assert os.fsdecode(word.stdout) == ("./-x" if name == "-x" else name)


def test_json_takes_numbers_of_numpy(tmp_path):
    files.write_json(tmp_path / "x.json", {"a": np.int64(3), "b": [np.float32(0.5), np.bool_(True)]})
    assert files.read_json(tmp_path / "x.json") == {"a": 3, "b": [0.5, True]}
    for bad in (np.float32("nan"), np.float64("inf")):
        with pytest.raises(ValueError):
            files.write_json(tmp_path / "y.json", {"a": bad})
