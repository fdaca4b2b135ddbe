"""How likely each token of a text was, for people to read."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["stop_chart", "table"]

ROWS = 4  # of the bars
LEAST = 10.0**-ROWS  # where they begin
PLACES = 4  # that are named


def table(pieces: Sequence[Any], tokenizer: Any) -> str:
    """A line for each token: its probability, the token, and what else was likely in its place.

    pieces: the parts of a text, see ``Generation``. Probabilities are the model's own, before
    temperature and the other parameters.
    """
    ids = [id for piece in pieces for id in piece.ids]
    logprobs = [logprob for piece in pieces for logprob in piece.logprobs]
    tops = [top for piece in pieces for top in piece.top_logprobs] or [{} for _ in ids]
    shown = _names(tokenizer)
    width = max((len(shown(id)) for id in ids), default=0)
    columns = shutil.get_terminal_size((120, 0)).columns
    lines = []
    for id, logprob, top in zip(ids, logprobs, tops, strict=True):
        line = f"{_percent(logprob)}  {shown(id):{width}}"
        others = [f"{shown(other)} {_percent(p).strip()}" for other, p in top.items() if other != id]
        for i, other in enumerate(others):
            join = "   instead: " if i == 0 else ", "
            if len(line + join + other) > columns:
                break
            line += join + other
        lines.append(line.rstrip())
    total = sum(logprobs)
    perplexity = math.exp(min(700.0, -total / max(1, len(ids))))
    return "\n".join(["", *lines, "", f"log-probability {total:.2f} nats, perplexity {perplexity:.2f}"])


def stop_chart(probabilities: Sequence[float], ids: Sequence[int], tokenizer: Any) -> str:
    """How likely a text was to stop at each of its tokens: bars, and the likeliest places.

    Each row of the bars is ten times the one below it. Where a terminal is too narrow for a bar for
    each token, a bar shows the likeliest of several.
    """
    each = -(-len(ids) // max(1, shutil.get_terminal_size((120, 0)).columns - 12))  # tokens to a bar
    bars = [max(probabilities[i : i + each]) for i in range(0, len(ids), each)]
    eighths = [0 if p <= LEAST else round(8 * math.log10(p / LEAST)) for p in bars]
    lines = []
    for row in reversed(range(ROWS)):
        drawn = "".join(" ▁▂▃▄▅▆▇█"[min(8, max(0, high - 8 * row))] for high in eighths)
        lines.append(f"{100 * LEAST * 10 ** (row + 1):7.4g} % |{drawn}".rstrip())
    told = f"token 1 to {len(ids):,}" + (f", {each} to a bar" if each > 1 else "")
    lines += [" " * 10 + told, ""]
    shown = _names(tokenizer)
    likeliest = sorted(range(len(ids)), key=lambda i: -probabilities[i])[:PLACES]
    lines += [f"{_percent_of(probabilities[i])}  token {i + 1:,}: {shown(ids[i])}" for i in sorted(likeliest)]
    return "\n".join(lines)


def _names(tokenizer: Any) -> Callable[[int], str]:
    """The function that shows a token by its id: special ones by name, others in quotes."""
    from ..tokenizer.show import visible

    names = {id: name for name, id in tokenizer.special_tokens.items()}
    return lambda id: names.get(id) or f"'{visible(tokenizer.token_bytes(id))}'"


def _percent(logprob: float) -> str:
    return _percent_of(math.exp(logprob))


def _percent_of(probability: float) -> str:
    return f"{100 * probability:7.2f} %"
