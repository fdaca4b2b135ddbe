"""Cutting text into pieces. See tokenizer/patterns.py.

The loops walk over the code points with a table that says of each whether it is a letter, a number,
white space or something else: that is all the known patterns ask. A test compares them with the
`regex` module on every code point, in every context that a pattern can tell apart.
"""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import regex

from .._jit import jit

PARALLEL = False  # a text is worked on by one thread; several Python threads share a long one

_GPT2, _SMOLLM2, _GPT4 = np.arange(3)
_NUMBERS = {"gpt2": _GPT2, "smollm2": _SMOLLM2, "gpt4": _GPT4}
_UTF32 = f"utf-32-{sys.byteorder[0]}e"  # the encoding whose bytes are an array of uint32

OTHER, LETTER, NUMBER, SPACE = np.arange(4, dtype=np.uint8)  # subtle: to Numba each plain int is a type of its own


def split(text: str, stops: np.ndarray, pattern: str) -> np.ndarray:
    """See tokenizer/patterns.py."""
    points = np.frombuffer(text.encode(_UTF32), np.uint32)
    ends = np.empty(len(points), np.int64)
    return ends[: _split(points, stops, code_point_classes(), _NUMBERS[pattern], ends)].copy()


@cache
def code_point_classes() -> np.ndarray:
    """(0x110000,) uint8: OTHER, LETTER, NUMBER or SPACE for every code point, as the `regex` module
    sees it.
    """
    classes = np.full(0x110000, OTHER, np.uint8)
    everything = np.arange(0x110000, dtype=np.uint32).tobytes().decode(_UTF32, "surrogatepass")
    for kind, expression in ((LETTER, r"\p{L}+"), (NUMBER, r"\p{N}+"), (SPACE, r"\s+")):
        for match in regex.finditer(expression, everything):
            classes[ord(match.group()[0]) : ord(match.group()[-1]) + 1] = kind
    return classes


@jit
def _run(points, i, stop, classes, kind):
    """The end of the run of characters of one class that goes on at i."""
    while i < stop and classes[points[i]] == kind:
        i += 1
    return i


@jit
def _contraction(points, i, stop, any_case):
    """The end of 's 'd 'm 't 'll 've 're at i, where an apostrophe stands; i itself when there is
    none.
    """
    if i + 1 == stop:
        return i
    fold = 0x20 if any_case else 0  # the bit that tells ASCII lower case from upper
    first = points[i + 1] | fold
    if first == ord("s") or first == ord("d") or first == ord("m") or first == ord("t"):
        return i + 2
    if any_case and points[i + 1] == 0x17F:  # the long s is an s in any case
        return i + 2
    if i + 2 < stop:
        second = points[i + 2] | fold
        if first == ord("l") and second == ord("l"):
            return i + 3
        if (first == ord("v") or first == ord("r")) and second == ord("e"):
            return i + 3
    return i


@jit
def _white_space(points, i, stop, classes, pattern):
    """The end of the piece of white space that begins at i: a run, without the last space before a
    word.
    """
    end = _run(points, i, stop, classes, SPACE)
    if pattern == _GPT4:
        for last in range(end - 1, i - 1, -1):
            if points[last] == ord("\n") or points[last] == ord("\r"):
                return last + 1
    if end == stop or end == i + 1:
        return end
    if pattern == _SMOLLM2 and classes[points[end]] == NUMBER:
        return end
    return end - 1


@jit
def _piece_gpt2(points, i, stop, classes, pattern):
    """The end of the piece that begins at i, by the pattern of GPT-2 or SmolLM2."""
    start = i
    if points[i] == ord("'"):
        end = _contraction(points, i, stop, False)
        if end > i:
            return end
    elif points[i] == ord(" ") and i + 1 < stop:
        start = i + 1  # a space belongs to the word, number or punctuation after it
    kind = classes[points[start]]
    if kind == SPACE:
        return _white_space(points, i, stop, classes, pattern)
    if kind == NUMBER and pattern == _SMOLLM2:
        return i + 1  # the space before a digit, or the digit
    return _run(points, start + 1, stop, classes, kind)


@jit
def _piece_gpt4(points, i, stop, classes):
    """The end of the piece that begins at i, by the pattern of GPT-4."""
    if points[i] == ord("'"):
        end = _contraction(points, i, stop, True)
        if end > i:
            return end
    kind = classes[points[i]]
    if kind == LETTER:
        return _run(points, i + 1, stop, classes, LETTER)
    if kind == NUMBER:
        return _run(points, i + 1, min(i + 3, stop), classes, NUMBER)
    after = classes[points[i + 1]] if i + 1 < stop else SPACE
    if after == LETTER and points[i] != ord("\r") and points[i] != ord("\n"):
        return _run(points, i + 2, stop, classes, LETTER)
    if kind == OTHER or (points[i] == ord(" ") and after == OTHER):
        end = _run(points, i + 1, stop, classes, OTHER)
        while end < stop and (points[end] == ord("\r") or points[end] == ord("\n")):
            end += 1
        return end
    return _white_space(points, i, stop, classes, _GPT4)


@jit
def _split(points, stops, classes, pattern, ends):
    """Write the ends of the pieces; returns how many there are."""
    count, i = 0, np.int64(0)
    for stop in stops:
        while i < stop:
            if pattern == _GPT4:
                i = _piece_gpt4(points, i, stop, classes)
            else:
                i = _piece_gpt2(points, i, stop, classes, pattern)
            ends[count] = i
            count += 1
    return count
