"""The live view as notebooks use it."""

import atexit
from typing import Any, ClassVar

from overload_demo.lab.result import SpikeResult
from overload_demo.lab.spike_plan import SpikeProgress
from overload_demo.live.feed import Feed
from overload_demo.live.follow import Follower
from overload_demo.live.page import Page
from overload_demo.live.widget import LiveWidget


class Dashboard:
    """A live view to leave as a cell's last line, and to give to :func:`run_spike` as ``live``.

    ``address`` is the same view as a page, to project. A kernel has one live view: a new one closes the one before. The
    view also ends with the stack it has shown, and with the kernel. Watching takes its share of the machine: results of
    a watched spike say ``dashboard: on``.
    """

    _current: ClassVar["Dashboard | None"] = None

    def __init__(self, title: str = "") -> None:
        before, Dashboard._current = Dashboard._current, self
        if before is not None:
            before._end()
            before._widget.close()
        self._feed = Feed(title=title)
        self._page = Page(self._feed).__enter__()
        atexit.register(self.close)
        self.address = self._page.address
        self._feed.show(status=f"the same as a page: {self.address}")
        self._widget: LiveWidget = LiveWidget(self._feed)
        self._follow = Follower(self._feed)

    def __call__(self, progress: SpikeProgress) -> None:
        """Show one report of a spike."""
        self._follow(progress)

    def end(self, result: SpikeResult) -> None:
        """Show what it came to."""
        self._follow.end(result)

    def close(self) -> None:
        """End the page, its thread and its listener; what was shown stays. Harmless when it has ended."""
        if Dashboard._current is self:
            Dashboard._current = None
            self._end()

    def _end(self) -> None:
        atexit.unregister(self.close)
        self._feed.show(status="closed; run the cell of this view again to watch another spike")
        self._page.__exit__()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self._widget._repr_mimebundle_(**options)
