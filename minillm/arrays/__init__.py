"""How Tensors meet NumPy: shapes that broadcast, and NumPy's own functions."""
