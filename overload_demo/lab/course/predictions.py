"""What a student expects before a run: entered below a cell, kept over restarts, drawn onto what was measured.

A prediction always has a value. Until one is entered, and while what was entered is no number, it is the default, and
says so: Run All needs nobody at the keyboard.
"""

import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from overload_demo.errors import ConfigurationError

MIME = "application/vnd.overload-demo.prediction+json"
KEPT_IN = Path("runs") / "predictions.json"  # below the notebooks' directory


class Prediction:
    """One number somebody expects; shown as a field to fill in when it is the last line of a cell."""

    def __init__(self, key: str, question: str, *, default: float, unit: str = "") -> None:
        self.key, self.question, self.default, self.unit = key, question, default, unit
        self.text = _kept().get(key, "")

    @property
    def value(self) -> float:
        """The number entered, or the default."""
        entered = _number(self.text)
        return self.default if entered is None else entered

    @property
    def is_own(self) -> bool:
        """Whether somebody entered it."""
        return _number(self.text) is not None

    @property
    def note(self) -> str:
        """What counts, and why."""
        if self.is_own:
            return f"your prediction: {self.value:,.6g} {self.unit}".rstrip()
        problem = f"{self.text[:40]!r} is no number of 0 or more; " if self.text.strip() else ""
        return f"{problem}the default counts until you enter one: {self.default:,.6g} {self.unit}".rstrip()

    def enter(self, text: str) -> None:
        """Take what was typed, and keep it for the next time this notebook is run."""
        self.text = text
        KEPT_IN.parent.mkdir(exist_ok=True)
        KEPT_IN.write_text(json.dumps(_kept() | {self.key: text}, indent=1) + "\n")

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        facts = {"prediction": self.key, "value": self.value, "is_own": self.is_own}
        bundle: dict[str, Any] = _field(self)._repr_mimebundle_()
        return bundle | {"text/plain": repr(self), MIME: facts}

    def __repr__(self) -> str:
        return f"{self.question} {self.note}"


class Comparison:
    """A table: predicted, measured, and how far off, in percent of what was measured."""

    def __init__(self, measured: Mapping[Prediction, float]) -> None:
        self.rows = [
            (one.question, _said(one), f"{it:,.6g} {one.unit}", _off(one.value, it)) for one, it in measured.items()
        ]

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{head}</th>" for head in ("", "predicted", "measured", "off by"))
        rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in self.rows)
        return f"<table><tr>{heads}</tr>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"

    def __repr__(self) -> str:
        return "\n".join(f"{what} predicted {mine}, measured {it}, off by {off}" for what, mine, it, off in self.rows)


def _field(prediction: Prediction) -> Any:
    try:
        import ipywidgets  # of the extra "notebooks"
    except ImportError:
        raise ConfigurationError("notebooks need more packages: pip install -e '.[notebooks]'") from None
    default = f"{prediction.default:,.6g}"
    field = ipywidgets.Text(value=prediction.text, placeholder=default, description=prediction.unit)
    question, note = ipywidgets.Label(prediction.question), ipywidgets.Label(prediction.note)

    def entered(change: Any) -> None:
        prediction.enter(change["new"])
        note.value = prediction.note

    field.observe(entered, names="value")
    return ipywidgets.VBox([question, field, note])


def _kept() -> dict[str, str]:
    try:
        kept = json.loads(KEPT_IN.read_text())
        return {key: text for key, text in kept.items() if isinstance(text, str)}
    except (OSError, ValueError, AttributeError):
        return {}


def _number(text: str) -> float | None:
    """60,000 and 60 000 and 6e4 are numbers; None for what is none, or below 0."""
    try:
        value = float(text.replace(",", "").replace(" ", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _said(prediction: Prediction) -> str:
    return f"{prediction.value:,.6g}" + ("" if prediction.is_own else " (default)")


def _off(predicted: float, measured: float) -> str:
    return f"{(predicted - measured) / measured:+.0%}" if measured else "-"
