"""From tokens back to bytes. See tokenizer/base.py."""

from __future__ import annotations

import numpy as np

from .._jit import jit

U = np.uint64


@jit
def _joined_length(ids, starts, ends):
    """How many bytes the tokens have together; -1 when an id is no token."""
    length = np.int64(0)
    for id in ids:
        if id < 0 or id >= len(starts) or ends[id] < starts[id]:
            return np.int64(-1)
        length += ends[id] - starts[id]
    return length


@jit
def _join_tokens(ids, data, starts, ends, out):
    """Write the bytes of the tokens into `out`, which has room for eight more than there are."""
    at = U(0)
    for id in ids:
        # subtle: always eight bytes, which LLVM moves at once; the next token is written over what
        # was too much
        start = U(starts[id])
        n = U(ends[id]) - start
        for i in range(8):
            out[at + U(i)] = data[start + U(i)]
        for i in range(U(8), n):
            out[at + i] = data[start + i]
        at += n


def join_tokens(ids: np.ndarray, data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray | None:
    """See tokenizer/base.py."""
    length = _joined_length(ids, starts, ends)
    if length < 0:
        return None
    out = np.empty(length + 8, np.uint8)
    _join_tokens(ids, data, starts, ends, out)
    return out[:length]
