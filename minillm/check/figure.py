"""What all pictures share: paper, ink, and letters that a font has."""

from __future__ import annotations

import os
from typing import Any

INK, GREY, PALE = "#2b2b33", "#6f6f78", "#e3e3e7"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # told apart by all eyes (Okabe, Ito)
MARKERS = "o^sDvP"
PLAIN: dict[str, Any] = {"parse_math": False, "usetex": False}  # dollar signs are what they are


def new_figure(width: float, height: float) -> Any:
    """An empty figure of so many inches, which a notebook shows. Raises ImportError without
    matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("plot: pictures are drawn by matplotlib, which is not here: pip install matplotlib") from None

    class Picture(Figure):
        def _repr_png_(self) -> bytes:
            return png_of(self)

    figure = Picture(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # no pyplot: no global state
    return figure


def png_of(figure: Any) -> bytes:
    """The picture as the bytes of a PNG file."""
    import io

    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def finished(figure: Any, path: str | os.PathLike[str] | None) -> Any:
    """Save the figure where a path is given, as what its ending says; returns the figure."""
    if path is not None:
        figure.savefig(path)
    return figure


def plain_axes(axes: Any) -> None:
    """Take away the ink that says nothing."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(colors=GREY, labelsize=8, length=0)


def readable(text: str, most: int = 16) -> str:
    """A token as it can be printed: spaces and line ends seen, letters that the font lacks by their
    number.
    """
    from matplotlib.font_manager import findfont, get_font

    font = get_font(findfont("sans"))
    shown = ""
    for c in text[:most]:
        c = {" ": "␣", "\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(c, c)
        shown += c if all(font.get_char_index(ord(part)) for part in c) else f"U+{ord(c):04X}"
    return shown + ("…" if len(text) > most else "")
