"""The live view in a notebook: figure and numbers of the page, mounted by anywidget, fed over the kernel's channel."""

import asyncio
from typing import Any

from overload_demo.errors import ConfigurationError
from overload_demo.live import markup
from overload_demo.live import panels as figure
from overload_demo.live.feed import EVERY_S, Feed
from overload_demo.live.page import STATIC

try:
    import anywidget
    import traitlets
except ImportError:
    raise ConfigurationError("the live view needs more packages: pip install -e '.[dashboard]'") from None


class LiveWidget(anywidget.AnyWidget):
    """Shows ``feed``; a view that is opened again, as after a reload of the page, gets the whole."""

    _esm = (STATIC / "live.js").read_text() + (STATIC / "widget.js").read_text()
    _css = STATIC / "live.css"
    bokeh_js = traitlets.Bytes().tag(sync=True)
    markup = traitlets.Unicode().tag(sync=True)
    panels = traitlets.Dict().tag(sync=True)

    def __init__(self, feed: Feed) -> None:
        super().__init__(bokeh_js=figure.BOKEH_JS.read_bytes(), markup=markup.live_view(), panels=figure.panels())
        self._feed = feed
        self.on_msg(self._asked)
        self._number = feed.number
        self._task = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._feed.is_closed  # what was told before is still sent
            for message in self._feed.since(self._number):
                self._number = message.number
                self.send({"kind": message.kind, "data": message.data})
            await asyncio.sleep(EVERY_S)

    def _asked(self, _: Any, content: dict[str, Any], __: Any) -> None:
        if content.get("again"):
            [whole] = self._feed.since(-1)
            self.send({"kind": whole.kind, "data": whole.data})
