"""Compiled loops over text: cutting it into pieces, learning and applying byte-pair merges, and
back to bytes.
"""
