"""Scripted students: what they answer to each exercise, and the hint that each mistake must get.

The author of a notebook adds ``tests/notebooks/students/SLUG.py``, named as ``notebooks/NN_SLUG.ipynb``, with one list
``STUDENTS``. It is found by itself. ``tests/notebooks/test_students.py`` gives every answer to the real check::

    STUDENTS = [
        Students(
            "02.half",
            facts={"arrival_per_s": 800, "drain_per_s": 300, "spike_s": 30},
            right=[6_000],
            wrong=[(7_500, "does not halve"), (15_000, "the old peak"), (30_000, "deeper")],
            wrong_type=[("6,000", "without quotes")],
        ),
    ]

It demands for each exercise of ``notebooks/checks``:

- ``right``: at least one answer, that of the solution first. Numbers must pass as numpy scalars too.
- ``wrong``: usual mistakes, each with a fragment of its hint. At least three fragments, and none of them may appear in
  the hint of a mistake with another fragment. "Too small", "too large" and "one of" diagnose nothing and do not count.
- ``wrong_type``: what a student would plausibly hand in instead, with a fragment of the hint.
- ``unfinished``: answers, beside ``...`` and None, that count as not done: a stub, half of a pair.

``facts`` are the measured values that the notebook passes to ``check``: build them from a recorded run in
``experiments/results`` or from a small fixed data set. An exercise may have several entries, each with other facts. The
test adds by itself: text, lists, NaN, infinity, booleans, a coroutine, huge integers, and functions that return those.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Students:
    """The answers of students to the exercise ``key``, checked with ``facts``."""

    key: str
    right: Sequence[Any] = ()
    wrong: Sequence[tuple[Any, str]] = ()
    wrong_type: Sequence[tuple[Any, str]] = ()
    unfinished: Sequence[Any] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.key


def all_students() -> list[Students]:
    """Return the entries of all tables beside this file."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return [one for name in names for one in importlib.import_module(f"{__name__}.{name}").STUDENTS]
