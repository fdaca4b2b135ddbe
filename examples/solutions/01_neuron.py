"""The exercises of lesson 1, solved."""

import numpy as np


def bias_slope(z, target):
    """The same chain as for a weight, but dz/db = 1."""
    y = np.tanh(z)
    return 2 * (y - target) * (1 - y**2)


def descend(w, gradient, learning_rate):
    """Against the gradient."""
    return w - learning_rate * gradient
