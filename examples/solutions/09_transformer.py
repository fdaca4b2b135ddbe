"""The exercises of lesson 9, solved."""

import numpy as np


def causal_mask(T):
    """Column s is in the future of row t where s > t."""
    t = np.arange(T)
    return np.where(t > t[:, None], -np.inf, 0.0)


def block_parameters(C, inner):
    """Attention, MLP, norms."""
    return 4 * C * C + 3 * C * inner + 2 * C
