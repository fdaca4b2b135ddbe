"""The exercises of lesson 16, solved."""

import numpy as np

from minillm import Tensor


def scale_backward(dy, x, w):
    """Each weight acts on all rows: the gradients of its column add."""
    return dy * w, (dy * x).sum(axis=0)


def squared_relu(x):
    """The slope of max(x, 0)^2 is 2 max(x, 0)."""
    positive = np.maximum(x.data, 0)

    def backward(dy):
        return (dy * 2 * positive,)

    return Tensor.from_op(positive**2, (x,), backward)
