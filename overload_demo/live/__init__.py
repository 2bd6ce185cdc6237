"""The live view of a spike: one stream of samples for a page to project, a notebook and a terminal.

``samples`` one moment, and its text · ``feed`` the stream · ``panels`` the figures · ``page``, ``dashboard`` where they
are shown · ``spike_feed``, ``api_watch`` where samples come from · ``stage``, ``rehearsal`` the acts of a class.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import ``Dashboard`` on first use: it needs the packages of the extra "dashboard"."""
    if name != "Dashboard":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from overload_demo.live.dashboard import Dashboard

    return Dashboard
