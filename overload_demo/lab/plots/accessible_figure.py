"""What all figures share: one look, and an alt text that cannot be forgotten.

Colour-blind safe (Okabe-Ito), dashes besides colours, white ground, lines and text a projector can carry.
"""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from overload_demo.lab.colours import BLUE, GREY, ORANGE, PURPLE

# Our API and the naive one, in every figure: colour and dash.
QUEUE: dict[str, Any] = {"color": BLUE, "linewidth": 3}
NAIVE: dict[str, Any] = {"color": ORANGE, "linewidth": 3, "linestyle": (0, (4, 1.5))}
OFFERED: dict[str, Any] = {"color": GREY, "linewidth": 2, "linestyle": ":"}
PREDICTED: dict[str, Any] = {"color": PURPLE, "linewidth": 2.5, "linestyle": (0, (1, 1))}
_STYLE: Any = {
    "font.size": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "legend.frameon": False,
}


_ROW, _SIGN = 112, 7  # letters in a row of a legend, and how wide the sign before a label is


class AccessibleFigure:
    """A figure and what it shows in words; ``alt`` is computed from the data, ``caption`` is shown below.

    JupyterLab drops the alt text of an ordinary figure; this one is an HTML ``<figure>`` that keeps it.
    """

    def __init__(self, figure: Figure, alt: str, caption: str = "") -> None:
        if not alt.strip():
            raise ValueError("a figure needs an alt text")
        self.figure, self.alt, self.caption = figure, alt, caption

    def save(self, path: Path) -> Path:
        """Write a PNG."""
        self.figure.savefig(path, dpi=100)
        return path

    def _repr_html_(self) -> str:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=90)
        data = base64.b64encode(buffer.getvalue()).decode()
        alt = html.escape(self.alt, quote=True)
        image = f'<img style="max-width:100%" alt="{alt}" src="data:image/png;base64,{data}">'
        return f"<figure>{image}<figcaption>{html.escape(self.caption)}</figcaption></figure>"

    def __repr__(self) -> str:
        return self.alt


@contextmanager
def drawing(
    rows: int = 1, columns: int = 1, *, height: float = 5.0, width: float = 12.0, title: str = "", **axes: Any
) -> Iterator[Any]:
    """A figure in our look, its size in inches; yields (figure, axes), the axes as ``Figure.subplots`` gives them."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, **axes)
        if title:
            figure.suptitle(title, fontsize=18, x=0.01, ha="left")
        yield figure, grid


def legend(axes: Axes, *, columns: int | None = None) -> None:
    """Above the curves, where it hides none of them; four in a row, or three if four are too wide for the picture."""
    if columns is None:
        labels = axes.get_legend_handles_labels()[1]
        columns = 4 if sum(len(label) + _SIGN for label in labels[:4]) <= _ROW else 3
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.1, columnspacing=1.2, fontsize=13
    )


def thousands(axis: Any) -> None:
    """Numbers on this axis get commas."""
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def plain(axis: Any) -> None:
    """Numbers on this logarithmic axis, already drawn on, are written out: 0.01 and not a power of ten."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def numbers(values: Sequence[float | None]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """As an array; None becomes NaN, a gap in the curve."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
