"""What only other kernels call becomes part of them: it is compiled to LLVM's code, and no further.

Numba makes machine code of each function together with all that it calls. In a tower of small
functions most of that is never run, for only what Python calls needs an address: the step of
decoding compiles in 34 s, not in 40. And with that code, a process that had just compiled its
kernels found other last bits than one that read them from the cache: functions have one name in all
kernels, and probably the copy that was there first was taken for all.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class _Part(JITCodeLibrary):
    """A library that is linked into others, and has no address itself."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True


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
