"""The common parts of all figures: one look, and a mandatory text alternative.

Colours suit colour-blind readers and differ in dash or hatch too; lines and letters are large enough for a projector.
"""

import base64
import html
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SINCE = "seconds since the spike began"
_STYLE: Any = {
    "font.size": 15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "legend.frameon": False,
}
_ROW, _SIGN = 112, 7  # letters in a row of a legend, and the width of the sign before a label


class AccessibleFigure:
    """A figure with its text alternative ``alt``, computed from the data; ``caption`` is shown below.

    JupyterLab drops the alt text of an ordinary figure; this class shows an HTML ``<figure>`` that keeps it.
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
    """Yield a figure of ``width`` x ``height`` inches, and its axes as ``Figure.subplots`` returns them."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, **axes)
        if title:
            figure.suptitle(title, fontsize=18, x=0.01, ha="left")
        yield figure, grid


def legend(axes: Axes, *, columns: int | None = None) -> None:
    """Put the legend above the curves, four labels in a row, or three where four are too wide."""
    if columns is None:
        labels = axes.get_legend_handles_labels()[1]
        columns = 4 if sum(len(label) + _SIGN for label in labels[:4]) <= _ROW else 3
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.1, columnspacing=1.2, fontsize=13
    )


def thousands(axis: Any) -> None:
    """Write the numbers on this axis with commas."""
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def expected(peak: float | None, empty_s: float | None) -> str:
    """Return the predictions of a peak, jobs, and of the time to empty as sentences for an alt text."""
    text = "" if peak is None else f" A peak of {peak:,.0f} jobs was predicted."
    return text if empty_s is None else f"{text} It was predicted to be empty after {empty_s:,.1f} s."
