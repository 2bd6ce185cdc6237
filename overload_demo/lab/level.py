"""How heavy a notebook's load is: one variable, OVERLOAD_LEVEL, for all of them."""

import os
from typing import TypeVar

from overload_demo.errors import ConfigurationError

Value = TypeVar("Value")


def by_level(*, test: Value, quick: Value, full: Value) -> Value:
    """The value for the level in OVERLOAD_LEVEL: ``test``, ``quick`` (default) or ``full``.

    Raises :class:`ConfigurationError` for another level.
    """
    level = os.environ.get("OVERLOAD_LEVEL") or "quick"
    choices = {"test": test, "quick": quick, "full": full}
    if level not in choices:
        raise ConfigurationError(f"OVERLOAD_LEVEL must be one of {', '.join(choices)}, not {level!r}")
    return choices[level]
