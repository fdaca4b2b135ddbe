"""Checking and watching the engine: gradients against small differences, where the first NaN came
from, and a whole backward step by step.
"""
