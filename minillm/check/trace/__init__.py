"""Backpropagation step by step, on a graph of your own: one HTML file that opens without a network.

Read `record` (what is kept of a backward while it runs), `rules` (what each operation's backward
does, in words), `steps` (a sentence for every step of the walk), `naming` and `folding` (what the
cards are called, and what large graphs are folded into), `hasty` (the walk in the wrong order),
`differences` (the same gradients by small changes); then `layout`, `draw` and `page`, which make
the picture.
"""

from .tracing import Trace, trace
