"""What students enter into a notebook before a run: predictions, drawn onto the measurement.

A prediction is entered below a cell, and kept over restarts. It always has a value, so Run All needs no input: until a
number is entered, it is the default. The field shows the number that was read. One rule reads the text: a point before
decimals, a comma or a space between groups of three digits, an exponent. Text that has another meaning in another
country is refused.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from overload_demo.errors import ConfigurationError
from overload_demo.lab import about, html_table, off_by

PREDICTION_MIME = "application/vnd.overload-demo.prediction+json"
KEPT_IN = Path("runs") / "predictions.json"  # below the notebooks' directory
_NUMBER = re.compile(
    r"(?:[1-9]\d{0,2}([, \u00a0\u2009\u202f])\d{3}(?:\1\d{3})*(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?",
    re.ASCII | re.IGNORECASE,
)
_AMBIGUOUS = re.compile(r"[1-9]\d{0,2}\.\d{3}", re.ASCII)  # 60.000: sixty, or sixty thousand


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
        return html_table(self.rows, ("", "predicted", "measured", "off by"))

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
