"""Machine code is made once, of a whole kernel.

Numba makes it of each function together with all that it calls: of what only other kernels call, of
the body of a parallel loop, and of two functions around each body, every time with all the
optimisation there is. In a tower of small functions nearly all of that is never run, for only what
Python calls needs an address. So what is made on the way is a *part* here: LLVM's code and no
further. The kernel at the top links its parts, and optimises the whole.

Functions of a part become the kernel's own. Otherwise they would have one name in all kernels, and
the copy that was there first be taken for all, with other last bits in a process that had just
compiled its kernels than in one that read them from the cache.
"""

from __future__ import annotations

import copy
from typing import Any

from llvmlite import binding as llvm
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class _Part(JITCodeLibrary):
    """A library that is linked into others, and has no address itself."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


_OF_PARTS = llvm.Linkage.linkonce_odr, llvm.Linkage.weak_odr


class _Whole(JITCodeLibrary):
    """A library that is linked of parts."""

    def _optimize_final_module(self) -> None:
        for function in self._final_module.functions:
            if function.linkage in _OF_PARTS and not function.is_declaration:
                function.linkage = llvm.Linkage.internal
        super()._optimize_final_module()


def _makes_parts(codegen: Any) -> Any:
    """What Numba takes libraries from, where these are to be parts."""
    parts = copy.copy(codegen)
    parts._library_class = _Part
    parts.set_env = lambda name, environment: None  # it would be written at the address of the part
    return parts


class WholeKernel(Compiler):
    """Numba's compiler, for what Python calls."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *how: Any) -> None:
        codegen = targetctx.codegen()
        whole = _Whole(codegen, "kernel")
        whole.enable_object_caching()
        super().__init__(typingctx, targetctx.subtarget(_internal_codegen=_makes_parts(codegen)), whole, *how)


class OnlyInner(Compiler):
    """Numba's compiler, up to code that can be linked."""

    def __init__(
        self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any
    ) -> None:
        flags.no_compile = True  # no address is asked for
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)
        self.state.library = _Part(self.state.targetctx.codegen(), "inner")


def no_way_in(dispatcher: Any) -> None:
    """Let kernels find what was compiled, and make a call from Python a TypeError."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{dispatcher.py_func.__name__} is for other kernels: it has no way in from Python")

    def remember(compiled: Any) -> None:
        compiled = compiled._replace(entry_point=object())  # by which Numba knows it, for lack of an address
        dispatcher.targetctx.insert_user_function(compiled.entry_point, compiled.fndesc, [compiled.library])
        dispatcher.overloads[tuple(compiled.signature.args)] = compiled

    dispatcher.add_overload, dispatcher._compile_for_args = remember, refuse
