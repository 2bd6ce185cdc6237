"""The look of the live view, the same on the page and in JupyterLab: three Bokeh panels, and the HTML around them.

A panel is a Bokeh document without data: the browser fills its sources, which it finds by name. ``queue`` and ``naive``
hold the curves (:data:`CURVES`), ``marks`` the events (``at_s``, ``text``), ``peak`` and ``empty`` the class's
predictions. The time axis has the name ``time``.
"""

from collections.abc import Mapping
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

from overload_demo.errors import ConfigurationError
from overload_demo.lab import BLUE, GREY, ORANGE, PURPLE
from overload_demo.live.samples import NOT_KNOWN, NOTHING_YET, NUMBERS

try:
    import bokeh
    from bokeh.embed import json_item
    from bokeh.models import BasicTicker, ColumnDataSource, DataRange1d, FixedTicker, NumeralTickFormatter, Range1d
    from bokeh.plotting import figure
except ImportError:
    raise ConfigurationError("the live view needs more packages: pip install -e '.[dashboard]'") from None

STATIC = Path(__file__).with_name("static")
BOKEH_JS = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"
CURVES = ("at_s", "acceptance_p99_s", "queue_depth", "accepted_per_s", "drain_rate_per_s")
LINE_PX, TEXT_PX = 4, 18
FASTEST_S, SLOWEST_S = 0.0007, 200.0  # a fixed range, with room for the legend, so that the latency panel never jumps
LOWEST_PX = 90
LABEL_WIDTH_PX = 110  # of the left axis: equal widths put the panels' times below each other

_QUEUE: dict[str, Any] = {"color": BLUE}
_NAIVE: dict[str, Any] = {"color": ORANGE, "line_dash": [12, 6]}
_ACCEPTED: dict[str, Any] = {"color": GREY, "line_dash": [3, 5]}
_PREDICTED: dict[str, Any] = {"color": PURPLE, "line_dash": [4, 4]}


def markup(buttons: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return the HTML: header, numbers, panels, controls if there are any, and the numbers again as a table."""
    tiles = rows = ""
    for name, (label, _) in NUMBERS.items():
        tiles += f'<div><dt>{label}</dt><dd data-number="{name}">{NOT_KNOWN}</dd></div>'
        rows += f'<tr><th scope="row">{label}</th><td data-number="{name}">{NOT_KNOWN}</td></tr>'
    figures = "\n".join(
        f'<figure role="img" data-panel="{name}" aria-label="{label}"><div inert></div></figure>'
        for name, label in NOTHING_YET.items()
    )
    pressed = "".join(f'<button type="button" data-do="{name}">{label}</button>' for name, label in buttons.items())
    controls = template("controls.html").substitute(buttons=pressed) if buttons else ""
    return template("view.html").substitute(tiles=tiles, figures=figures, controls=controls, rows=rows)


def template(name: str) -> Template:
    """Read one of the HTML templates."""
    return Template((STATIC / name).read_text())


def panels() -> dict[str, Any]:
    """Return each panel by name, as ``Bokeh.embed.embed_item`` takes it. Panels fill the place they are given."""
    return {"latency": json_item(_latency()), "depth": json_item(_depth()), "rates": json_item(_rates())}


def _latency() -> figure:
    panel = _panel("p99, s", y_axis_type="log", y_range=Range1d(start=FASTEST_S, end=SLOWEST_S))
    panel.yaxis.formatter = NumeralTickFormatter(format="0.[000]")
    panel.yaxis.ticker = panel.ygrid.ticker = FixedTicker(ticks=[0.001, 0.01, 0.1, 1, 10])
    _line(panel, "naive", "acceptance_p99_s", "naive API, time to the answer", **_NAIVE)
    _line(panel, "queue", "acceptance_p99_s", "queue API, time to the 202", **_QUEUE)
    marks = panel.select_one({"name": "marks"})
    panel.text(x="at_s", y=FASTEST_S, text="text", source=marks, x_offset=6, text_font_size=f"{TEXT_PX}px")
    return _with_legend(panel)


def _depth() -> figure:
    panel = _panel("waiting", y_range=_from_zero())
    _line(panel, "naive", "queue_depth", "naive API, requests", **_NAIVE)
    _line(panel, "queue", "queue_depth", "queue API, jobs", **_QUEUE)
    _line(panel, "peak", "queue_depth", "predicted", **_PREDICTED)
    panel.vspan(x="at_s", source=_source("empty"), line_width=LINE_PX, **_PREDICTED)
    return _with_legend(panel)


def _rates() -> figure:
    panel = _panel("per second", y_range=_from_zero())
    panel.xaxis.visible = True
    panel.xaxis.axis_label = "seconds since the spike began"
    _line(panel, "naive", "drain_rate_per_s", "naive API, answered", **_NAIVE)
    _line(panel, "queue", "accepted_per_s", "accepted", **_ACCEPTED)
    _line(panel, "queue", "drain_rate_per_s", "done", **_QUEUE)
    return _with_legend(panel)


def _panel(y_label: str, **options: Any) -> figure:
    """Return an empty panel with its time axis and event marks, in letters that the last row can read."""
    panel = figure(
        sizing_mode="stretch_both",
        min_height=LOWEST_PX,
        x_range=Range1d(start=0, end=60, name="time"),
        toolbar_location=None,
        tools="",
        min_border_left=LABEL_WIDTH_PX,
        min_border_right=20,
        min_border_top=8,  # half a letter: a tick label may stand at either end
        min_border_bottom=8,
        background_fill_color="white",
        border_fill_color="white",
        **options,
    )
    panel.axis.axis_label_text_font_size = panel.axis.major_label_text_font_size = f"{TEXT_PX}px"
    panel.axis.axis_label_text_font_style = "normal"
    panel.axis.axis_label_text_color = panel.axis.major_label_text_color = "black"
    panel.yaxis.axis_label = y_label
    panel.xaxis.visible = False
    panel.yaxis.formatter = NumeralTickFormatter(format="0,0")
    panel.yaxis.ticker = panel.ygrid.ticker = BasicTicker(desired_num_ticks=4, num_minor_ticks=0)
    panel.vspan(x="at_s", source=ColumnDataSource({"at_s": [], "text": []}, name="marks"), color="black", line_width=3)
    panel.line([0], [0])  # invisible: without any data Bokeh draws no axes
    return panel


def _from_zero() -> DataRange1d:
    """Return a range that follows its curves, with room for the legend above them."""
    return DataRange1d(start=0, min_interval=10, range_padding=0.6)


def _source(name: str) -> ColumnDataSource:
    return ColumnDataSource({curve: [] for curve in CURVES}, name=name)


def _line(panel: figure, name: str, y: str, label: str, **style: Any) -> None:
    """Add a curve of the source of that name; curves of one name share it."""
    source = panel.select_one({"type": ColumnDataSource, "name": name}) or _source(name)
    panel.line("at_s", y, source=source, line_width=LINE_PX, legend_label=label, **style)


def _with_legend(panel: figure) -> figure:
    """Put the legend inside, at the top right: above the panel it would take a fifth of a projector's height."""
    panel.legend.update(
        orientation="horizontal",
        location="top_right",
        label_text_font_size=f"{TEXT_PX}px",
        label_text_color="black",
        glyph_width=40,
        padding=2,
        spacing=20,
        margin=4,
        border_line_color=None,
        background_fill_alpha=0.8,
    )
    return panel
