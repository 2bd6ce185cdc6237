"""The concept inventory: twelve questions before and after the course, and what a class has gained.

The questions, their answers and the reasons stand in ``notebooks/checks/inventory.md``. ``Inventory("pre")`` as the
last line of a cell shows them as a form, ``Inventory("post")`` after the course. Answers are kept below the notebooks
in ``runs/inventory.json``: ``{"pre": {"rush_hour": "B", ...}, "post": {...}}``; ``overload-demo check`` reads it.
"""

import functools
import html
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from overload_demo.course.exercise import CHECKS
from overload_demo.course.prediction import keep, widgets
from overload_demo.course.rerun import Finding
from overload_demo.errors import ConfigurationError

KEPT_IN = Path("runs") / "inventory.json"
OCCASIONS = {"pre": "before the course", "post": "after the course"}
_ITEM = re.compile(
    r"(?ms)^## \d+\. `(?P<key>\w+)`\n\n(?P<question>.+?)\n\n(?P<options>- A: .+?)\n\n<details>"
    r".+?^\*\*(?P<right>[A-D])\.\*\*"
)

# ipywidgets gives an answer one line: in a narrow window its end would be cut off
_WRAPPED = """<style>
.overload-answers label { display: flex; flex-direction: row-reverse; justify-content: flex-end; height: auto; }
.overload-answers input { flex: none; }
</style>"""

Answers = dict[str, dict[str, str]]  # occasion -> question -> letter


@dataclass(frozen=True)
class InventoryItem:
    """One question; ``options`` are its answers by letter, ``right`` is the letter of the right one."""

    key: str
    question: str
    options: Mapping[str, str]
    right: str


@functools.cache
def items() -> tuple[InventoryItem, ...]:
    """Read the questions of the inventory, in order."""
    [path] = [folder / "inventory.md" for folder in CHECKS if (folder / "inventory.md").exists()]
    read = []
    for found in _ITEM.finditer(path.read_text()):
        options = re.findall(r"(?ms)^- ([A-D]): (.+?)(?=\n-|\Z)", found["options"])
        texts = {letter: " ".join(text.split()) for letter, text in options}
        read.append(InventoryItem(found["key"], " ".join(found["question"].split()), texts, found["right"]))
    return tuple(read)


def read_answers(folder: Path) -> Answers:
    """Return the answers kept below ``folder``, none where there is no file.

    Raises :class:`ConfigurationError` for a file that cannot be read or is no inventory.
    """
    path, letters = folder / KEPT_IN, {item.key: item.options for item in items()}
    try:
        found = json.loads(path.read_text())
        answers = {occasion: dict(found.get(occasion, {})) for occasion in OCCASIONS}
        if all(letter in letters[key] for given in answers.values() for key, letter in given.items()):
            return answers
        reason = "an answer is not one of A, B, C, D"
    except FileNotFoundError:
        return {occasion: {} for occasion in OCCASIONS}
    except OSError as error:
        reason = error.strerror or "unknown error"
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        reason = "it is not an inventory"
    raise ConfigurationError(f"cannot read {path}: {reason}")


def score(given: Mapping[str, str]) -> float | None:
    """Return the share of right answers, 0 to 1; None unless all questions are answered."""
    right = sum(given.get(item.key) == item.right for item in items())
    return right / len(items()) if len(given) == len(items()) else None


def gain(pre: float | None, post: float | None) -> float | None:
    """Return the normalised gain, (post - pre) ÷ (1 - pre): the share of what could be gained that was gained.

    R. R. Hake, *Interactive-engagement versus traditional methods*, Am. J. Phys. 66(1), 1998. Negative after a loss;
    None where a score is missing, or nothing could be gained because ``pre`` is 1.
    """
    return None if pre is None or post is None or pre == 1 else (post - pre) / (1 - pre)


def findings(paths: Iterable[Path]) -> Iterator[Finding]:
    """Yield the inventory of each folder, and of each notebook's folder that has one; then that of the class.

    The class are the folders with both forms complete. Its gain is that of its mean scores, as Hake defines it, so a
    student with 100 % before the course counts, although there is no gain for this student alone.
    """
    given = list(paths)
    folders = {path if path.is_dir() else path.parent: None for path in given}
    found = [_finding(one) for one in folders if one in given or (one / KEPT_IN).exists()]
    yield from found
    both = [(one.pre, one.post) for one in found if one.pre is not None and one.post is not None]
    if len(found) > 1 and both:
        pre, post = (sum(scores) / len(both) for scores in zip(*both, strict=True))
        status = f"mean: {len(both)} of {len(found)} folders"
        yield Finding("(class)", "inventory", status, pre=pre, post=post, gain=gain(pre, post))


def _finding(folder: Path) -> Finding:
    try:
        answers = read_answers(folder)
    except ConfigurationError as error:
        return Finding(str(folder), "inventory", str(error))
    pre, post = (score(answers[occasion]) for occasion in OCCASIONS)
    status = "complete"
    if pre is None or post is None:
        counts = (f"{len(answers[one])} of {len(items())} {when}" for one, when in OCCASIONS.items())
        status = f"incomplete: {', '.join(counts)}"
    return Finding(str(folder), "inventory", status, pre=pre, post=post, gain=gain(pre, post))


class Inventory:
    """The form of one occasion, "pre" or "post"; shown as fields when it is the last line of a cell.

    Where a front end shows no fields, ``letters`` are the answers: ``Inventory("pre", "ABCD...")``.
    """

    _unsaved: ClassVar[Answers] = {occasion: {} for occasion in OCCASIONS}  # could not be written

    def __init__(self, occasion: str, letters: str = "") -> None:
        if occasion not in OCCASIONS:
            raise ConfigurationError(f"the inventory is {' or '.join(map(repr, OCCASIONS))}, not {occasion!r}")
        self.occasion, self._problem = occasion, ""
        try:
            kept = read_answers(Path())[occasion]
        except ConfigurationError as error:
            kept, self._problem = {}, f" ({error})"
        self.answers = kept | self._unsaved[occasion]
        if letters:
            if not re.fullmatch(rf"[A-D]{{{len(items())}}}", letters):
                raise ConfigurationError(f"the answers are {len(items())} letters from A to D, not {letters!r}")
            self.enter({item.key: letter for item, letter in zip(items(), letters, strict=True)})

    @property
    def note(self) -> str:
        """How many questions are answered, and what could not be read or written."""
        return f"{len(self.answers)} of {len(items())} answered {OCCASIONS[self.occasion]}{self._problem}"

    def enter(self, answers: Mapping[str, str]) -> None:
        """Take answers, letters by question, and keep them. A file that cannot be read is renamed, not overwritten."""
        self.answers |= answers
        try:
            kept, self._problem = read_answers(Path()), ""
        except ConfigurationError:
            kept, aside = {}, KEPT_IN.with_name(f"inventory-unreadable-{time.time_ns()}.json")
            with suppress(OSError):
                KEPT_IN.replace(aside)
                self._problem = f" (the file before could not be read and is now {aside})"
        not_kept = keep(KEPT_IN, kept | {self.occasion: self.answers})
        self._unsaved[self.occasion] = dict(self.answers) if not_kept else {}
        self._problem += not_kept

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        try:
            bundle: dict[str, Any] = self._form()._repr_mimebundle_()
        except ConfigurationError as error:  # no fields: .enter() takes the answers too
            return {"text/plain": f"{self!r}\n\n{error}"}
        return bundle | {"text/plain": repr(self)}

    def __repr__(self) -> str:
        lines = [self.note]
        for number, item in enumerate(items(), 1):
            lines += ["", f"{number}. {item.question}", *(f"   {key}: {text}" for key, text in item.options.items())]
        return "\n".join(lines)

    def _form(self) -> Any:
        made = widgets()
        note, parts = made.HTML(html.escape(self.note)), [made.HTML(_WRAPPED)]
        for number, item in enumerate(items(), 1):
            options = [(text, letter) for letter, text in item.options.items()]
            field = made.RadioButtons(options=options, value=self.answers.get(item.key), layout={"width": "auto"})
            field.add_class("overload-answers")
            field.observe(functools.partial(self._chosen, item.key, note), names="value")
            parts += [
                made.HTML(f'<div style="line-height:1.4"><b>{number}.</b> {html.escape(item.question)}</div>'),
                field,
            ]
        return made.VBox([*parts, note])

    def _chosen(self, key: str, note: Any, change: Mapping[str, Any]) -> None:
        self.enter({key: change["new"]})
        note.value = html.escape(self.note)
