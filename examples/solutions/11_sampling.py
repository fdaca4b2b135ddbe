"""The exercises of lesson 11, solved."""

import numpy as np


def at_temperature(logits, temperature):
    """Softmax of the scores divided by the temperature."""
    logits = logits / temperature
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def nucleus(p, reach):
    """From the most likely on: those before the sum reaches it, and the one that makes it do so."""
    order = np.argsort(-p)
    count = np.searchsorted(np.cumsum(p[order]), reach) + 1
    kept = np.zeros(len(p))
    kept[order[:count]] = p[order[:count]]
    return kept / kept.sum()
