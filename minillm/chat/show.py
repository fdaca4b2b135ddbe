"""Which tokens of a conversation a model learns, for people to see: `minillm tokenize --chat`."""

from __future__ import annotations

from itertools import groupby

from ..tokenizer import Tokenizer
from ..tokenizer.show import visible
from .encode import Encoded

_LEARNED, _READ = "\x1b[30;48;5;157m", "\x1b[38;5;245m"  # black on light green; gray


def show_mask(tokenizer: Tokenizer, encoded: Encoded, color: bool = False) -> str:
    """The text of a conversation, the learned tokens marked, and a line that counts them.

    color: learned tokens on green, the others gray (ANSI escapes); else the learned ones stand in
    brackets ⟦ ⟧. Tokens are parted by `|`, lines end where the text's do.
    """
    parts = []
    for learned, group in groupby(zip(*encoded, strict=True), key=lambda pair: pair[1]):
        tokens = "|".join(visible(tokenizer.token_bytes(id)) for id, _ in group)
        for i, line in enumerate(tokens.split("\\n")):  # a line end that `visible` has written out
            shown = line.strip("|") if "\\n" in tokens else line
            parts.append("\n" * bool(i) + (_marked(shown, learned, color) if shown else ""))
    count = sum(encoded.mask)
    return "".join(parts).rstrip("\n") + f"\n\n{len(encoded.ids):,} tokens, {count:,} of them learned"


def _marked(text: str, learned: bool, color: bool) -> str:
    if color:
        return f"{_LEARNED if learned else _READ}{text}\x1b[0m"
    return f"⟦{text}⟧" if learned else text
