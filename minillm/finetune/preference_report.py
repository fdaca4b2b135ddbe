"""What learning from preferences has done to a model, measured on pairs that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..chat.report import answer_all
from ..data.chat_preferences import Preference
from ..tokenizer import Tokenizer
from .preferences import PreferenceDataset, kl_divergence, margins


@dataclass(frozen=True)
class PreferenceReport:
    """Shares are from 0 to 1."""

    preferred: float  # of the pairs with a margin above 0
    margin: float  # nats, see `margins`
    kl: float  # nats per answer, see `kl_divergence`
    short: float | None = None  # of the embedded corpus alone: answers of one word
    exact: float | None = None  # and right ones, short or long

    def rows(self) -> dict[str, str]:
        """What is measured, by what it is called in a table."""
        shown = {
            "reward margin above 0": f"{self.preferred:.1%}",
            "margin, nats": f"{self.margin:.2f}",
            "KL to the beginning, nats an answer": f"{self.kl:.2f}",
        }
        if self.short is not None and self.exact is not None:
            shown |= {"short answers": f"{self.short:.1%}", "exact answers": f"{self.exact:.1%}"}
        return shown


def measure(
    model: Any,
    reference: Any,
    tokenizer: Tokenizer,
    dataset: PreferenceDataset,
    prompts: Sequence[Sequence[int]],
    known: Sequence[Preference] = (),
) -> PreferenceReport:
    """Measure on the dataset's validation pairs, and by letting the model answer.

    known: pairs of the embedded corpus, of which the right answers are known.
    """
    found = margins(model, dataset)
    measured = float((found > 0).mean()), float(found.mean()), kl_divergence(model, reference, tokenizer, prompts)
    if not known:
        return PreferenceReport(*measured)
    answers = [answer.text for answer in answer_all(model, tokenizer, [pair.prompt for pair in known])]
    both = list(zip(known, answers, strict=True))
    return PreferenceReport(
        *measured,
        short=float(np.mean([pair.is_short(text) for pair, text in both])),
        exact=float(np.mean([pair.is_right(text) for pair, text in both])),
    )


def table(before: PreferenceReport, after: PreferenceReport) -> str:
    """Both in one table."""
    lines = [f"{'':36}  before   after"]
    for (what, old), new in zip(before.rows().items(), after.rows().values(), strict=True):
        lines.append(f"{what:36} {old:>7} {new:>7}")
    return "\n".join(lines)
