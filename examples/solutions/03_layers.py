"""The exercises of lesson 3, solved."""


def one_layer(A, a, B, b):
    """(x @ A + a) @ B + b = x @ (A @ B) + (a @ B + b)."""
    return A @ B, a @ B + b


def redraw(points):
    """The square of the distance from 0; any number that grows with the distance does."""
    return (points**2).sum(axis=1)
