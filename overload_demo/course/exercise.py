"""What an exercise is, how an answer is judged, and what its author writes: a function that returns a hint or ""."""

import html
import importlib
import math
import numbers
import reprlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

# How far off an answer may be: computed from round numbers (0.01 by default), from measured ones, read off a curve.
EXACT, MEASURED, READ_OFF = 0.001, 0.05, 0.10
MIME = "application/vnd.overload-demo.exercise+json"  # a front end shows the text beside it

_SIGNS = {"not done": ("○", "#555555"), "not yet": ("✗", "#D55E00"), "right": ("✓", "#009E73")}
_MODULES = (
    "checks.preflight_checks",
    "checks_00_01",
    "checks_02_04",
    "checks.spike_checks",
    "checks.bounds_checks",
    "checks_05_07",
)

Judge = TypeVar("Judge", bound=Callable[..., str])


class Status(StrEnum):
    """How far an answer is."""

    NOT_DONE = "not done"
    NOT_YET = "not yet"
    RIGHT = "right"


class NotDoneError(Exception):
    """The answer, or what the student's function returns, is still ``...``."""


@dataclass(frozen=True)
class Exercise:
    """``judge(answer, **facts)`` returns "" if right, else a hint at the mistake; further tries add ``hints``."""

    key: str
    judge: Callable[..., str]
    hints: tuple[str, ...]


EXERCISES: dict[str, Exercise] = {}
_tries: Counter[str] = Counter()


def exercise(key: str, *hints: str) -> Callable[[Judge], Judge]:
    """Register the decorated judge as the exercise ``key``, "NN.name"."""

    def register(judge: Judge) -> Judge:
        assert key not in EXERCISES, f"two exercises {key}"
        EXERCISES[key] = Exercise(key, judge, hints)
        return judge

    return register


@dataclass(frozen=True)
class Verdict:
    """What came of a check; ``hint_level`` counts the hints given in this kernel so far."""

    key: str
    status: Status
    hint_level: int
    says: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        sign, colour = _SIGNS[self.status]
        text = f"<b>{sign} {self.key}: {self.status}.</b> {html.escape(self.says)}"
        facts = {"exercise": self.key, "status": self.status.value, "hint_level": self.hint_level}
        return {
            "text/plain": repr(self),
            "text/html": f'<div style="border-left:6px solid {colour};padding:4px 12px">{text}</div>',
            MIME: facts,
        }

    def __repr__(self) -> str:
        return f"{_SIGNS[self.status][0]} {self.key}: {self.status}. {self.says}"


def check(key: str, answer: object, **facts: Any) -> Verdict:
    """Judge an answer to the exercise ``key``; ``facts`` are what was measured.

    Whatever is wrong with the answer, also an exception in a function of the student's, is a hint and no error.
    Raises KeyError for an unknown key only.
    """
    one = exercises()[key]
    if answer is ... or answer is None:
        return _not_done(key)
    try:
        mistake = one.judge(answer, **facts)
    except NotDoneError:
        return _not_done(key)
    except Exception as error:
        mistake = f"Your answer raised {type(error).__name__}: {error}"
    if not mistake:
        _tries.pop(key, None)
        return Verdict(key, Status.RIGHT, 0, "")
    told = min(_tries[key], len(one.hints))
    _tries[key] += 1
    return Verdict(key, Status.NOT_YET, told + 1, " ".join([mistake, *one.hints[:told]]))


def _not_done(key: str) -> Verdict:
    return Verdict(key, Status.NOT_DONE, 0, "Put your answer where the ... is, and run the cell again.")


def exercises() -> Mapping[str, Exercise]:
    """All of them, by key."""
    for name in _MODULES:
        importlib.import_module(f"overload_demo.course.{name}")
    return EXERCISES


def number(answer: object, right: float, *, within: float = 0.01, mistakes: Mapping[float, str] | None = None) -> str:
    """Judge a number: right within a share of ``right``; ``mistakes`` maps the usual wrong numbers to their hints.

    A usual mistake so near to ``right`` that both are within the tolerance is told apart by three digits.
    """
    value = finite(answer)
    if isinstance(value, str):
        return value
    for tolerance in (min(within, EXACT), within):
        if math.isclose(value, right, rel_tol=tolerance, abs_tol=1e-9):
            return ""
        for wrong, hint in (mistakes or {}).items():
            if math.isclose(value, wrong, rel_tol=tolerance, abs_tol=1e-9):
                return hint
    return f"{value:,.6g} is too {'small' if value < right else 'large'}."


def finite(answer: object) -> float | str:
    """The answer as a number, or the hint that it is none. Raises :class:`NotDoneError` for ``...``."""
    if answer is ... or answer is None:
        raise NotDoneError
    if isinstance(answer, str):
        return f"The answer is a number, not text: write it without quotes, not {shown(answer)}."
    if isinstance(answer, tuple) and len(answer) == 2:
        return f"A comma makes two numbers, {shown(answer)}: decimals follow a point, as in 0.5."
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return f"The answer is a number, not {shown(answer)}."
    value = float(answer)
    return value if math.isfinite(value) else "The answer is a finite number."


def choice(answer: object, right: str, others: Mapping[str, str]) -> str:
    """Judge one of several words; ``others`` maps the wrong ones to their hints."""
    if answer is ... or answer is None:
        raise NotDoneError
    options = ", ".join(repr(option) for option in sorted([right, *others]))
    if not isinstance(answer, str):
        return f"The answer is one of {options}, not {shown(answer)}."
    word = answer.strip().lower()
    known = {option.lower(): hint for option, hint in others.items()} | {right.lower(): ""}
    return known.get(word, f"The answer is one of {options}, not {shown(answer)}.")


def function(answer: object, example: str) -> str:
    """Judge whether the answer can be called at all; ``example`` is how."""
    if callable(answer):
        return ""
    return f"The answer is a function, called like {example}, not {shown(answer)}."


def called(answer: object, *arguments: object) -> Any:
    """What the student's function returns. Raises :class:`NotDoneError` for ``...`` and for nothing at all."""
    assert callable(answer)
    says = answer(*arguments)
    if says is ... or says is None:
        raise NotDoneError
    return says


def shown(answer: object) -> str:
    """An answer in a hint: short, whatever it is."""
    return reprlib.repr(answer)
