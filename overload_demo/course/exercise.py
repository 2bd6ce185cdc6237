"""What a student enters into a notebook: answers to exercises, which are checked, and predictions before a run.

``check("02.peak_depth", answer, ...)`` is the last line of a cell. A check never stops Run All. It reports *not done*,
*not yet* with a hint (one more with each further try) or *right*. The cell's output also holds the verdict as data,
which ``overload-demo check`` reads.

An author writes a judge: a function that returns a hint at the mistake, or "" for a right answer.

A prediction is entered below a cell, kept over restarts, and drawn onto the measurement. It always has a value, so Run
All needs no input: until a number is entered, it is the default. The field shows the number that was read. One rule
reads the text: a point before decimals, a comma or a space between groups of three digits, an exponent. Text that has
another meaning in another country is refused.
"""

import functools
import html
import inspect
import json
import math
import numbers
import re
import reprlib
import runpy
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from overload_demo.course.near_misses import near_miss
from overload_demo.errors import ConfigurationError
from overload_demo.lab import GREEN, GREY, ORANGE
from overload_demo.lab.wording import about, off_by

# Tolerances, as a share of the right answer: computed from round numbers (0.01), measured, read off a curve.
EXACT, MEASURED, READ_OFF = 0.001, 0.05, 0.10
MIME = "application/vnd.overload-demo.exercise+json"  # a front end shows the text beside it
PREDICTION_MIME = "application/vnd.overload-demo.prediction+json"
# The checks stand beside the notebooks; a wheel, which has no notebooks, holds them in this package.
CHECKS = (Path(__file__).parents[2] / "notebooks" / "checks", Path(__file__).with_name("checks"))
KEPT_IN = Path("runs") / "predictions.json"  # below the notebooks' directory
NOT_AWAITED = "The call has not been made: write await before it."
_NUMBER = re.compile(
    r"(?:[1-9]\d{0,2}([, \u00a0\u2009\u202f])\d{3}(?:\1\d{3})*(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?",
    re.ASCII | re.IGNORECASE,
)
_AMBIGUOUS = re.compile(r"[1-9]\d{0,2}\.\d{3}", re.ASCII)  # 60.000: sixty, or sixty thousand

Judge = TypeVar("Judge", bound=Callable[..., str])


class Status(StrEnum):
    """How far an answer is."""

    NOT_DONE = "not done"
    NOT_YET = "not yet"
    RIGHT = "right"


_LOOKS = {Status.NOT_DONE: ("○", GREY), Status.NOT_YET: ("✗", ORANGE), Status.RIGHT: ("✓", GREEN)}


class NotDoneError(Exception):
    """The answer, or the return value of the student's function, is still ``...``."""


@dataclass(frozen=True)
class Exercise:
    """An exercise; each further wrong answer adds one of ``hints`` to what ``judge(answer, **facts)`` returns."""

    judge: Callable[..., str]
    hints: tuple[str, ...]


EXERCISES: dict[str, Exercise] = {}
_tries: Counter[str] = Counter()


def exercise(key: str, *hints: str) -> Callable[[Judge], Judge]:
    """Register the decorated judge as the exercise ``key``, "NN.name"."""

    def register(judge: Judge) -> Judge:
        assert key not in EXERCISES, f"two exercises {key}"
        EXERCISES[key] = Exercise(judge, hints)
        return judge

    return register


def multiple_choice(key: str, right: str, others: Mapping[str, str], *hints: str) -> None:
    """Register the exercise ``key`` whose answer is one of several words; see :func:`choice`."""
    exercise(key, *hints)(lambda answer, **_: choice(answer, right, others))


@dataclass(frozen=True)
class Verdict:
    """The result of a check; ``hint_level`` counts the hints given in this kernel so far."""

    key: str
    status: Status
    hint_level: int
    text: str

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        sign, colour = _LOOKS[self.status]
        line = f"<b>{sign} {self.key}: {self.status}.</b> {html.escape(self.text)}"
        return {
            "text/plain": repr(self),
            "text/html": f'<div style="border-left:6px solid {colour};padding:4px 12px">{line}</div>',
            MIME: {"exercise": self.key, "status": self.status.value, "hint_level": self.hint_level},
        }

    def __repr__(self) -> str:
        return f"{_LOOKS[self.status][0]} {self.key}: {self.status}. {self.text}"


def check(key: str, answer: object, **facts: Any) -> Verdict:
    """Judge an answer to the exercise ``key``; ``facts`` are the measured values that the judge needs.

    A mistake in the answer, including an exception in a student's function, becomes a hint of one line. Raises only
    KeyError, for an unknown key.
    """
    one = exercises()[key]
    try:
        if answer is ... or answer is None:
            raise NotDoneError
        mistake = NOT_AWAITED if inspect.isawaitable(answer) else one.judge(answer, **facts)
    except NotDoneError:
        return Verdict(key, Status.NOT_DONE, 0, "Put your answer where the ... is, and run the cell again.")
    except (Exception, SystemExit) as error:
        mistake = f"Your answer raised {type(error).__name__}: {_one_line(str(error)).rstrip('.')}."
    if not mistake:
        _tries.pop(key, None)
        return Verdict(key, Status.RIGHT, 0, "")
    given = min(_tries[key], len(one.hints))
    _tries[key] += 1
    return Verdict(key, Status.NOT_YET, given + 1, " ".join([mistake, *one.hints[:given]]))


@functools.cache
def exercises() -> Mapping[str, Exercise]:
    """Run all of :data:`CHECKS`, once, and return the exercises that they register, by key."""
    for path in (path for folder in CHECKS for path in sorted(folder.glob("*.py"))):
        runpy.run_path(str(path))
    return EXERCISES


def number(answer: object, right: float, *, within: float = 0.01, mistakes: Mapping[float, str] | None = None) -> str:
    """Judge a number: right within a share of ``right``; ``mistakes`` maps usual wrong numbers to their hints.

    Where both are within the tolerance, three digits distinguish a usual mistake from ``right``.
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
    return near_miss(value, right) or f"{value:,.6g} is too {'small' if value < right else 'large'}."


def finite(answer: object) -> float | str:
    """Return the answer as a number, or a hint if it is none. Raises :class:`NotDoneError` for ``...``."""
    if answer is ... or answer is None:
        raise NotDoneError
    if isinstance(answer, str):
        return f"The answer is a number, not text: write it without quotes, not {shown(answer)}."
    if isinstance(answer, tuple) and {*map(type, answer)} == {int}:
        return f"A comma makes several numbers, {shown(answer)}: write 0.5 with a decimal point, 60000 with neither."
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        return f"The answer is a number, not {shown(answer)}."
    try:
        value = float(answer)
    except OverflowError:
        return "The answer is a number of a usual size, not one of more than 300 digits."
    return value if math.isfinite(value) else f"The answer is a finite number, not {value}."


def choice(answer: object, right: str, others: Mapping[str, str]) -> str:
    """Judge one of several words; ``others`` maps the wrong words to their hints."""
    if answer is ... or answer is None:
        raise NotDoneError
    known = {word.lower(): hint for word, hint in others.items()} | {right.lower(): ""}
    if isinstance(answer, str) and (word := re.sub(r"[\s_-]+", " ", answer).strip().lower()) in known:
        return known[word]
    options = ", ".join(repr(option) for option in sorted([right, *others]))
    return f"The answer is one of {options}, not {shown(answer)}."


def function(answer: object, example: str) -> str:
    """Judge whether the answer can be called at all; ``example`` is a call."""
    if inspect.iscoroutinefunction(answer):
        return "The function is called without await: write def, not async def."
    return "" if callable(answer) else f"The answer is a function, called like {example}, not {shown(answer)}."


def called(answer: object, *arguments: object) -> Any:
    """Call the student's function. Raises :class:`NotDoneError` when it returns ``...`` or nothing."""
    assert callable(answer)
    returned = answer(*arguments)
    if returned is ... or returned is None:
        raise NotDoneError
    return returned


def shown(answer: object) -> str:
    """Return an answer as short text for a hint, in one line."""
    if isinstance(answer, int) and abs(answer) >= 10**30:  # Python refuses to print more than 4,300 digits
        return "a number of more than 30 digits"
    return _one_line(reprlib.repr(answer))


def _one_line(text: str) -> str:
    return textwrap.shorten(text, 200, placeholder=" …")


class Prediction:
    """One number that a student expects; shown as an input field when it is the last line of a cell."""

    _unsaved: ClassVar[dict[str, str]] = {}  # texts that could not be written: kept until the Jupyter kernel ends

    def __init__(self, key: str, question: str, *, default: float, unit: str = "") -> None:
        self.key, self.question, self.default, self.unit = key, question, default, unit
        self.text = (_kept() | self._unsaved).get(key, "")
        self._not_kept = ""

    @property
    def value(self) -> float:
        """The number entered, or the default."""
        entered = _read_number(self.text)
        return self.default if isinstance(entered, str) else entered

    @property
    def is_own(self) -> bool:
        """Whether the student has entered it."""
        return not isinstance(_read_number(self.text), str)

    @property
    def note(self) -> str:
        """The number in use, and why."""
        entered = _read_number(self.text)
        if isinstance(entered, str):
            problem = f"{self.text[:40]!r} {entered}; " if self.text.strip() else ""
            return f"{problem}the default counts until you enter one: {self.default:,.10g} {self.unit}".rstrip()
        return f"your prediction: {entered:,.10g} {self.unit}".rstrip() + self._not_kept

    def enter(self, text: str) -> None:
        """Take the text of the field, and keep it for the next run of this notebook.

        Where it cannot be written it is kept until the kernel ends, and ``note`` names the folder.
        """
        self.text, self._unsaved[self.key] = text, text
        self._not_kept = keep(KEPT_IN, _kept() | {self.key: text})
        if not self._not_kept:
            del self._unsaved[self.key]

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        facts = {"prediction": self.key, "value": self.value, "is_own": self.is_own}
        try:
            bundle: dict[str, Any] = _field(self)._repr_mimebundle_()
        except ConfigurationError:
            text = f"{self!r} (no field without ipywidgets: pip install -e '.[notebooks]', or call .enter(\"60000\"))"
            return {"text/plain": text, PREDICTION_MIME: facts}
        return bundle | {"text/plain": repr(self), PREDICTION_MIME: facts}

    def __repr__(self) -> str:
        return f"{self.question} {self.note}"


class Comparison:
    """A table: predicted, measured, and the error in percent of the measured value, or as a factor."""

    def __init__(self, measured: Mapping[Prediction, float]) -> None:
        self.rows: list[tuple[str, str, str, str]] = []
        for one, value in measured.items():
            mine = f"{one.value:,.10g}" + ("" if one.is_own else " (default)")
            self.rows.append((one.question, mine, f"{about(value)} {one.unit}", off_by(one.value, value)))

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{head}</th>" for head in ("", "predicted", "measured", "off by"))
        rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows)
        return f"<table><tr>{heads}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"

    def __repr__(self) -> str:
        return "\n".join(f"{what} predicted {mine}, measured {it}, off by {off}" for what, mine, it, off in self.rows)


def keep(path: Path, content: Mapping[str, Any]) -> str:
    """Write what a student entered, as JSON, whole or not at all; return "" or a note with the reason why not."""
    try:
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(path)
    except OSError as error:
        return (
            f" (kept only until the Jupyter kernel ends: cannot write {path.absolute()}: {error.strerror}; "
            "copy the notebooks to a folder of your own)"
        )
    return ""


def widgets() -> Any:
    """Return the package of the fields. Raises :class:`ConfigurationError` where it is missing."""
    try:
        import ipywidgets  # of the extra "notebooks"
    except ImportError:
        raise ConfigurationError("notebooks need more packages: pip install -e '.[notebooks]'") from None
    return ipywidgets


def _field(prediction: Prediction) -> Any:
    ipywidgets = widgets()
    default = f"{prediction.default:,.10g}"
    field = ipywidgets.Text(value=prediction.text, placeholder=default, description=prediction.unit)
    note = ipywidgets.Label(prediction.note)

    def entered(change: Any) -> None:
        prediction.enter(change["new"])
        note.value = prediction.note

    field.observe(entered, names="value")
    return ipywidgets.VBox([ipywidgets.Label(prediction.question), field, note])


def _kept() -> dict[str, str]:
    try:
        kept = json.loads(KEPT_IN.read_text())
        return {key: text for key, text in kept.items() if isinstance(text, str)}
    except (OSError, ValueError, AttributeError):
        return {}


def _read_number(text: str) -> float | str:
    """Return the number in ``text``, or the reason why it is not read."""
    text = text.strip()
    if _AMBIGUOUS.fullmatch(text):
        whole = text.replace(".", "")
        return f"is {float(text):,.10g} in one country and {int(whole):,} in another: write {text}0 or {whole}"
    if _NUMBER.fullmatch(text):
        value = float(re.sub(r"[,\s]", "", text))
        if math.isfinite(value):
            return value
    return "is not read as a number of 0 or more: write it like 0.5, 60000 or 60,000, without a unit"
