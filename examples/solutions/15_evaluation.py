"""The exercises of lesson 15, solved."""

import numpy as np


def wilson(k, n):
    """Wilson's score interval, 95 %."""
    z = 1.96
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    return centre - half, centre + half


def difference(nats_a, nats_b):
    """Story by story."""
    d = nats_a - nats_b
    return np.mean(d), np.std(d, ddof=1) / np.sqrt(len(d))
