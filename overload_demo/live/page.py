"""The page: one address on loopback that shows a feed and, with controls, takes an instructor's orders.

Every byte it sends is from this package or the installed ``bokeh``; a strict content security policy holds the browser
to that. Addresses are relative, so the page works behind any path prefix.
"""

import asyncio
import os
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator
from functools import cache
from types import TracebackType
from typing import Annotated, Any, Protocol, Self

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field, ValidationError

from overload_demo.api.access import HostCheck
from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.http_server import HostRule, SignalFreeServer
from overload_demo.live.feed import EVERY_S, Feed
from overload_demo.live.panels import BOKEH_JS, STATIC, markup, panels, template

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
MAX_HEAD_BYTES, MAX_BODY_BYTES = 32_768, 4_096
_panels = cache(panels)
CLOSE = {"Connection": "close"}  # the rest of the body is not read


class ClassGuess(BaseModel):
    """The class's two predictions: the highest queue depth, jobs, and the seconds until the queue is empty."""

    peak: float | None = Field(None, ge=0, le=MAX_PREDICTION)
    empty_s: float | None = Field(None, ge=0, le=MAX_PREDICTION)


class Controls(Protocol):
    """The orders that a page takes; its coroutines run in its own event loop."""

    loop: asyncio.AbstractEventLoop
    buttons: dict[str, str]

    async def act(self, order: str, guess: ClassGuess) -> None:
        """Carry out one of ``buttons``. Raises :class:`OverloadDemoError` with the reason if it cannot be done now."""


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
        app.add_middleware(HostCheck)
        app.state.hosts = HostRule(load_settings().allowed_hosts)
        app.exception_handler(RequestValidationError)(_invalid_guess)
        app.get("/", response_class=HTMLResponse)(self._index)
        app.get("/panels.json")(_panels)
        app.get("/events", response_class=EventSourceResponse)(self._events)
        app.get("/{asset}", response_class=FileResponse)(_asset)
        app.post("/control/{order}", status_code=204)(self._control)
        return app

    def _index(self) -> HTMLResponse:
        buttons = self._controls.buttons if self._controls else {}
        return HTMLResponse(_document(tuple(buttons.items())), headers={"Content-Security-Policy": POLICY})

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
        controls = self._controls
        if controls is None or not secrets.compare_digest(x_control_token.encode(), self._token.encode()):
            raise HTTPException(403, "no controls here: open the address that was printed, with what is after #", CLOSE)
        if order not in controls.buttons:
            raise HTTPException(404, f"there is no control {order!r}", CLOSE)
        guess = await _read_guess(request)
        done = asyncio.run_coroutine_threadsafe(controls.act(order, guess), controls.loop)
        try:
            await asyncio.wrap_future(done)
        except OverloadDemoError as error:
            raise HTTPException(409, str(error)) from None


def _event(kind: str, data: dict[str, Any]) -> ServerSentEvent:
    return ServerSentEvent(data={"kind": kind, "data": data}, retry=RECONNECT_MS)


@cache
def _document(buttons: tuple[tuple[str, str], ...]) -> str:
    return template("index.html").substitute(markup=markup(dict(buttons)))


async def _read_guess(request: Request) -> ClassGuess:
    """Read the body; call only after the token is checked. Raises 413 and :class:`RequestValidationError`."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes", CLOSE)
    try:
        return ClassGuess.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _invalid_guess(_: Request, error: RequestValidationError) -> JSONResponse:
    """Return the error as text for the page, without the input: that may be NaN, which JSON cannot hold."""
    wrong = "; ".join(": ".join([*map(str, one["loc"][-1:]), one["msg"]]) for one in error.errors())
    return JSONResponse({"detail": wrong}, 422)


def _asset(asset: str) -> FileResponse:
    if asset not in ASSETS:
        raise HTTPException(404)
    return FileResponse(ASSETS[asset], headers={"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"})
