"""The exercises of lesson 7, solved."""


def slope_through(u, states):
    """d tanh(u h) / dh = u (1 - tanh(u h)^2), once for each step."""
    slope = 1.0
    for h in states:
        slope = slope * u * (1 - h**2)
    return slope


def gate_for(share, n):
    """f^n = share."""
    return share ** (1 / n)
