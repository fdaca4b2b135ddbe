"""Targets: the ids that a model is asked for, one at each position."""

IGNORE = -100  # a target that asks nothing: padding, or another speaker's words; PyTorch's number
