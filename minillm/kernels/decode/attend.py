"""Attention of one token of each text to the keys and values in the cache, which are read once.

After a long text they are more to read than the model: the weights of SmolLM2 are 97 MB in the
blocks of its file, its keys and values of 8,000 tokens 184 MB in float16. So

* a task is a part of the tokens with all their heads, which lie side by side: a thread reads one
  long stream, whatever the number of heads;
* a key or a value is loaded once for up to three of the query heads that share it, whose sums stay
  in registers (Numba alone does not do that: the few LLVM instructions are written here);
* the parts are put together at the end, each weighed by the sum of its exponentials. They are cut
  by the length of the text alone: the result does not depend on the number of threads.

Keys and values lie as ``models/base.py`` keeps them, in float16 or float32. Both are arrays of
int16 to the loops, one or two for a number, so that each is one program.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .. import attention_tiles as tiles
from .._jit import jit, prange
from ..vector_math import row_max
from ..vectors import exponentials, fill, scale_by, scaled, subtract, sum_of
from .halves import floats_to_halves, halves_to_floats, load_halves

_BLOCK = 32  # tokens that are gone through head by head, while they are in the nearest cache
_PART = 256  # tokens of a task, at most
_SERIAL = 1 << 16  # multiplications that one thread has done before a second one is awake
_LANES = 16
_MOST = 3  # query heads at a time
_FLOAT, _SHORT, _WORD = ir.FloatType(), ir.IntType(16), ir.IntType(64)
_FREE = ("contract", "reassoc", "nsz")

# ---- what is kept --------------------------------------------------------------------------------


@jit(inner=True)
def keep(x, words):
    """Put the floats x into the cache: words (x.size or 2 x.size,) int16 (for kernels)."""
    if words.size == x.size:
        floats_to_halves(x, words)
    else:
        y = words.view(np.float32)
        for j in range(x.size):
            y[j] = x[j]


@jit(inner=True)
def kept(words, at, D, x):
    """x = the numbers of the cache from the one numbered ``at`` on, words (S, G, 1 or 2 D) (for
    kernels).
    """
    flat = words.reshape(-1)
    if words.shape[2] == D:
        halves_to_floats(flat, at, x.size, x, 0)  # type: ignore[call-arg]
    else:
        y = flat[2 * at : 2 * (at + x.size)].view(np.float32)
        for j in range(x.size):
            x[j] = y[j]


# ---- loops over the tokens of a block, for a key head and some of the query heads that share it --


def _number(n: int) -> Any:
    return ir.Constant(_WORD, n)


def _several(number: Any, lanes: int | None) -> Any:
    return number if lanes is None else ir.VectorType(number, lanes)


class _Loop:
    """What both loops share, for so many query heads at a time: pointers into arrays, and a loop
    along D, 16 numbers at a time and then one by one.
    """

    def __init__(self, context: Any, build: Any, signature: Any, arguments: Any, heads: int, in_halves: bool) -> None:
        self.context, self.build, self.in_halves = context, build, in_halves
        self.signature, self.arguments, self.heads = signature, arguments, range(heads)

    def pointer(self, argument: int, at: Any, kind: Any) -> Any:
        array = cgutils.create_struct_proxy(self.signature.args[argument])(
            self.context, self.build, self.arguments[argument]
        )
        return self.build.bitcast(self.build.gep(array.data, [at]), kind.as_pointer())

    def floats(self, argument: int, at: Any, lanes: int | None) -> Any:
        return self.build.load(self.pointer(argument, at, _several(_FLOAT, lanes)), align=4)

    def kept(self, argument: int, at: Any, lanes: int | None) -> Any:
        """Numbers of the cache."""
        if self.in_halves:
            return load_halves(self.build, self.pointer(argument, at, _SHORT), lanes)
        at = self.build.mul(at, _number(2))
        return self.build.load(self.pointer(argument, at, _several(_FLOAT, lanes)), align=4)

    def along(self, size: Any, body: Callable[[Any, int | None], None]) -> None:
        """``body(d, 16)`` for whole vectors, then ``body(d, None)`` for each number left."""
        build, whole = self.build, self.build.and_(size, _number(-_LANES))
        with cgutils.for_range_slice(build, _number(0), whole, _number(_LANES), intp=_WORD) as (d, _):
            body(d, _LANES)
        with cgutils.for_range_slice(build, whole, size, _number(1), intp=_WORD) as (d, _):
            body(d, None)

    def add(self, into: Any, a: Any, b: Any) -> None:
        """into += a b."""
        product = self.build.fmul(a, b, flags=_FREE)
        self.build.store(self.build.fadd(self.build.load(into), product, flags=_FREE), into)


def _each_kind(loop: Callable[[_Loop], None]) -> Any:
    """The code of an intrinsic whose first arguments are the number of heads, up to _MOST, and the
    words of a number of the cache, 1 or 2: for each of these kinds, the ``loop``.
    """

    def generate(context: Any, build: Any, signature: Any, arguments: Any) -> Any:
        for words in (1, 2):
            for heads in range(1, _MOST + 1):
                wanted = (build.icmp_signed("==", arguments[n], _number(x)) for n, x in enumerate((heads, words)))
                with build.if_then(build.and_(*wanted)):
                    loop(_Loop(context, build, signature, arguments, heads, words == 1))
        return context.get_dummy_value()

    return generate


@intrinsic
def _scores_of(typing, heads, each, words, at, apart, tokens, q, q_at, D, x, x_at, x_row):
    """x[x_at + h x_row + s] = the product of query h, at q[q_at + h D], with key s, at the number
    at + s apart of the cache.
    """

    def generate(loop):
        build, heads = loop.build, loop.heads
        _, _, _, at, apart, tokens, _, q_at, D, _, x_at, x_row = loop.arguments
        zeros = ir.Constant(ir.VectorType(_FLOAT, _LANES), [0.0] * _LANES)
        wide = [cgutils.alloca_once(build, zeros.type) for _ in heads]
        narrow = [cgutils.alloca_once(build, _FLOAT) for _ in heads]
        all_of = ir.FunctionType(_FLOAT, [_FLOAT, zeros.type])
        add_all = cgutils.get_or_insert_function(build.module, all_of, f"llvm.vector.reduce.fadd.v{_LANES}f32")
        with cgutils.for_range(build, tokens, intp=_WORD) as token:
            for h in heads:
                build.store(zeros, wide[h])
                build.store(ir.Constant(_FLOAT, 0.0), narrow[h])
            key = build.add(at, build.mul(token.index, apart))

            def body(d, lanes):
                k = loop.kept(2, build.add(key, d), lanes)
                for h in heads:
                    place = build.add(build.add(q_at, build.mul(_number(h), D)), d)
                    loop.add((wide if lanes else narrow)[h], k, loop.floats(6, place, lanes))

            loop.along(D, body)
            for h in heads:
                total = build.call(add_all, [build.load(narrow[h]), build.load(wide[h])], fastmath=("reassoc",))
                place = build.add(build.add(x_at, build.mul(_number(h), x_row)), token.index)
                build.store(total, loop.pointer(9, place, _FLOAT), align=4)

    size = types.intp
    return types.void(size, size, words, size, size, size, q, size, size, x, size, size), _each_kind(generate)


@intrinsic
def _means_of(typing, heads, each, words, at, apart, tokens, p, p_at, p_row, out, out_at, D):
    """out[out_at + h D + d] += sum_s p[p_at + h p_row + s] v_sd for the values v_s, at the number
    at + s apart of the cache.
    """

    def generate(loop):
        build, heads = loop.build, loop.heads
        _, _, _, at, apart, tokens, _, p_at, p_row, _, out_at, D = loop.arguments
        sums = {lanes: [cgutils.alloca_once(build, _several(_FLOAT, lanes)) for _ in heads] for lanes in (_LANES, None)}
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), [0] * _LANES)

        def body(d, lanes):
            kind = _several(_FLOAT, lanes)
            places = [build.add(build.add(out_at, build.mul(_number(h), D)), d) for h in heads]
            for h in heads:
                build.store(loop.floats(9, places[h], lanes), sums[lanes][h])
            with cgutils.for_range(build, tokens, intp=_WORD) as token:
                v = loop.kept(2, build.add(build.add(at, build.mul(token.index, apart)), d), lanes)
                for h in heads:
                    p = loop.floats(6, build.add(build.add(p_at, build.mul(_number(h), p_row)), token.index), None)
                    if lanes:
                        nothing = ir.Constant(kind, ir.Undefined)
                        p = build.insert_element(nothing, p, ir.Constant(ir.IntType(32), 0))
                        p = build.shuffle_vector(p, nothing, zeros)
                    loop.add(sums[lanes][h], v, p)
            for h in heads:
                build.store(build.load(sums[lanes][h]), loop.pointer(9, places[h], kind), align=4)

        loop.along(D, body)

    size = types.intp
    return types.void(size, size, words, size, size, size, p, size, size, out, size, size), _each_kind(generate)


@jit(inner=True)
def _scores(heads, each, words, at, apart, tokens, q, q_at, D, x, x_at, x_row):
    for h in range(0, heads, _MOST):
        some, q_h, x_h = min(_MOST, heads - h), q_at + h * D, x_at + h * x_row
        _scores_of(some, each, words, at, apart, tokens, q, q_h, D, x, x_h, x_row)  # type: ignore[call-arg]


@jit(inner=True)
def _means(heads, each, words, at, apart, tokens, p, p_at, p_row, out, out_at, D):
    for h in range(0, heads, _MOST):
        some, p_h, out_h = min(_MOST, heads - h), p_at + h * p_row, out_at + h * D
        _means_of(some, each, words, at, apart, tokens, p, p_h, p_row, out, out_h, D)  # type: ignore[call-arg]


# ---- a part of the tokens, and all of them -------------------------------------------------------


@jit(inner=True)
def _attend_part(q, keys, values, lo, hi, sizes, out, lse):
    # the queries (H D) of a token over the keys [lo, hi) of its text; keys, values: (S, G, 1 or 2
    # D), out (H D), lse (H)
    (H, G, D), n, each = sizes, hi - lo, keys.shape[2] // sizes[2]
    R, k, v, x = H // G, keys.reshape(-1), values.reshape(-1), np.empty(H * n, np.float32)
    fill(out, 0.0)
    if n == 0:
        fill(lse, -np.inf)
        return
    for i in range(0, n, _BLOCK):
        for g in range(G):
            at, tokens = ((lo + i) * G + g) * D, min(_BLOCK, n - i)
            _scores(R, each, k, at, G * D, tokens, q, g * R * D, D, x, g * R * n + i, n)
    for h in range(H):
        row = x[h * n : (h + 1) * n]
        top = row_max(row)
        subtract(row, top)
        exponentials(row)
        total = sum_of(row)
        lse[h] = top + np.log(total)
        scale_by(row, np.float32(1) / total)
    for i in range(0, n, _BLOCK):
        for g in range(G):
            at, tokens = ((lo + i) * G + g) * D, min(_BLOCK, n - i)
            _means(R, each, v, at, G * D, tokens, x, g * R * n + i, n, out, g * R * D, D)


@jit(inner=True)
def _task(task, q, keys, values, starts, now, sizes, outs, lses):
    parts = outs.shape[0]
    b, part = task // parts, task % parts
    hi = (part + 1) * now // parts
    lo = min(hi, max(starts[b], part * now // parts))
    _attend_part(q[b], keys[b], values[b], lo, hi, sizes, outs[part, b], lses[part, b])


@jit(parallel=True)
def _tasks(tasks, q, keys, values, starts, now, sizes, outs, lses):
    for task in prange(tasks):
        _task(np.int64(task), q, keys, values, starts, now, sizes, outs, lses)


@jit(inner=True)
def attend(qkv, keys, values, starts, now, sizes, out):
    """out (B, H D) = the attention of the queries in qkv (B, (H + 2 G) D) to the first ``now``
    tokens of the cache (for kernels).

    keys, values: (B, S, G, 1 or 2 D) int16. starts: (B,), tokens before are padding.
    """
    (H, _, D), B = sizes, keys.shape[0]
    alone = B * H * now * D < _SERIAL
    parts = 1 if alone else 2 * ((now + 2 * _PART - 1) // (2 * _PART))  # an even number, as most machines have cores
    q, scale = np.empty((B, H * D), np.float32), np.float32(1 / math.sqrt(D))
    for b in range(B):
        scaled(qkv[b, : H * D], scale, q[b])
    outs, lses = np.empty((parts, B, H * D), np.float32), np.empty((parts, B, H), np.float32)
    if alone:
        for b in range(B):
            _task(b, q, keys, values, starts, now, sizes, outs, lses)
    else:
        _tasks(B * parts, q, keys, values, starts, now, sizes, outs, lses)
    tiles.merge(outs.reshape(parts, B * H * D), lses, out.reshape(-1), np.empty((B, H, 1), np.float32))
