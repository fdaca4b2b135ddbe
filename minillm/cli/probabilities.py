"""How likely each token of a text was, for people to read."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from typing import Any

__all__ = ["table"]


def table(pieces: Sequence[Any], tokenizer: Any) -> str:
    """A line for each token: its probability, the token, and what else was likely in its place.

    pieces: the parts of a text, see ``Generation``. Probabilities are the model's own, before
    temperature and the other parameters.
    """
    ids = [id for piece in pieces for id in piece.ids]
    logprobs = [logprob for piece in pieces for logprob in piece.logprobs]
    tops = [top for piece in pieces for top in piece.top_logprobs] or [{} for _ in ids]
    names = {id: name for name, id in tokenizer.special_tokens.items()}

    def shown(id: int) -> str:
        from ..tokenizer.show import visible

        return names.get(id) or f"'{visible(tokenizer.token_bytes(id))}'"

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


def _percent(logprob: float) -> str:
    return f"{100 * math.exp(logprob):7.2f} %"
