"""The live view of a spike: one stream of samples for a page to project, a notebook and a terminal.

``feed`` the stream, and the text of a sample · ``sources`` where samples come from · ``page``, ``dashboard`` where they
are shown · ``stage`` the acts of a class.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import ``Dashboard`` on first use: it needs the packages of the extra "dashboard"."""
    if name != "Dashboard":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from overload_demo.live.dashboard import Dashboard

    return Dashboard
