"""What goes wrong between a process and its store, counted by kind."""

from collections.abc import Callable

from overload_demo.errors import StoreAuthError, StoreError, StoreFullError, StoreRefusedError, StoreUnavailableError
from overload_demo.metrics.families import Sheet

_KINDS = {
    StoreUnavailableError: "unavailable",
    StoreAuthError: "auth",
    StoreFullError: "full",
    StoreRefusedError: "refused",
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
        counters[_KINDS.get(type(error), "unavailable")].add()

    return count
