"""Which way the steps of a recurrent layer multiply is decided by what this machine does, measured
once.

There are three ways to the same sums: register tiles of ROWS rows, tall ones, for which the rows
are packed too (``tile.py``), and NumPy's BLAS (``blas.py``). Which is the quickest for some rows
times a matrix that stays the same depends on how many registers a processor has, how wide they are,
and how it fetches numbers: a tile that fits one processor is slow on another. So the first step of
a recurrent layer lets all of them compute, for some hundredths of a second, and the rates are kept
in a small file beside the compiled kernels. From then on the file decides: a product goes the same
way, and gives the same bits, in every run.

Tiles of both heights add the same numbers in the same order: the same bits. BLAS rounds elsewhere,
and so must be clearly quicker. A tall tile computes all its rows, wanted or not: it is for more
than half of them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import threading
import time
from pathlib import Path

import numpy as np

from . import _jit, settings
from ._jit import jit
from .blas import gemm, has_blas, hold_blas_threads, release_blas_threads
from .shared import TALL, integers, set_integer
from .tile import COLS, ROWS, TALL_COLS, TALL_ROWS, multiply_add, multiply_add_tall, pack_under, width_of

WAYS = "tiles", "tall", "blas"
NAMES = {"tiles": f"register tiles of {ROWS} rows", "tall": f"register tiles of {TALL_ROWS} rows", "blas": "BLAS"}
CLEARLY = 1.05  # times as fast
_ROUNDS = 9  # in turn, and the best of each counts: other programs only ever make a way slower

Rates = dict[str, float]  # way -> GFLOP/s

_deciding = threading.Lock()


def way() -> str:
    """``tiles``, ``tall`` or ``blas``."""
    with _deciding:  # two Python threads must not find different answers
        return _decide()


@functools.cache
def _decide() -> str:
    forced = settings.products()
    if forced == "blas" and not has_blas:
        raise ValueError("MINILLM_PRODUCTS=blas: NumPy's OpenBLAS was not found; use 'measured', 'tiles' or 'tall'")
    chosen = quickest(rates()) if forced == "measured" else forced
    set_integer(TALL, chosen == "tall")
    return chosen


def quickest(rates: Rates) -> str:
    """The quicker tiles, or BLAS where it is clearly quicker."""
    tiles = max([name for name in rates if name != "blas"], key=rates.__getitem__)
    return "blas" if rates.get("blas", 0.0) > CLEARLY * rates[tiles] else tiles


def recurrent_path() -> str:
    """The way of a recurrent layer's steps, and why, in words."""
    chosen = NAMES[way()]
    if settings.products() != "measured":
        return f"{chosen} (MINILLM_PRODUCTS={settings.products()})"
    told = ", ".join(f"{name} {rate:.0f}" for name, rate in rates().items())
    return f"{chosen} (measured, in GFLOP/s of one thread: {told})"


# ---- the product of few rows ---------------------------------------------------------------------


def pack_steps(rows: int, *matrices: np.ndarray) -> np.ndarray:
    """Matrices (k_i, n), one under the other, in the order in which the way of so few rows reads
    them.
    """
    chosen = way()
    return _packed("tiles" if chosen == "tall" and rows <= TALL_ROWS // 2 else chosen, *matrices)


def _packed(chosen: str, *matrices: np.ndarray) -> np.ndarray:
    """Panels (n / COLS, k, COLS) for tiles, of TALL_COLS columns for tall ones in float32, and for
    BLAS a single one that is as wide as all.
    """
    k, n = sum(len(w) for w in matrices), matrices[0].shape[1]
    if chosen != "blas":
        cols = TALL_COLS if chosen == "tall" and matrices[0].dtype == np.float32 else COLS
        return pack_under(cols, *matrices).reshape(-1, k, cols)
    panel = np.zeros((1, k, width_of(n)), matrices[0].dtype)
    np.concatenate(matrices, out=panel[0, :, :n])
    return panel


@jit(inner=True)
def _by_tiles(a, lda, rows, k, panels, c, width):
    tall = panels.shape[2] == TALL_COLS and (COLS > TALL_COLS or integers()[TALL])
    if tall and c.itemsize == 4:  # float64 would want twice the registers
        multiply_add_tall(a, lda, rows, k, panels.reshape(-1), c, width)
    else:
        multiply_add(a, lda, 1, rows, k, panels.reshape(-1), k * COLS, COLS, c, width, width)


@jit(inner=True)
def _by_blas(a, lda, rows, k, panels, c, width):
    hold_blas_threads()
    gemm(False, False, rows, width, k, a, lda, panels.reshape(-1), width, c, width, 1.0)
    release_blas_threads()


@jit(inner=True)
def add_product(a, a_at, lda, rows, k, panels, c, width):
    """c += a @ w for the (k, width) matrix w in ``panels``; a: ``rows`` rows in a flat array, c:
    flat (rows, width).
    """
    if panels.shape[2] > COLS:
        _by_blas(a[a_at:], lda, rows, k, panels, c, width)
    else:
        _by_tiles(a[a_at:], lda, rows, k, panels, c, width)


# ---- measuring, and what is kept of it -----------------------------------------------------------


def rates() -> Rates:
    """What was measured on this machine, by this process or by one before it."""
    folder = _jit.cache_folder()
    file = folder and folder / f"few-rows-{_jit.cache_key()}.json"
    return (file and _read(file)) or _measured(file)


@functools.cache
def _measured(file: Path | None) -> Rates:
    """Measure, and keep the file unless another process was quicker: then its rates count."""
    found = measure()
    if file is None:
        return found
    own = file.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):  # nobody may write there: the next process measures again
        own.write_text(json.dumps(found))
        if _read(file) is None:
            file.unlink(missing_ok=True)  # it is damaged
        with contextlib.suppress(FileExistsError):
            os.link(own, file)  # never replaces
    with contextlib.suppress(OSError):
        own.unlink(missing_ok=True)
    return _read(file) or found


def _read(file: Path) -> Rates | None:
    """The rates in a file, of the ways that there are today; None where one is missing or wrong."""
    try:
        content = json.loads(file.read_bytes())
        kept = {name: content[name] for name in _ways()}
        return kept if all(0 < rate < math.inf for rate in kept.values()) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _ways() -> list[str]:
    return [name for name in WAYS if has_blas or name != "blas"]


def measure() -> Rates:
    """Let each way compute a step of a recurrent layer, in turn."""
    rng, rows, k, n = np.random.default_rng(0), 16, 512, 1024
    a, w, c = (rng.standard_normal(shape, np.float32) for shape in (rows * k, (k, n), rows * n))
    panels = {name: _packed(name, w) for name in _ways()}
    seconds = dict.fromkeys(panels, math.inf)
    for turn in range(_ROUNDS + 1):
        for name in seconds:
            set_integer(TALL, name == "tall")
            start = time.perf_counter()
            _product(a, rows, k, panels[name], c, n)
            if turn > 0:  # the first one compiled
                seconds[name] = min(seconds[name], time.perf_counter() - start)
    return {name: round(2e-9 * rows * k * n / best, 1) for name, best in seconds.items()}


@jit
def _product(a, rows, k, panels, c, width):
    add_product(a, np.int64(0), k, rows, k, panels, c, width)
