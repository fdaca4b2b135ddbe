"""SentencePiece's table of replacements: `ﬁ` becomes `fi`, a full-width letter an ASCII one.

The table is a trie of UTF-8 strings, stored as a double array (Aoe 1989): from a node, the byte `b`
leads to the unit at `offset XOR b`, which is right if it carries the label `b`. A leaf says where
in the second part of the table the replacement begins; it ends with a zero byte.
"""

from __future__ import annotations

import numpy as np

_NOWHERE = -1


class CharacterMap:
    """The table in a file of SentencePiece, by its bytes.

    Raises ValueError when the table is cut short.
    """

    def __init__(self, table: bytes) -> None:
        size = int.from_bytes(table[:4], "little")
        if len(table) < 4 or size % 4 or len(table) < 4 + size:
            raise ValueError(f"Precompiled: a trie of {size} bytes does not fit into a table of {len(table)}")
        self._units: list[int] = np.frombuffer(table[4 : 4 + size], "<u4").tolist()
        self._replacements = table[4 + size :]
        self._root = _offset(self._units[0]) if self._units else 0
        self._known: dict[str, str | None] = {}  # what `shortest` found
        self._steps: dict[tuple[int, str], tuple[int, int]] = {}  # node, character -> the next node, a leaf

    def shortest(self, text: str) -> str | None:
        """The replacement of the shortest beginning of the text, in bytes, that has one; None for
        none.
        """
        if text not in self._known:
            node, leaf = self._root, _NOWHERE
            for byte in text.encode("utf-8"):
                node, leaf = self._follow(node, byte)
                if node < 0 or leaf >= 0:
                    break
            self._known[text] = self._replacement(leaf) if leaf >= 0 else None
        return self._known[text]

    def longest(self, text: str, start: int) -> tuple[str, int]:
        """The replacement of the longest string that begins at `start`, and where the string ends.

        A character that begins none stands for itself.
        """
        node, best, end = self._root, _NOWHERE, start + 1
        for at in range(start, len(text)):
            node, leaf = self._step(node, text[at])
            if leaf >= 0:
                best, end = leaf, at + 1
            if node < 0:
                break
        return (self._replacement(best) if best >= 0 else text[start]), end

    def _step(self, node: int, character: str) -> tuple[int, int]:
        """The node that a character leads to, and the leaf there; each -1 for none."""
        if (node, character) not in self._steps:
            after, leaf = node, _NOWHERE
            for byte in character.encode("utf-8"):
                after, leaf = self._follow(after, byte)
                if after < 0:
                    break
            self._steps[node, character] = after, leaf
        return self._steps[node, character]

    def _follow(self, node: int, byte: int) -> tuple[int, int]:
        """The node that a byte leads to, and the leaf there; each -1 for none."""
        units, node = self._units, node ^ byte
        if node >= len(units) or units[node] & 0x800000FF != byte:
            return _NOWHERE, _NOWHERE
        has_leaf = units[node] >> 8 & 1
        node ^= _offset(units[node])
        return node, units[node] & 0x7FFFFFFF if has_leaf and node < len(units) else _NOWHERE

    def _replacement(self, leaf: int) -> str:
        return self._replacements[leaf : self._replacements.find(b"\0", leaf)].decode("utf-8")


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)
