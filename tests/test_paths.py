"""The way of a product: each is right, what was measured decides, what was kept is never trusted blindly."""

import json

import numpy as np
import pytest

from minillm import kernels
from minillm.cli import info
from minillm.kernels import _jit, settings

if kernels.KERNELS == "numpy":
    pytest.skip("the definitions know one way", allow_module_level=True)

from minillm.kernels import linear, matmul, paths, shared, tile, tile_products
from tests.test_kernels_recurrent import GATES, TOLERANCE, both, layer

WAYS = ("tiles", "tall", "blas")
each_way = pytest.mark.parametrize(
    "way", [*WAYS[:2], pytest.param("blas", marks=pytest.mark.skipif(not paths.has_blas, reason="no OpenBLAS"))]
)


@pytest.fixture
def undecided(monkeypatch):
    """As in a process that has multiplied nothing yet."""
    monkeypatch.delenv("MINILLM_PRODUCTS", raising=False)
    paths._decide.cache_clear()
    tall = shared._integers[shared.TALL]
    paths._measured.cache_clear()
    yield monkeypatch
    shared.set_integer(shared.TALL, tall)
    paths._decide.cache_clear()
    paths._measured.cache_clear()


@pytest.fixture
def go(undecided):
    """Send all products one way."""

    def go(way):
        undecided.setenv("MINILLM_PRODUCTS", way)
        paths._decide.cache_clear()
        return paths.way()

    return go


@_jit.jit
def _add_product(a, a_at, lda, rows, k, panels, c, width):
    paths.add_product(a, a_at, lda, rows, k, panels, c, width)


# ---- each way is right -----------------------------------------------------------------------------------------------


@each_way
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_of_few_rows_is_the_product(go, way, dtype):
    assert go(way) == way
    rng = np.random.default_rng(7)
    for rows, k, n in [(1, 1, 1), (2, 5, 3), (9, 17, 31), (16, 400, 64), (23, 3, 70), (12, 192, 40)]:
        a, w = rng.standard_normal((rows, k + 2)).astype(dtype), rng.standard_normal((k, n)).astype(dtype)
        tall = way == "tall" and dtype == np.float32 and rows > tile.TALL_ROWS // 2
        width, cols = tile.width_of(n), tile.TALL_COLS if tall else tile.COLS
        for panels in (paths.pack_steps(rows, w), paths.pack_steps(rows, w[: k // 2], np.asfortranarray(w[k // 2 :]))):
            assert panels.shape == ((1, k, width) if way == "blas" else (width // cols, k, cols))
            c = np.ones((rows, width), dtype)
            _add_product(a.ravel(), 1, k + 2, rows, k, panels, c.ravel(), width)  # columns 1 .. k of a
            np.testing.assert_allclose(c[:, :n], 1 + a[:, 1:-1] @ w, **TOLERANCE[dtype])
            assert (c[:, n:] == 1).all()


@pytest.mark.parametrize("cell", GATES)
def test_a_recurrent_layer_computes_its_definition_on_every_way(go, cell):
    rng = np.random.default_rng(1)
    for B, T, C, H in [(3, 5, 6, 7), (19, 7, 5, 40), (37, 3, 17, 44)]:
        arguments, dh = layer(cell, B, T, C, H, np.float32), rng.standard_normal((B, T, H), np.float32)
        starts, made = rng.integers(0, T + 1, B), {}
        made["definition"] = both(cell, arguments, dh, starts, 1)
        for way in WAYS[: 3 if paths.has_blas else 2]:
            go(way)
            made[way] = both(cell, arguments, dh, starts, 0)
            for ours, theirs in zip(made[way], made["definition"], strict=True):
                np.testing.assert_allclose(ours, theirs, **TOLERANCE[np.float32])
        assert [a.tobytes() for a in made["tall"]] == [a.tobytes() for a in made["tiles"]]


@pytest.mark.skipif(kernels.get_num_threads() < 2, reason="needs two cores")
@each_way
def test_one_thread_equals_two_bit_for_bit(go, way):
    go(way)
    arguments, dh, threads = layer("lstm", 19, 4, 20, 40, np.float32), np.ones((19, 4, 40), np.float32), (1, 2)
    before, made = kernels.get_num_threads(), []
    try:
        for n in threads:
            kernels.set_num_threads(n)
            made.append([a.tobytes() for a in both("lstm", arguments, dh, None, 0)])
    finally:
        kernels.set_num_threads(before)
    assert made[0] == made[1]


@each_way
def test_large_products_are_the_product(go, way):
    go(way)
    rng = np.random.default_rng(3)
    x, w, b = (rng.standard_normal(shape, np.float32) for shape in ((150, 70), (40, 70), 40))
    assert tile_products.by_tiles(x.dtype, 150, 40, 70) == (way != "blas")
    y = x @ w.T
    np.testing.assert_allclose(matmul.product(x, w.T), y, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(matmul.product(w, x.T), y.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(linear.linear_forward(x, w, b), y + b, rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(linear.linear_backward(y, x, w, (True,) * 3), (y @ w, y.T @ x, y.sum(0)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


# ---- what was measured decides ---------------------------------------------------------------------------------------


def test_the_quicker_tiles_unless_blas_is_clearly_quicker():
    assert paths.quickest({"tiles": 60.0, "tall": 59.9, "blas": 62.9}) == "tiles"
    assert paths.quickest({"tiles": 60.0, "tall": 60.1, "blas": 61.0}) == "tall"
    assert paths.quickest({"tiles": 60.0, "tall": 70.0, "blas": 73.4}) == "tall"
    assert paths.quickest({"tiles": 60.0, "tall": 70.0, "blas": 73.6}) == "blas"
    assert paths.quickest({"tiles": 60.0}) == "tiles"


def test_every_way_is_measured():
    made = paths.measure()
    assert set(made) == set(WAYS[: 3 if paths.has_blas else 2]) and all(rate > 0.01 for rate in made.values())


def test_the_first_product_measures_and_later_processes_read(undecided, tmp_path):
    undecided.setattr(_jit, "cache_folder", lambda: tmp_path)
    undecided.setattr(paths, "has_blas", True)
    undecided.setattr(paths, "measure", lambda: {"tiles": 10.0, "tall": 20.0, "blas": 15.0})
    assert paths.way() == "tall" and shared._integers[shared.TALL] == 1
    (file,) = tmp_path.iterdir()
    assert file.name == f"few-rows-{kernels.cache_key()}.json"
    assert json.loads(file.read_text()) == {"tiles": 10.0, "tall": 20.0, "blas": 15.0}
    assert paths.recurrent_path() == (
        f"register tiles of {tile.TALL_ROWS} rows (measured, in GFLOP/s of one thread: tiles 10, tall 20, blas 15)"
    )
    for rate, chosen in ((15.0, "blas"), (3.0, "tiles")):
        file.write_text(json.dumps({"tiles": 9.0, "tall": 8.0, "blas": rate}))
        paths._decide.cache_clear()
        undecided.setattr(paths, "measure", None)  # another process: it reads
        assert paths.way() == chosen and shared._integers[shared.TALL] == 0


@pytest.mark.parametrize("damaged", [
    "", "tall", "[]", "{}", *(f'{{"tiles": 1, "tall": 1, "blas": {rate}}}' for rate in ('"x"', "NaN", "0", "1e999")),
    '{"tiles": 1, "tall": 1, "spoons": 2}', "3", '{"tiles": 1, "tall": 2}', "\0\xff",
])  # fmt: skip
def test_a_damaged_file_is_measured_anew(undecided, tmp_path, damaged):
    undecided.setattr(_jit, "cache_folder", lambda: tmp_path)
    undecided.setattr(paths, "has_blas", True)
    undecided.setattr(paths, "measure", lambda: {"tiles": 10.0, "tall": 9.0, "blas": 15.0})
    file = tmp_path / f"few-rows-{kernels.cache_key()}.json"
    file.write_bytes(damaged.encode("latin-1"))
    assert paths.way() == "blas"
    assert json.loads(file.read_text()) == paths.measure() and list(tmp_path.iterdir()) == [file]


def test_of_two_processes_that_measure_at_once_the_first_counts_for_both(undecided, tmp_path):
    file, theirs = tmp_path / f"few-rows-{kernels.cache_key()}.json", {"tiles": 3.0, "tall": 5.0, "blas": 1.0}

    def measure():
        file.write_text(json.dumps(theirs))  # the other one, meanwhile
        return {"tiles": 10.0, "tall": 10.0, "blas": 1.0}

    undecided.setattr(_jit, "cache_folder", lambda: tmp_path)
    undecided.setattr(paths, "measure", measure)
    undecided.setattr(paths, "has_blas", True)
    file.write_text("damaged")
    assert paths.rates() == theirs == json.loads(file.read_text())


def test_where_nothing_can_be_kept_each_process_measures_once(undecided, tmp_path):
    asked = []
    undecided.setattr(paths, "measure", lambda: asked.append(1) or {"tiles": 10.0, "tall": 20.0})
    for folder in (tmp_path / "missing", None):
        undecided.setattr(_jit, "cache_folder", lambda folder=folder: folder)
        assert paths.rates() == paths.rates() == {"tiles": 10.0, "tall": 20.0}
    assert asked == [1, 1] and not list(tmp_path.iterdir())


def test_ways_that_are_not_there_today_are_left_out_of_what_was_kept(undecided, tmp_path):
    """A process without OpenBLAS neither goes its way nor measures what another has measured."""
    undecided.setattr(_jit, "cache_folder", lambda: tmp_path)
    undecided.setattr(paths, "measure", None)
    file = tmp_path / f"few-rows-{kernels.cache_key()}.json"
    file.write_text('{"tiles": 3.0, "tall": 5.0, "blas": 9.0}')
    for found, chosen in ((True, "blas"), (False, "tall")):
        paths._decide.cache_clear()
        undecided.setattr(paths, "has_blas", found)
        assert paths.way() == chosen


# ---- all one way -----------------------------------------------------------------------------------------------------


def test_a_forced_way_is_told(go):
    go("tall")
    rows = dict(line.split("  ", 1) for line in info.of_installation().splitlines())
    assert rows["recurrent steps"].strip() == f"register tiles of {tile.TALL_ROWS} rows (MINILLM_PRODUCTS=tall)"
    assert rows["matmul"].endswith("large ones by register tiles") == paths.has_blas
    go("tiles")
    assert paths.recurrent_path() == f"register tiles of {tile.ROWS} rows (MINILLM_PRODUCTS=tiles)"


def test_without_fused_multiply_adds_large_products_go_by_blas(monkeypatch):
    monkeypatch.setattr(tile_products, "FUSED", False)
    assert not tile_products.by_tiles(np.dtype(np.float32), 512, 512, 512)
    assert "tiles" not in matmul.matmul_path()
    x = np.random.default_rng(0).standard_normal((200, 150), np.float32)
    np.testing.assert_allclose(matmul.product(x, x.T), x.astype(float) @ x.T, rtol=1e-4, atol=1e-4)


def test_a_way_that_is_not_there_is_one_sentence(go, undecided):
    with pytest.raises(ValueError, match="MINILLM_PRODUCTS must be 'measured' or .*; got 'BLAS'"):
        go("BLAS")
    undecided.setattr(paths, "has_blas", False)
    with pytest.raises(ValueError, match="MINILLM_PRODUCTS=blas: NumPy's OpenBLAS was not found; use"):
        go("blas")
    undecided.setenv("MINILLM_PRODUCTS", "measured")
    assert settings.products() == "measured"
