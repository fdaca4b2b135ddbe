"""The byte alphabet of GPT-2: a printable character for each of the 256 bytes.

Vocabulary files are JSON, which holds text and not bytes. So each byte is written as one character:
itself where it is a visible Latin-1 character, else the next free one from U+0100 on. A space
(0x20) becomes `Ġ`, a line end (0x0a) `Ċ`. Source: Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners", and the code released with it.
"""

from __future__ import annotations

_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(256) if byte not in _VISIBLE]

# Bytes in the order of the characters that stand for them. Vocabularies number single bytes in this
# order.
BYTE_ORDER = bytes(_VISIBLE + _HIDDEN)

_CHARACTERS = {byte: chr(byte) for byte in _VISIBLE} | {byte: chr(0x100 + n) for n, byte in enumerate(_HIDDEN)}
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}


def to_characters(token: bytes) -> str:
    """Write bytes in the byte alphabet.

    >>> to_characters(b" the")
    'Ġthe'
    """
    return "".join(map(_CHARACTERS.__getitem__, token))


def to_bytes(characters: str) -> bytes:
    """Read bytes written in the byte alphabet.

    >>> to_bytes("Ġthe")
    b' the'

    Raises ValueError for a character that is not in the alphabet.
    """
    try:
        return bytes(map(_BYTES.__getitem__, characters))
    except KeyError as error:
        raise ValueError(
            f"to_bytes: {characters!r} is not in the byte alphabet: {error.args[0]!r} is no byte"
        ) from None
