"""The common parts of all figures: one look, and a mandatory text alternative.

Colours suit colour-blind readers and differ in dash or hatch too; lines and letters are large enough for a projector.
"""

import base64
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter, ScalarFormatter, StrMethodFormatter

from overload_demo.lab import BARS, BLUE, BOX, QUEUE, Look

MOST_S = 1.0  # chosen: samples further apart than this are not joined; the queue is sampled five times a second
_STYLE = Path(__file__).with_name("figures.mplstyle")
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
    """Yield a figure of ``width`` x ``height`` inches, and its axes as ``Figure.subplots`` returns them.

    At the end of the block, axes whose curves have labels get a legend, and numbers plain digits, unless they have
    another legend or another format.
    """
    with matplotlib.style.context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, **axes)
        if title:
            figure.suptitle(title, x=0.01, ha="left")
        yield figure, grid
        for one in figure.axes:
            labels = one.get_legend_handles_labels()[1]
            if labels and one.get_legend() is None:  # above the curves, up to five labels in a row where they fit
                fits = [n for n in (4, 5) if sum(len(label) + _SIGN for label in labels[:n]) <= _ROW]
                one.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=max(fits, default=3))
            _write_plain(one.xaxis)
            _write_plain(one.yaxis)


def _write_plain(axis: Any) -> None:
    """Write 10,000 and 0.01 instead of 1e4 and 1e-2; a logarithmic axis of few decades gets 1, 2 and 5 of each.

    Such an axis is widened until it has three labels: one label alone shows no scale.
    """
    formatter, (low, high) = axis.get_major_formatter(), axis.get_view_interval()
    if isinstance(formatter, LogFormatterSciNotation):
        steps = (1, 2, 5) if high < 100 * low else (1,)
        decades = np.arange(np.floor(np.log10(low)) - 1, np.ceil(np.log10(high)) + 2)
        labels = np.outer(10.0**decades, steps).ravel()
        if np.count_nonzero((low <= labels) & (labels <= high)) < 3:
            axis.axes.set(**{f"{axis.axis_name}lim": (labels[labels <= low][-1], labels[labels >= high][0])})
        axis.set_major_locator(LogLocator(subs=steps))
        axis.set(major_formatter=StrMethodFormatter("{x:,.10g}"), minor_formatter=NullFormatter())
    elif isinstance(formatter, ScalarFormatter) and high >= 1000:
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))


def note(axes: Axes, text: str, at: Any, offset: tuple[float, float], **look: Any) -> None:
    """Write a text at an ``offset`` in points from a point, in a box that covers what it crosses."""
    axes.annotate(text, at, offset, textcoords="offset points", bbox=BOX, **look)


def with_gaps(at_s: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return a curve with a NaN where samples are more than ``MOST_S`` apart: a line across would be an invention."""
    times_s, shown = list(at_s), [float(value) for value in values]
    for number in reversed(np.flatnonzero(np.diff(times_s) > MOST_S).tolist()):
        times_s.insert(number + 1, times_s[number])
        shown.insert(number + 1, np.nan)
    return times_s, shown


def area(axes: Axes, at_s: Any, depth: Any, label: str = "", step: Any = None) -> None:
    """Draw the depth of the queue as a line above a shaded area."""
    axes.fill_between(at_s, depth, step=step, color=BLUE, alpha=0.13)
    axes.plot(at_s, depth, label=label, drawstyle="default" if step is None else f"steps-{step}", **QUEUE)


def bars(
    axes: Axes,
    rows: Sequence[str],
    parts: Mapping[str, Sequence[float]],
    text: Callable[[float], str] = lambda _: "",
    *,
    beside: bool = False,
) -> None:
    """Draw horizontal bars for each of ``rows`` from the top: its ``parts`` one after the other, or beside each other.

    ``parts`` holds one width a row; ``text`` is written into each part, or at its end. A part
    that is 0 in all rows is left out of stacked bars, and the others keep their looks.
    """
    left, height = np.zeros(len(rows)), 0.84 / len(parts) if beside else 0.6
    for number, (name, widths) in enumerate(parts.items()):
        if not beside and not any(widths):
            continue
        at = np.arange(len(rows)) + ((number - (len(parts) - 1) / 2) * height if beside else 0)
        drawn = axes.barh(at, widths, height, left, label=name, edgecolor="white", **BARS[number % len(BARS)])
        look: Look = {"label_type": "edge", "padding": 5} if beside else {"label_type": "center"}
        for label in axes.bar_label(drawn, [text(width) for width in widths], **look):
            label.set_bbox(BOX if label.get_text() else None)
        left += np.zeros(len(rows)) if beside else widths
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def doubtful(doubts: Mapping[str, str]) -> str:
    """Return a sentence for a caption that names the runs with a doubt about the load; empty without one."""
    named = "; ".join(f"{name} ({doubt})" for name, doubt in doubts.items() if doubt)
    return f" Generator-bound, read with care: {named}." if named else ""


def predicted(text: str, value: float | None) -> str:
    """Return a sentence for an alt text: ``text`` with the predicted value in its braces; empty without one."""
    return "" if value is None else f" {text.format(value)}"
