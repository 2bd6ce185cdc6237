"""Which cases of a parametrized test run with plain ``pytest``."""

from collections.abc import Iterable
from typing import Any

import pytest


def plain_first(cases: Iterable[Any], plain: int = 1) -> list[Any]:
    """Return the cases for ``parametrize``: those after the first ``plain`` ones repeat it and are exhaustive."""
    marked = []
    for number, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        marked.append(pytest.param(*values, marks=[pytest.mark.exhaustive] if number >= plain else []))
    return marked
