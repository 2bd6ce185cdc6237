"""The live view in a notebook: the same figure and numbers as the page, fed over the kernel's channel."""

import asyncio
import atexit
from typing import Any, ClassVar

from overload_demo.errors import ConfigurationError
from overload_demo.live.feed import EVERY_S, Feed
from overload_demo.live.page import BOKEH_JS, STATIC, Page, markup, panels
from overload_demo.live.sources import SpikeFeed

try:
    import anywidget
    import traitlets
except ImportError:
    raise ConfigurationError("the live view needs more packages: pip install -e '.[dashboard]'") from None


class LiveWidget(anywidget.AnyWidget):
    """Shows ``feed``; a view that is opened again, as after a reload of the page, gets a snapshot."""

    _esm = (STATIC / "live.js").read_text() + (STATIC / "widget.js").read_text()
    _css = STATIC / "live.css"
    bokeh_js = traitlets.Bytes().tag(sync=True)
    markup = traitlets.Unicode().tag(sync=True)
    panels = traitlets.Dict().tag(sync=True)

    def __init__(self, feed: Feed) -> None:
        super().__init__(bokeh_js=BOKEH_JS.read_bytes(), markup=markup(), panels=panels())
        self._feed = feed
        self.on_msg(self._take_message)
        self._task = asyncio.get_running_loop().create_task(self._send_messages(feed.number))

    async def _send_messages(self, number: int) -> None:
        async for message in self._feed.follow(number, EVERY_S):
            if message is not None:
                self.send({"kind": message.kind, "data": message.data})

    def _take_message(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if content.get("again"):
            [snapshot] = self._feed.since(-1)
            self.send({"kind": snapshot.kind, "data": snapshot.data})


class Dashboard(SpikeFeed):
    """A live view: the last line of a cell, and the ``live`` argument of :func:`run_spike`.

    ``address`` is the same view as a page, to project. A kernel has one live view: a new one closes the one before. It
    also ends with the stack it has shown, and with the kernel. It uses part of the machine: results of a watched spike
    contain ``dashboard: on``.
    """

    _current: ClassVar["Dashboard | None"] = None

    def __init__(self, title: str = "") -> None:
        before, Dashboard._current = Dashboard._current, self
        if before is not None:
            before._end()
            before._widget.close()
        super().__init__(Feed(title=title))
        self._page = Page(self._feed).__enter__()
        atexit.register(self.close)
        self.address = self._page.address
        self._feed.show(status=f"the same as a page: {self.address}")
        self._widget: LiveWidget = LiveWidget(self._feed)

    def close(self) -> None:
        """End the page with its thread and listener; the view keeps its last picture. Safe to call twice."""
        if Dashboard._current is self:
            Dashboard._current = None
            self._end()

    def _end(self) -> None:
        atexit.unregister(self.close)
        self._feed.show(status="closed; run the cell of this view again to watch another spike")
        self._page.__exit__()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        data, metadata = self._widget._repr_mimebundle_(**options) or ({}, {})
        return data | {"text/plain": repr(self)}, metadata  # the text is for a front end without widgets

    def __repr__(self) -> str:
        return f"The live view, as a page while the kernel runs: {self.address}"
