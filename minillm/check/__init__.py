"""Checking and watching the engine: gradients against small differences, and where the first NaN
came from.
"""
