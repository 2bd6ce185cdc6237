"""The page: one address on loopback that shows a feed and, with controls, takes an instructor's orders.

Every byte it sends is from this package or the installed ``bokeh``; a strict content security policy holds the browser
to that. Addresses are relative, so the page works behind any path prefix.

A notebook shows the same HTML and the same panels: Bokeh documents without data, whose sources the browser fills and
finds by name. ``queue``, ``naive`` and ``clients`` (that retry) hold the curves (:data:`CURVES`), ``marks`` the events
(``at_s``, ``text``), ``peak`` and ``empty`` the class's predictions. The time axis has the name ``time``.
"""

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from functools import cache
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Annotated, Any, Protocol, Self, TypeVar

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field, ValidationError

from overload_demo.api.access import AccessCheck
from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.http_server import HostRule, SignalFreeServer
from overload_demo.lab import BLUE, GREEN, GREY, ORANGE, PURPLE, SINCE
from overload_demo.live.ballot import LETTERS, STEPS, VoteEntry
from overload_demo.live.feed import EVERY_S, NOT_KNOWN, NOTHING_YET, NUMBERS, Feed

try:
    import bokeh
    from bokeh.embed import json_item
    from bokeh.models import BasicTicker, ColumnDataSource, DataRange1d, FixedTicker, NumeralTickFormatter, Range1d
    from bokeh.plotting import figure
    from bokeh.themes import Theme
except ImportError:
    raise ConfigurationError("the live view needs more packages: pip install -e '.[dashboard]'") from None

STATIC = Path(__file__).with_name("static")
BOKEH_JS = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"
ASSETS = {name: STATIC / name for name in ("live.js", "page.js", "live.css")} | {"bokeh.js": BOKEH_JS}
# 'unsafe-inline' is for styles only: BokehJS sets them from script.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'"
)
READY_WITHIN_S = 10.0
BEAT_S = 1.0  # a page without a message for three of these shows "no signal"
RECONNECT_MS = 1000
MAX_PREDICTION = 1e9
Body = TypeVar("Body", bound=BaseModel)
MAX_HEAD_BYTES, MAX_BODY_BYTES = 32_768, 4_096
CLOSE = {"Connection": "close"}  # the rest of the body is not read

CURVES = ["at_s", "acceptance_p99_s", "queue_depth", "accepted_per_s", "drain_rate_per_s"]
CURVES += ["result_p99_s", "sent_per_s", "in_time_per_s"]  # of clients that retry
LINE_PX = 4
# A fixed range, so that the panel never jumps, with room for the legend above the curves and the event marks below.
FASTEST_S, SLOWEST_S = 0.00001, 200.0
QUEUE: dict[str, Any] = {"color": BLUE}
NAIVE: dict[str, Any] = {"color": ORANGE, "line_dash": [12, 6]}
ACCEPTED: dict[str, Any] = {"color": GREY, "line_dash": [3, 5]}
IN_TIME: dict[str, Any] = {"color": GREEN, "line_dash": [16, 4, 4, 4]}
PREDICTED: dict[str, Any] = {"color": PURPLE, "line_dash": [4, 4]}


class ClassGuess(BaseModel):
    """The class's two predictions: the highest queue depth, jobs, and the seconds until the queue is empty."""

    peak: float | None = Field(None, ge=0, le=MAX_PREDICTION)
    empty_s: float | None = Field(None, ge=0, le=MAX_PREDICTION)


class Controls(Protocol):
    """The orders that a page takes; its coroutines run in its own event loop."""

    loop: asyncio.AbstractEventLoop
    buttons: dict[str, str]
    questions: dict[str, str]

    async def act(self, order: str, guess: ClassGuess) -> None:
        """Carry out one of ``buttons``. Raises :class:`OverloadDemoError` with the reason if it cannot be done now."""

    async def vote(self, step: str, entry: VoteEntry) -> None:
        """Carry out "ask" or one of :data:`STEPS` with ``entry``. Raises like ``act``, or for what was entered."""


class Page:
    """The page of a feed, served from a thread of its own while entered; ``address`` is the URL to open.

    With ``controls``, the address ends in a token behind a ``#``, which a browser never sends as part of an address;
    without the token the same page only shows. Raises :class:`ConfigurationError` when the port is not available.
    """

    def __init__(self, feed: Feed, *, port: int = 0, controls: Controls | None = None) -> None:
        self._feed, self._port, self._controls = feed, port, controls
        self._token = secrets.token_urlsafe(16)
        self._has_viewer = threading.Event()
        self.address = ""

    def __enter__(self) -> Self:
        try:
            listener = socket.create_server(("127.0.0.1", self._port))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ConfigurationError(f"cannot serve the page on port {self._port}: {reason}") from None
        self.address = f"http://127.0.0.1:{listener.getsockname()[1]}/" + (f"#{self._token}" if self._controls else "")
        self._server = SignalFreeServer(
            self._app(),
            http="h11",  # bounds heads, and ignores an offer of another protocol
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._thread = threading.Thread(target=self._server.run, args=([listener],), name="live-page", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._feed.close()
        self._server.should_exit = True
        self._thread.join(READY_WITHIN_S)

    async def first_viewer(self, within_s: float) -> None:
        """Return when the first viewer has opened the page, or after ``within_s`` seconds."""
        await asyncio.to_thread(self._has_viewer.wait, within_s)

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None, redirect_slashes=False)
        app.add_middleware(AccessCheck)
        app.state.hosts = HostRule(load_settings().allowed_hosts)
        app.get("/", response_class=HTMLResponse)(self._index)
        app.get("/panels.json")(cache(panels))
        app.get("/events", response_class=EventSourceResponse)(self._events)
        app.get("/{asset}", response_class=FileResponse)(_asset)
        app.post("/control/{order}", status_code=204)(self._control)
        app.post("/vote/{step}", status_code=204)(self._vote)
        return app

    def _index(self) -> HTMLResponse:
        text = template("index.html").substitute(markup=markup(self._controls))
        return HTMLResponse(text, headers={"Content-Security-Policy": POLICY})

    async def _events(self) -> AsyncIterator[ServerSentEvent]:
        """Send a snapshot, then each message; a browser that reconnects gets a snapshot again."""
        self._has_viewer.set()
        sent_at = 0.0
        async for message in self._feed.follow(-1, EVERY_S / 2):
            if message is not None:
                yield _event(message.kind, message.data)
            elif time.monotonic() - sent_at > BEAT_S:
                yield _event("beat", {})
            else:
                continue
            sent_at = time.monotonic()
        yield _event("end", {})

    async def _control(self, order: str, request: Request, x_control_token: Annotated[str, Header()] = "") -> None:
        controls = self._require_controls(x_control_token)
        if order not in controls.buttons:
            raise HTTPException(404, f"there is no control {order!r}", CLOSE)
        await _carry_out(controls, controls.act(order, await _read_body(request, ClassGuess)))

    async def _vote(self, step: str, request: Request, x_control_token: Annotated[str, Header()] = "") -> None:
        controls = self._require_controls(x_control_token)
        if step not in ("ask", *STEPS):
            raise HTTPException(404, f"there is no step {step!r} of a vote", CLOSE)
        await _carry_out(controls, controls.vote(step, await _read_body(request, VoteEntry)))

    def _require_controls(self, token: str) -> Controls:
        if self._controls is None or not secrets.compare_digest(token.encode(), self._token.encode()):
            raise HTTPException(403, "no controls here: open the address that was printed, with what is after #", CLOSE)
        return self._controls


async def _carry_out(controls: Controls, order: Coroutine[Any, Any, None]) -> None:
    """Run an order in the loop of the controls. Raises 422 for a mistake in the input, 409 if it cannot be done now."""
    try:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(order, controls.loop))
    except ConfigurationError as error:
        raise HTTPException(422, str(error)) from None
    except (OverloadDemoError, OSError) as error:  # such as a full disk
        raise HTTPException(409, str(error)) from None


def _event(kind: str, data: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(data={"kind": kind, "data": data}, retry=RECONNECT_MS)


async def _read_body(request: Request, kind: type[Body]) -> Body:
    """Read the body; call only after the token is checked. Raises 413, and 422 with the mistakes as text."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes", CLOSE)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:  # without the input: that may be NaN, which JSON cannot hold
        wrong = "; ".join(": ".join([*map(str, one["loc"][-1:]), one["msg"]]) for one in error.errors())
        raise HTTPException(422, wrong) from None


def _asset(asset: str) -> FileResponse:
    if asset not in ASSETS:
        raise HTTPException(404)
    return FileResponse(ASSETS[asset], headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"})


def markup(controls: Controls | None = None) -> str:
    """Return the HTML: header, numbers, vote, panels, controls if there are any, and the numbers again as a table."""
    tiles = rows = ""
    for name, (label, _) in NUMBERS.items():
        tiles += f'<div><dt>{label}</dt><dd data-number="{name}">{NOT_KNOWN}</dd></div>'
        rows += f'<tr><th scope="row">{label}</th><td data-number="{name}">{NOT_KNOWN}</td></tr>'
    figures = "\n".join(
        f'<figure role="img" data-panel="{name}" aria-label="{label}"><div inert></div></figure>'
        for name, label in NOTHING_YET.items()
    )
    form = "" if controls is None else _form(controls)
    vote = _vote_markup(has_controls=controls is not None)
    return template("view.html").substitute(tiles=tiles, vote=vote, figures=figures, controls=form, rows=rows)


def _form(controls: Controls) -> str:
    questions = "".join(f'<option value="{name}">{title}</option>' for name, title in controls.questions.items())
    return template("controls.html").substitute(buttons=_buttons("do", controls.buttons), questions=questions)


def _buttons(kind: str, labels: Mapping[str, str]) -> str:
    return "".join(f'<button type="button" data-{kind}="{name}">{label}</button>' for name, label in labels.items())


def _vote_markup(*, has_controls: bool) -> str:
    """Return the place of a vote: folded, its two histograms; open, the question, and fields for the instructor."""
    bars = "".join(f'<span><i class="{name}"></i><b data-hands="{name}"></b></span>' for name in ("first", "second"))
    small = rows = ""
    for number, letter in enumerate(LETTERS):
        small += f'<span data-answer="{number}"><b data-letter></b><span class="bars">{bars}</span></span>'
        field = f'<input inputmode="numeric" data-instructor hidden aria-label="hands for {letter}">' * has_controls
        rows += f'<li data-answer="{number}"><b data-letter></b><span data-text></span>{field}'
        rows += f'<span class="bars">{bars}</span></li>'
    return template("vote.html").substitute(small=small, rows=rows, buttons=_buttons("vote", STEPS) * has_controls)


def template(name: str) -> Template:
    """Read one of the HTML templates."""
    return Template((STATIC / name).read_text())


def panels() -> dict[str, Any]:
    """Return each panel by name, as ``Bokeh.embed.embed_item`` takes it. Panels fill the place they are given."""
    theme = Theme(filename=str(STATIC / "panels.yaml"))
    drawn = {"latency": _latency(), "depth": _depth(), "rates": _rates()}
    return {name: json_item(panel, theme=theme) for name, panel in drawn.items()}


def _latency() -> figure:
    panel = _panel("p99, s", y_axis_type="log", y_range=Range1d(start=FASTEST_S, end=SLOWEST_S))
    panel.yaxis.formatter = NumeralTickFormatter(format="0.[000]")
    panel.yaxis.ticker = panel.ygrid.ticker = FixedTicker(ticks=[0.001, 0.01, 0.1, 1, 10])
    _line(panel, "naive", "acceptance_p99_s", "naive API, time to the answer", **NAIVE)
    _line(panel, "queue", "acceptance_p99_s", "queue API, time to the 202", **QUEUE)
    _line(panel, "clients", "result_p99_s", "clients, time to the result", **IN_TIME)
    marks = panel.select_one({"name": "marks"})
    panel.text(x="at_s", y=FASTEST_S, text="text", source=marks, x_offset=6)
    return panel


def _depth() -> figure:
    panel = _panel("waiting", y_range=_from_zero())
    _line(panel, "naive", "queue_depth", "naive API, requests", **NAIVE)
    _line(panel, "queue", "queue_depth", "queue API, jobs", **QUEUE)
    _line(panel, "peak", "queue_depth", "predicted", **PREDICTED)
    panel.vspan(x="at_s", source=_source("empty"), line_width=LINE_PX, **PREDICTED)
    return panel


def _rates() -> figure:
    panel = _panel("per second", y_range=_from_zero())
    panel.xaxis.visible = True
    panel.xaxis.axis_label = SINCE
    _line(panel, "naive", "drain_rate_per_s", "naive API, answered", **NAIVE)
    _line(panel, "queue", "accepted_per_s", "accepted", **ACCEPTED)
    _line(panel, "queue", "drain_rate_per_s", "done", **QUEUE)
    _line(panel, "clients", "sent_per_s", "attempts", **ACCEPTED)
    _line(panel, "clients", "in_time_per_s", "results in time", **IN_TIME)
    return panel


def _panel(y_label: str, **options: Any) -> figure:
    """Return an empty panel with its time axis and event marks."""
    panel = figure(x_range=Range1d(start=0, end=60, name="time"), tools="", **options)
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
