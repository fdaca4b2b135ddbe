"""Rotary angles, also for texts longer than those that a model was trained on.

Pair i of D features turns by the angle position x speed_i, speed_i = theta^(-2 i / D). Beyond the
positions of the training, slow pairs come to angles that the model has never seen. Four ways to
spread the known angles over ``factor`` times as many positions:

* linear: every pair turns slower by the factor (Chen et al. 2023, https://arxiv.org/abs/2306.15595);
* dynamic: theta grows with the text, once that is longer than those of the training, so that slow
  pairs turn slower and quick ones hardly (NTK-aware scaling, bloc97 and emozilla 2023);
* llama3: pairs that turn less than ``low_freq_factor`` times in an original context turn slower by
  the factor, those that turn more than ``high_freq_factor`` times stay, between them a mean of both
  (Llama 3.1, https://arxiv.org/abs/2407.21783);
* yarn: the same with a ramp over the pairs, and scores grow a little (Peng et al. 2023,
  https://arxiv.org/abs/2309.00071).

The formulas, and the names of the settings, are those of Hugging Face's ``modeling_rope_utils.py``.
"""  # noqa: W505

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np


def rotary_speeds(D: int, theta: float) -> np.ndarray:
    """By which angle each pair of features turns from a position to the next: (D / 2,)."""
    return theta ** (-np.arange(0, D, 2) / D)


@dataclass(frozen=True)
class RopeScaling:
    """A way to longer texts, and its settings."""

    rope_type: Literal["linear", "dynamic", "llama3", "yarn"]
    factor: float  # how many times longer
    original: int  # the context of the training, in tokens
    low_freq_factor: float = 1.0  # llama3: turns in an original context
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0  # yarn: turns in an original context
    beta_slow: float = 1.0
    truncate: bool = True  # yarn: the ramp begins and ends at whole pairs
    attention_factor: float | None = None  # yarn: of cosines and sines; None: 0.1 ln(factor) + 1
    mscale: float | None = None  # yarn, both or none: the ratio of two such factors instead
    mscale_all_dim: float | None = None

    def speeds(self, D: int, theta: float, length: int) -> np.ndarray:
        """The angles from a position to the next, for a text of ``length`` tokens: (D / 2,)."""
        speeds = rotary_speeds(D, theta)
        if self.rope_type == "linear":
            return speeds / self.factor
        if self.rope_type == "dynamic":
            longer = max(length, self.original) / self.original
            return rotary_speeds(D, theta * (self.factor * longer - (self.factor - 1)) ** (D / (D - 2)))
        kept = self._kept_llama3(speeds) if self.rope_type == "llama3" else self._kept_yarn(D, theta)
        return kept * speeds + (1 - kept) * speeds / self.factor

    def _kept_llama3(self, speeds: np.ndarray) -> np.ndarray:
        """How much of each pair's speed is kept: from 0 (slow pairs) to 1 (quick ones)."""
        turns = self.original * speeds / (2 * math.pi)
        return np.clip((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor), 0, 1)

    def _kept_yarn(self, D: int, theta: float) -> np.ndarray:
        first, last = (self._pair_of_turns(turns, D, theta) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, D - 1)
        last += 0.001 if first == last else 0.0
        return 1 - np.clip((np.arange(D // 2) - first) / (last - first), 0, 1)

    def _pair_of_turns(self, turns: float, D: int, theta: float) -> float:
        """Which pair, counted with fractions, turns so many times in an original context."""
        return D * math.log(self.original / (2 * math.pi * turns)) / (2 * math.log(theta))

    @property
    def amplitude(self) -> float:
        """What cosines and sines are multiplied by, so that scores grow by its square."""
        if self.rope_type != "yarn":
            return 1.0
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale and self.mscale_all_dim:
            return self._growth(self.mscale) / self._growth(self.mscale_all_dim)
        return self._growth(1.0)

    def _growth(self, scale: float) -> float:
        return 1.0 if self.factor <= 1 else 0.1 * scale * math.log(self.factor) + 1.0
