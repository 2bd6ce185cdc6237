"""The live view as notebooks use it."""

import atexit
from typing import Any

from overload_demo.lab.dashboard.feed import Feed
from overload_demo.lab.dashboard.follow import Follower
from overload_demo.lab.dashboard.page import Page
from overload_demo.lab.dashboard.widget import LiveWidget
from overload_demo.lab.records.result import SpikeResult
from overload_demo.lab.running.plan import SpikeProgress


class Dashboard:
    """A live view to leave as a cell's last line, and to give to :func:`run_spike` as ``live``.

    ``address`` is the same view as a page, to project; it lives as long as the kernel. Watching takes its share of the
    machine: results of a watched spike say ``dashboard: on``.
    """

    def __init__(self, title: str = "") -> None:
        self._feed = Feed(title=title)
        page = Page(self._feed).__enter__()
        atexit.register(page.__exit__)
        self.address = page.address
        self._feed.show(status=f"the same as a page: {self.address}")
        self._widget = LiveWidget(self._feed)
        self._follow = Follower(self._feed)

    def __call__(self, progress: SpikeProgress) -> None:
        """Show one report of a spike."""
        self._follow(progress)

    def end(self, result: SpikeResult) -> None:
        """Show what it came to."""
        self._follow.end(result)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self._widget._repr_mimebundle_(**options)
