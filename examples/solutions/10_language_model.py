"""The exercises of lesson 10, solved."""

import numpy as np


def text_loss(probabilities, tokens):
    """The mean of -ln p, p the probability of the token that came."""
    return -np.log(probabilities[range(len(tokens)), tokens]).mean()


def bits_per_byte(loss, tokens, text):
    """All nats, as bits, over all bytes."""
    return loss * tokens / np.log(2) / len(text.encode())
