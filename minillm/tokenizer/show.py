r"""Seeing what a tokenizer does: the tokens of a text, the merges of a word, the lattice of a word.

>>> from minillm.tokenizer import BPETokenizer
>>> print(render(BPETokenizer.train(["low low lower"], 260), "lower"))
low|e|r
<BLANKLINE>
    id  bytes  token
   258      3  'low'
    69      1  'e'
    82      1  'r'
<BLANKLINE>
3 tokens, 5 bytes, 5 characters: 1.67 bytes per token
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .base import Tokenizer
from .bpe import BPETokenizer
from .unigram import UnigramTokenizer

_BACKGROUNDS = (153, 193, 223, 217, 189)  # light colours of the 256-colour palette, in turn
_PARAGRAPH = "\n\n"


def render(tokenizer: Tokenizer, text: str, merges: bool = False, color: bool = False) -> str:
    """The tokens of a text for people to read: the cut text, a table of ids and bytes, and a
    summary.

    merges: also how each piece came about, merge by merge; for a Unigram vocabulary the lattice of
    each word with the best way marked. color: tokens on coloured backgrounds (ANSI escapes) instead
    of `|` between them. Characters that would not be visible are written as escapes.

    Raises ValueError when the tokenizer cannot encode the text.
    """
    ids = tokenizer.encode(text, allowed_special="all", add_special_tokens=False)
    parts = [_cut_text(tokenizer, ids, color), _table(tokenizer, ids), _summary(tokenizer, ids, text)]
    if merges:
        parts += _derivations(tokenizer, text)
    return _PARAGRAPH.join(part for part in parts if part)


def _cut_text(tokenizer: Tokenizer, ids: Sequence[int], color: bool) -> str:
    tokens = [visible(tokenizer.token_bytes(id)) for id in ids]
    if not color:
        return "|".join(tokens)
    colors = (_BACKGROUNDS[i % len(_BACKGROUNDS)] for i in range(len(tokens)))
    return "".join(f"\x1b[30;48;5;{code}m{token}\x1b[0m" for code, token in zip(colors, tokens, strict=True))


def _table(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    rows = ["    id  bytes  token"]
    for id in ids:
        token = tokenizer.token_bytes(id)
        shown = f"{names[id]} (special)" if id in names else f"'{visible(token)}'"
        rows.append(f"{id:6}  {len(token):5}  {shown}")
    return "\n".join(rows)


def _summary(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> str:
    size = sum(len(tokenizer.token_bytes(id)) for id in ids)
    ratio = f": {size / len(ids):.2f} bytes per token" if ids else ""
    return f"{_count(len(ids), 'token')}, {_count(size, 'byte')}, {_count(len(text), 'character')}{ratio}"


def _count(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'s' * (n != 1)}"


def _derivations(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    if isinstance(tokenizer, BPETokenizer):
        pieces = dict.fromkeys(tokenizer.pieces(text))
        yield from (merge_table(tokenizer, piece) for piece in pieces if len(piece.encode("utf-8")) > 1)
    elif isinstance(tokenizer, UnigramTokenizer):
        yield from (lattice_table(tokenizer, word) for word in dict.fromkeys(tokenizer.words(text)))
    else:
        yield "A character tokenizer has no merges: every character is one token."


def merge_table(tokenizer: BPETokenizer, piece: str) -> str:
    """How one piece is joined, a line per merge: which pair of neighbours, and its rank. A space is
    written `␣`.

    >>> print(merge_table(BPETokenizer.train(["low low lower"], 260), "lower"))
    'lower'
      l o w e r
      lo w e r   merge 0: l + o
      low e r    merge 1: lo + w
    """

    def marked(id: int) -> str:
        return visible(tokenizer.token_bytes(id)).replace(" ", "␣")  # a plain one stands between two tokens here

    steps = tokenizer.merge_steps(piece)
    lines = [" ".join(map(marked, ids)) for ids in steps]
    width = max(map(len, lines))
    rows = [f"'{visible(piece.encode('utf-8'))}'", f"  {lines[0]}"]
    for before, after, line in zip(steps, steps[1:], lines[1:], strict=False):
        at = next(i for i, (old, new) in enumerate(zip(before, [*after, -1], strict=True)) if old != new)
        left, right = before[at], before[at + 1]
        rank = tokenizer.merge_rank(left, right)
        rows.append(f"  {line:{width}}  merge {rank}: {marked(left)} + {marked(right)}")
    return "\n".join(rows)


def lattice_table(tokenizer: UnigramTokenizer, word: str) -> str:
    """The lattice of one word: every piece at its place with its log-probability; `*` marks the
    best way.

    >>> scores = [("<unk>", 0.0), ("▁a", -2.0), ("b", -3.0), ("▁", -4.0), ("ab", -1.5), ("a", -4.0)]
    >>> print(lattice_table(UnigramTokenizer(scores, 0), "▁ab"))
    '▁ab', best: ▁a b (log-probability -5.00)
        ▁      -4.00
      * ▁a     -2.00
         a     -4.00
         ab    -1.50
      *   b    -3.00
    """
    lattice = tokenizer.lattice(word)
    best = lattice.best()
    edges = sorted((edge for edges in lattice.ending for edge in edges), key=lambda edge: (edge.start, edge.end))
    spelled = " ".join(visible(word[edge.start : edge.end].encode("utf-8")) for edge in best)
    rows = [f"'{word}', best: {spelled} (log-probability {sum(edge.score for edge in best):.2f})"]
    for edge in edges:
        piece = " " * edge.start + visible(word[edge.start : edge.end].encode("utf-8"))
        note = "  unknown" if edge.id == tokenizer.unknown_id else ""
        rows.append(f"  {'*' if edge in best else ' '} {piece:{len(word) + 1}} {edge.score:7.2f}{note}")
    return "\n".join(rows)


def visible(token: bytes) -> str:
    r"""Bytes as text that any terminal shows: control characters and broken UTF-8 as escapes.

    >>> print(visible("é\n".encode() + b"\xff"))
    é\n\xff
    """
    text = token.decode("utf-8", errors="backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
