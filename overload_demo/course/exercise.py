"""What students hand in: answers to exercises, which are checked, and repaired queues of notebook 09, which are graded.

``check("02.peak_depth", answer, ...)`` is the last line of a cell. A check never stops Run All. It reports *not done*,
*not yet* with a hint (one more with each further try) or *right*. The cell's output also holds the verdict as data,
which ``overload-demo check`` reads.

An author writes a judge: a function that returns a hint at the mistake, or "" for a right answer.
"""

import asyncio
import contextlib
import filecmp
import functools
import html
import inspect
import json
import math
import numbers
import os
import re
import reprlib
import runpy
import shutil
import signal
import tempfile
import textwrap
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from overload_demo.errors import ConfigurationError
from overload_demo.lab import GREEN, GREY, ORANGE
from overload_demo.lab.history import Grading, Step
from overload_demo.process import PYTHON_M

# Tolerances, as a share of the right answer: computed from round numbers (0.01), measured, read off a curve.
EXACT, MEASURED, READ_OFF = 0.001, 0.05, 0.10
MIME = "application/vnd.overload-demo.exercise+json"  # a front end shows the text beside it
# Checks and broken queues stand beside the notebooks; a wheel, which has no notebooks, holds them in this package.
SHIPPED = (Path(__file__).parents[2] / "notebooks", Path(__file__).parent)
CHECKS = tuple(folder / "checks" for folder in SHIPPED)
REPAIRS = Path("repairs")  # the student's copies of the queues, below the notebooks' directory
GRADED_WITHIN_S = 120.0
NOT_AWAITED = "The call has not been made: write await before it."
_AS_GOOD_AS_EQUAL = 0.005  # chosen: answers with three digits
_FACTORS = {
    10: "count the zeros",
    60: "are these minutes?",
    100: "a share and its percent differ by this factor",
    1000: "look at the units, such as s and ms",
    3600: "are these hours?",
}

Judge = TypeVar("Judge", bound=Callable[..., str])


class Status(StrEnum):
    """How far an answer is."""

    NOT_DONE = "not done"
    NOT_YET = "not yet"
    RIGHT = "right"


_LOOKS = {Status.NOT_DONE: ("○", GREY), Status.NOT_YET: ("✗", ORANGE), Status.RIGHT: ("✓", GREEN)}


class NotDoneError(Exception):
    """The answer, or the return value of the student's function, is still ``...``."""


class ReturnedNothingError(Exception):
    """The student's function has returned None."""


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
        what = "The answer is None: put a value there" if answer is None else "Put your answer where the ... is"
        return Verdict(key, Status.NOT_DONE, 0, f"{what}, and run the cell again.")
    except ReturnedNothingError:
        mistake = "Your function returned nothing: write return before its result."
    except (Exception, SystemExit) as error:
        mistake = (
            f"Your answer raised {type(error).__name__}{_line_of(answer, error)}: {_one_line(str(error)).rstrip('.')}."
        )
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
    return _near_miss(value, right) or f"{value:,.6g} is too {'small' if value < right else 'large'}."


def _near_miss(value: float, right: float) -> str:
    """Return a hint at the slip that makes ``value`` of ``right``: a round factor, the sign, rounding; else ""."""
    if right and math.isclose(value, -right, rel_tol=_AS_GOOD_AS_EQUAL):
        return "The sign is wrong: which of the two that are subtracted is larger?"
    for factor, reason in _FACTORS.items():
        if math.isclose(value, right * factor, rel_tol=_AS_GOOD_AS_EQUAL):
            return f"{value:,.6g} is {factor:,} times too large: {reason}."
        if math.isclose(value * factor, right, rel_tol=_AS_GOOD_AS_EQUAL):
            return f"{value:,.6g} is {factor:,} times too small: {reason}."
    if value == math.floor(value) and abs(value - right) < 1:
        return f"{value:,.6g} is rounded too much: do not round, or give three digits."
    return ""


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
    """Call the student's function.

    Raises :class:`NotDoneError` when it returns ``...``, and :class:`ReturnedNothingError` when it returns nothing.
    """
    assert callable(answer)
    returned = answer(*arguments)
    if returned is ...:
        raise NotDoneError
    if returned is None:
        raise ReturnedNothingError
    return returned


def shown(answer: object) -> str:
    """Return an answer as short text for a hint, in one line."""
    if isinstance(answer, int) and abs(answer) >= 10**30:  # Python refuses to print more than 4,300 digits
        return "a number of more than 30 digits"
    return _one_line(reprlib.repr(answer))


def _line_of(answer: object, error: BaseException) -> str:
    """Return the line of the student's own code in which ``error`` arose, "" for one at the call itself."""
    file = getattr(getattr(answer, "__code__", None), "co_filename", None)
    lines = [frame.line for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f' in "{_one_line(lines[-1])}"' if lines and lines[-1] else ""


def _one_line(text: str) -> str:
    return textwrap.shorten(text, 200, placeholder=" …")


def broken_queues() -> list[Path]:
    """Copy the broken queues into ``repairs``, except those that are there; returns the copies, in order.

    Raises :class:`ConfigurationError` if it cannot be written.
    """
    try:
        REPAIRS.mkdir(exist_ok=True)
        for shipped in _shipped_queues().values():
            if not (REPAIRS / shipped.name).exists():
                shutil.copyfile(shipped, REPAIRS / shipped.name)
    except OSError as error:
        reason = f"cannot write {REPAIRS.absolute()}: {error.strerror}; copy the notebooks to a folder of your own"
        raise ConfigurationError(reason) from None
    return [REPAIRS / name for name in _shipped_queues()]


async def grade(file: object) -> Any:
    """Grade a repaired queue; returns a :class:`Grading`, and ``...`` for ``...``.

    Tries all faults of its rung on real processes and a Valkey of its own, in a second or a few. Whatever the file
    does, it returns within 60 s. Two gradings at the same time share nothing. Cancellable.
    """
    if file is ... or file is None:
        return ...
    if not isinstance(file, str | Path):
        return Grading("your answer", "ended", broken='a grading needs the path of a file, like "repairs/1_pop.py"')
    name, shipped = Path(file).name, _shipped_queues()
    if name not in shipped:
        return Grading(name, "ended", broken=f"a grading needs one of {', '.join(shipped)}")
    try:
        is_same = filecmp.cmp(file, shipped[name], shallow=False)
    except OSError as error:
        return Grading(name, "ended", broken=f"cannot read {file}: {error.strerror}; your copy is repairs/{name}")
    facts = await _referee_report(str(Path(file).absolute()), name)  # noqa: ASYNC240 - no file is touched
    steps = tuple(Step(*step) for step in facts.pop("steps", ()))
    return Grading(**facts | {"is_changed": not is_same}, steps=steps)


async def _referee_report(path: str, name: str) -> dict[str, Any]:
    """Run a referee in a session of its own, in an empty folder, and end every process of the session."""
    with tempfile.TemporaryDirectory(prefix="grading-", ignore_cleanup_errors=True) as folder:
        with (Path(folder) / "errors.log").open("wb") as errors:
            referee = await asyncio.create_subprocess_exec(
                *(*PYTHON_M, "overload_demo.course.counterexamples", path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=folder,
                start_new_session=True,
            )
        assert referee.stdin is not None and referee.stdout is not None
        report = b""
        try:
            async with asyncio.timeout(GRADED_WITHIN_S):
                report = await referee.stdout.read()
        except TimeoutError:
            reason = f"ended by the grader: no verdict within {GRADED_WITHIN_S:g} s"
            return {"file": name, "status": "ended", "broken": reason}
        finally:
            referee.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(referee.pid, signal.SIGKILL)
            await referee.wait()
        try:
            return dict(json.loads(report))
        except ValueError:
            last = (Path(folder) / "errors.log").read_text(errors="replace").strip().splitlines()[-1:]
            return {"file": name, "status": "ended", "broken": f"the grader has failed: {''.join(last)[:300]}"}


def _shipped_queues() -> dict[str, Path]:
    found = {path.name: path for folder in SHIPPED for path in sorted(folder.glob("queues/[1-6]_*.py"))}
    if not found:
        raise ConfigurationError("the queues of notebook 09 are missing: install the package again")
    return found
