"""What the kernels are built from: fast exponentials, preparing arrays, threads, kernel or definition."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding as llvm
from numba.core.codegen import JITCodeLibrary

from minillm import kernels
from minillm.kernels import _jit, layout, turns, vector_math

compiled = pytest.mark.skipif(not _jit.JIT, reason="plain Python uses the C library's functions")
emit = JITCodeLibrary._finalize_specific


@_jit.jit
def _exp(x, y):
    for i in range(x.size):
        y[i] = vector_math.exp(x[i])


@_jit.jit
def _tanh(x, y):
    for i in range(x.size):
        y[i] = vector_math.tanh(x[i])


@_jit.jit
def _sigmoid(x, y):
    for i in range(x.size):
        y[i] = vector_math.sigmoid(x[i])


@_jit.jit
def _erf(x, y):
    for i in range(x.size):
        y[i] = vector_math.erf(x[i])


@_jit.jit
def _max(x, y):
    y[0] = vector_math.row_max(x)


def _exact_sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


FUNCTIONS = {  # name -> (loop, exact function, bound in units in the last place)
    "exp": (_exp, np.exp, 0.9),
    "tanh": (_tanh, np.tanh, 1.4),
    "sigmoid": (_sigmoid, _exact_sigmoid, 2.5),
    "erf": (_erf, np.vectorize(math.erf, otypes=[float]), 1.1),
}


def _floats():
    """float32 numbers of every size, from the smallest to the largest, and denser ones where the functions bend."""
    bits = np.arange(0, 2**32, 39_989, dtype=np.uint64).astype(np.uint32)
    everywhere = bits.view(np.float32)
    return np.concatenate(
        [
            everywhere[np.isfinite(everywhere)],
            np.linspace(-90, 90, 60_001, dtype=np.float32),
            np.linspace(-5, 5, 60_001, dtype=np.float32),
            np.nextafter(np.float32([88.722839, -87.336548, 0.625, 0.9, 4, -0.9]), np.float32(0)),
            np.float32([88.72283, 88.722839, 88.7, -87.33654, -87.336548, 0.625, 0.9, 4, -0.9]),
        ]
    )


@compiled
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_functions_are_right_to_the_stated_bound(name):
    loop, exact, bound = FUNCTIONS[name]
    x = _floats()
    y = np.empty_like(x)
    loop(x, y)
    with np.errstate(over="ignore", under="ignore"):
        expected = exact(x.astype(np.float64))
        rounded = expected.astype(np.float32)
    np.testing.assert_array_equal(np.isinf(y), np.isinf(rounded))
    normal = np.isfinite(rounded) & (np.abs(rounded) >= np.finfo(np.float32).tiny)
    ulps = np.abs(y[normal] - expected[normal]) / np.spacing(np.abs(rounded[normal])).astype(np.float64)
    worst = ulps.argmax()
    assert ulps[worst] <= bound, f"{name}({x[normal][worst]!r}) is {ulps[worst]:.2f} ulp off"
    tiny = np.isfinite(rounded) & ~normal  # below the smallest normal number there may be 0
    assert np.abs(y[tiny] - expected[tiny]).max(initial=0) <= np.finfo(np.float32).tiny


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_special_values(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0], dtype)
    nan = np.nan
    for loop, expected in (
        (_exp, [nan, np.inf, 0, 1]),
        (_tanh, [nan, 1, -1, 0]),
        (_sigmoid, [nan, 1, 0, 0.5]),
        (_erf, [nan, 1, -1, 0]),
    ):
        y = np.empty_like(x)
        loop(x, y)
        np.testing.assert_array_equal(y, np.array(expected, dtype))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_functions_are_those_of_the_c_library(name):
    loop, exact, _ = FUNCTIONS[name]
    x = np.linspace(-30, 30, 1001)
    y = np.empty_like(x)
    loop(x, y)
    np.testing.assert_allclose(y, exact(x), rtol=1e-14)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_row_max(dtype):
    rng = np.random.default_rng(0)
    y = np.empty(1, dtype)
    for size in (1, 2, 7, 8, 100):
        for shift in (-5, 0, 5):
            x = (rng.standard_normal(size) + shift).astype(dtype)
            _max(x, y)
            assert y[0] == x.max()
    for x, top in (([-np.inf, -np.inf], -np.inf), ([-np.inf, -3e38, -1.0], -1.0), ([np.inf, 1], np.inf), ([-0.0], 0.0)):
        _max(np.array(x, dtype), y)
        assert y[0] == dtype(top)


def doubling():
    """A kernel for other kernels, and one that calls it."""

    @_jit.jit(inner=True)
    def double(x):
        return 2 * x

    @_jit.jit
    def quadruple(x):
        return double(double(x))

    return double, quadruple


@compiled
def test_an_inner_kernel_has_no_way_in_from_python():
    double, quadruple = doubling()
    for _ in range(2):  # before and after it was compiled for another kernel
        with pytest.raises(TypeError, match="double is for other kernels"):
            double(1.0)
        assert quadruple(1.0) == 4.0


@compiled
def test_an_inner_kernel_has_no_machine_code_of_its_own():
    double, quadruple = doubling()
    assert quadruple(2.0) == 8.0
    for kernel, has_some in ((double, False), (quadruple, True)):
        (compiled,) = kernel.overloads.values()
        address = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
        assert (address != 0) == has_some


@compiled
def test_machine_code_is_made_once_of_a_parallel_kernel_and_all_of_it_is_its_own(monkeypatch):
    made = []
    monkeypatch.setattr(JITCodeLibrary, "_finalize_specific", lambda library: made.append(library) or emit(library))

    @_jit.jit(inner=True)
    def ends(x, i):
        return x[i] + x[i + 1] + x[i + 2]

    @_jit.jit(parallel=True)
    def fill(x, y):
        for i in _jit.prange(y.size):
            y[i] = ends(x, i)

    x, y = np.arange(40.0), np.empty(37)
    fill(x, y)
    np.testing.assert_array_equal(y, 3 * np.arange(37) + 3)
    (compiled,) = fill.overloads.values()
    assert made == [compiled.library]
    functions = list(compiled.library._final_module.functions)
    outside = {f.name for f in functions if not f.is_declaration and f.linkage != llvm.Linkage.internal}
    assert outside <= {compiled.fndesc.llvm_func_name, compiled.fndesc.llvm_cpython_wrapper_name}


@compiled
def test_a_constant_argument_is_no_signature_of_its_own():
    @_jit.jit(inner=True)
    def add(x, n, negative):
        return x - n if negative else x + n

    @_jit.jit
    def sums(x, n):
        return add(x, 1, True) + add(x, n, n > 2) + add(x, 7, False)

    assert sums(1, 2) == 0 + 3 + 8
    assert len(add.signatures) == 1


def test_arrays_are_normalised_without_needless_copies():
    x = np.zeros((2, 3, 4), np.float32)
    assert layout.contiguous(x) is x
    assert layout.contiguous(x.astype(np.float64)).dtype == np.float64
    assert layout.contiguous(x, np.float64).dtype == np.float64
    assert layout.contiguous(x.astype(np.int32)).dtype == np.float32
    frozen = x.copy()
    frozen.flags.writeable = False
    for odd in (x.transpose(2, 1, 0), x[:, ::2], frozen):
        flags = layout.contiguous(odd).flags
        assert flags.c_contiguous and flags.writeable
    assert layout.as_rows(x).shape == (6, 4) and layout.as_rows(x).base is x
    assert layout.as_rows(np.zeros((2, 3, 0))).shape == (6, 0)


def test_an_address_is_that_of_the_numbers():
    x = np.arange(6.0)
    frozen = np.arange(3.0)
    frozen.flags.writeable = False
    for array in (x, x[2:], frozen, x[::2], x[:0]):
        assert layout.address(array) == array.ctypes.data
    ids = layout.integers(np.array([1, 2], np.uint8))
    assert ids.dtype == np.int64 and ids.flags.writeable and ids.tolist() == [1, 2]


def test_numbers_of_threads():
    before = kernels.get_num_threads()
    kernels.set_num_threads(1)
    assert kernels.get_num_threads() == 1
    kernels.set_num_threads(before)
    for wrong in (0, -1, 10_000, 1.5, "2", True):
        with pytest.raises(ValueError, match="set_num_threads: expected an integer from 1 to"):
            kernels.set_num_threads(wrong)
    with pytest.raises(AttributeError, match="no attribute 'gelu_sideways'"):
        _ = kernels.gelu_sideways


@compiled
def test_compilations_are_announced():
    heard = []
    stop = _jit.on_compile(lambda name, seconds: heard.append((name, seconds)))

    @_jit.numba.njit
    def newcomer(x):
        return x + 1

    newcomer(1)
    stop()
    newcomer(1.0)
    mine = [seconds for name, seconds in heard if name == "newcomer"]
    assert len(mine) == 2 and mine[0] is None and mine[1] > 0


# ---- other processes -------------------------------------------------------------------------------------------------

PROGRAM = "import numpy as np; from minillm import optim; print(optim.sum_of_squares([np.full(40000, 2.0)]))"


def _run(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout.strip(), done.stderr


@compiled
def test_whether_a_kernel_is_compiled_is_known_before_it_is_called(tmp_path):
    asked = "from minillm import kernels; print(kernels.is_compiled('optim', '_sum_of_squares_blocks'), end=' ');"
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "MINILLM_KERNELS": "numba"}
    assert _run(asked + PROGRAM + ";" + asked, **environment)[1].split() == ["False", "160000.0", "True"]
    assert _run(asked, **environment)[1] == "True"
    assert _run(asked, **environment, NUMBA_CPU_NAME="generic")[1] == "False"  # another machine's, in a shared folder
    assert _run(asked, **environment | {"MINILLM_KERNELS": "numpy"})[1] == "True"


@compiled
@pytest.mark.parametrize("ending, kept", [("nbi", 0), ("nbi", 10), ("nbi", -3), ("nbc", 100)])
def test_a_damaged_file_of_the_cache_is_compiled_anew(tmp_path, ending, kept):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "MINILLM_KERNELS": "numba"}
    assert _run(PROGRAM, **environment)[1] == "160000.0"
    (file,) = tmp_path.rglob(f"optim._sum_of_squares_blocks-*.{ending}")
    whole = file.read_bytes()
    file.write_bytes(whole[:kept])
    assert _run(PROGRAM, **environment) == (0, "160000.0", "")
    assert len(file.read_bytes()) > len(whole) // 2


@compiled
def test_a_cache_that_can_be_written_no_more_is_done_without(tmp_path):
    program = PROGRAM.replace("print(", f"import shutil; shutil.rmtree({str(tmp_path)!r}); print(")
    assert _run(program, NUMBA_CACHE_DIR=str(tmp_path), MINILLM_KERNELS="numba") == (0, "160000.0", "")


@compiled
def test_of_processes_that_want_a_kernel_at_once_one_compiles(tmp_path):
    pytest.importorskip("fcntl")
    told = "from minillm import kernels; kernels.on_compile(lambda *what: print('compiling', *what, flush=True));"
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "MINILLM_KERNELS": "numba"}
    programs = [
        subprocess.Popen([sys.executable, "-c", told + PROGRAM], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [program.communicate(timeout=120)[0] for program in programs]
    assert all(out.endswith("160000.0\n") for out in said)
    assert sum("compiling _sum_of_squares_blocks None" in out for out in said) == 1


class TestTurns:
    @pytest.fixture
    def table(self, tmp_path):
        fcntl = pytest.importorskip("fcntl")
        path = tmp_path / "kernel.nbi"
        with open(path, "wb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            yield path

    def test_whoever_is_never_done_is_not_waited_for(self, table, monkeypatch):
        monkeypatch.setattr(turns, "PATIENCE", 0.05)
        with turns.in_turn(str(table)):
            pass
        with turns.in_turn(str(table.parent)):  # no file that could be locked
            pass

    def test_a_lock_on_a_file_that_was_replaced_meanwhile_counts_for_nothing(self, tmp_path, monkeypatch):
        fcntl = pytest.importorskip("fcntl")
        path, flock, locked = tmp_path / "kernel.nbi", fcntl.flock, []

        def as_another_saves(descriptor, how):
            locked.append(descriptor)
            if len(locked) == 1:
                new = path.with_suffix(".new")
                new.write_bytes(b"what was compiled")
                os.replace(new, path)
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", as_another_saves)
        descriptor = turns._locked(str(path))
        assert len(locked) == 2 and os.path.samestat(os.fstat(descriptor), os.stat(path))
        os.close(descriptor)


@pytest.mark.parametrize(
    "environment",
    [
        {"MINILLM_KERNELS": "numpy"},
        {"NUMBA_DISABLE_JIT": "1"},
        {"NUMBA_THREADING_LAYER": "workqueue"},
        {"NUMBA_CACHE_DIR": "/dev/null/nowhere"},  # a cache that cannot be written
        {"MINILLM_THREADS": "1"},
        {"MINILLM_THREADS": "1000"},  # as many as there are
        {"MINILLM_PROCESS": "plain"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_survives_in_other_surroundings(environment):
    code, out, err = _run(PROGRAM, **environment)
    assert (code, out) == (0, "160000.0"), err


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"MINILLM_KERNELS": "numba"}, "numba True"),
        ({"MINILLM_KERNELS": "numpy"}, "numpy False"),
        ({"NUMBA_DISABLE_JIT": "1"}, "numpy False"),
        ({"NUMBA_DISABLE_JIT": "0"}, "numba True"),
    ],
)
def test_what_computes(environment, expected):
    program = PROGRAM.replace("print(", "(") + "; from minillm import kernels; import sys;"
    program += "print(kernels.KERNELS, 'minillm.kernels.optim' in sys.modules)"
    assert _run(program, **{"MINILLM_KERNELS": "numba", **environment})[1] == expected


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("MINILLM_KERNELS", "cuda", "MINILLM_KERNELS must be 'numba' or 'numpy'; got 'cuda'"),
        ("MINILLM_PRODUCTS", "all", "MINILLM_PRODUCTS must be 'measured' or 'tiles' or 'tall' or 'blas'; got 'all'"),
        ("MINILLM_THREADS", "abc", "MINILLM_THREADS must be a positive integer; got 'abc'"),
        ("MINILLM_THREADS", "0", "MINILLM_THREADS must be a positive integer; got '0'"),
        ("MINILLM_THREADS", "²", "MINILLM_THREADS must be a positive integer; got '²'"),
    ],
)
@pytest.mark.parametrize("kind", ["numba", "numpy"])
def test_wrong_settings_are_named(name, value, message, kind):
    program = "from minillm import kernels; kernels.get_num_threads()"
    code, _, err = _run(program, **{"MINILLM_KERNELS": kind, name: value, "PYTHONIOENCODING": "utf-8"})
    assert code == 1 and err.strip().endswith(f"ValueError: {message}")


def test_a_wrong_setting_is_one_line_of_the_command():
    code, _, err = _run("from minillm.cli import main; raise SystemExit(main(['info']))", MINILLM_THREADS="abc")
    assert (code, err.strip()) == (2, "minillm: MINILLM_THREADS must be a positive integer; got 'abc'")
    code, _, err = _run(PROGRAM, MINILLM_PROCESS="fancy", MINILLM_KERNELS="numba")
    assert code == 1 and "MINILLM_PROCESS must be 'tuned' or 'plain'; got 'fancy'" in err


def test_a_numba_that_cannot_be_imported_says_how_to_go_on(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 1.0 or less')")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {PROGRAM}"
    code, _, err = _run(program, MINILLM_KERNELS="numba")
    assert code == 1 and "Numba needs NumPy 1.0 or less. MINILLM_KERNELS=numpy runs without Numba" in err
    assert _run(program, MINILLM_KERNELS="numpy")[:2] == (0, "160000.0")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and sets the C library of Linux")
@pytest.mark.skipif(kernels.KERNELS == "numpy", reason="the definitions leave the C library as it is")
def test_freed_memory_is_kept_until_it_is_released():
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    rows = [(np.ones(1 << 20, np.uint8), np.ones(1 << 10, np.uint8)) for _ in range(200)]
    small = [row[1] for row in rows]  # lives on between the holes
    del rows
    kept = resident()
    kernels.release_freed_memory()
    assert resident() < kept - 150 and all(array.all() for array in small)
