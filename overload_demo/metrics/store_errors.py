"""What goes wrong between a process and its store, counted by kind."""

from collections.abc import Callable

from overload_demo.errors import StoreError
from overload_demo.metrics.families import Sheet

# StoreFullError is "full": every kind there is has its own.
_KINDS = {
    kind: kind.__name__.removeprefix("Store").removesuffix("Error").lower() for kind in StoreError.__subclasses__()
}


def store_errors(sheet: Sheet) -> Callable[[StoreError], None]:
    """Declare the family; returns what counts one error."""
    counters = sheet.counters(
        "overload_store_errors_total",
        "Failed attempts to have something done by the store, those that were repeated included.",
        "kind",
        list(_KINDS.values()),
    )

    def count(error: StoreError) -> None:
        counters[_KINDS[type(error)]].add()

    return count
