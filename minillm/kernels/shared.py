"""A few integers that the kernels of all Python threads share, and a lock for them; for use inside
kernels.

To compiled code a global array is a constant. So these lie at a place that it knows by name, as it
does a library's function: machine code from the cache finds them, too.
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from ._jit import jit

_NAME = "minillm_shared_integers"
_LOCK, BLAS_CALLS, BLAS_THREADS, TALL, _COUNT = range(5)  # places
_integers = np.zeros(_COUNT, np.int64)  # lives as long as the process does
llvm.add_symbol(_NAME, _integers.ctypes.data)


def set_integer(place: int, value: int) -> None:
    """Let kernels find a number; from Python."""
    _integers[place] = value


@intrinsic
def _place(typing):
    """Where the integers are."""

    def generate(context, build, signature, arguments):
        kind = ir.ArrayType(ir.IntType(64), _COUNT)
        found = build.module.globals.get(_NAME) or ir.GlobalVariable(build.module, kind, _NAME)
        return build.bitcast(found, context.get_value_type(signature.return_type))

    return types.CPointer(types.int64)(), generate


@intrinsic
def _exchange(typing, value):
    """Put a value into the lock, and return the one before, in one step that no other thread can
    come between.
    """

    def generate(context, build, signature, arguments):
        kind = ir.ArrayType(ir.IntType(64), _COUNT)
        found = build.module.globals.get(_NAME) or ir.GlobalVariable(build.module, kind, _NAME)
        return build.atomic_rmw(
            "xchg", build.gep(found, [ir.IntType(32)(0), ir.IntType(32)(_LOCK)]), arguments[0], "seq_cst"
        )

    return types.int64(types.int64), generate


@jit(inner=True)
def lock():
    """Wait until no other thread holds the lock, and take it: for a few instructions, waiting
    threads spin.
    """
    while _exchange(np.int64(1)) != 0:  # type: ignore[call-arg]
        pass


@jit(inner=True)
def unlock():
    """Give the lock back."""
    _exchange(np.int64(0))  # type: ignore[call-arg]


@jit(inner=True)
def integers():
    """The integers, an array; to be read and changed while the lock is held."""
    return carray(_place(), (_COUNT,))  # type: ignore[call-arg]
