"""The exercises of lesson 5, solved."""

import numpy as np


def on_circle(hour):
    """Once around in a day."""
    angle = 2 * np.pi * hour / 24
    return np.array([np.cos(angle), np.sin(angle)])


def slide(picture, weights):
    """A window at each place, times the weights, added up."""
    found = np.zeros((picture.shape[0] - 2, picture.shape[1] - 2))
    for down in range(found.shape[0]):
        for along in range(found.shape[1]):
            found[down, along] = (picture[down : down + 3, along : along + 3] * weights).sum()
    return found
