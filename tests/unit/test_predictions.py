"""Predictions: a number is used, other text is not, and both are kept over a restart."""

import sys
from pathlib import Path

import pytest

from overload_demo.course.prediction import PREDICTION_MIME, Comparison, Prediction, _field


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Prediction, "_unsaved", {})


def peak(key: str = "99.peak") -> Prediction:
    return Prediction(key, "How deep?", default=4000, unit="jobs")


def test_until_a_number_is_entered_the_default_counts() -> None:
    one = peak()

    assert (one.value, one.is_own) == (4000, False)
    assert one.note == "the default counts until you enter one: 4,000 jobs"


@pytest.mark.parametrize("text", ["60000", "60,000", " 60 000 ", "60\u202f000", "6e4", "60000.0", "60,000.00", "6E+4"])
def test_usual_ways_to_write_a_number_are_read(text: str) -> None:
    one = peak()
    one.enter(text)

    assert (one.value, one.is_own) == (60_000, True)
    assert one.note.startswith("your prediction: ")


@pytest.mark.parametrize(
    ("text", "number"),
    [("0.5", 0.5), (".5", 0.5), ("12.25", 12.25), ("1,234.5", 1234.5), ("1234567", 1_234_567), ("0", 0)],
)
def test_the_number_that_was_read_is_shown_in_full(text: str, number: float) -> None:
    one = peak()
    one.enter(text)

    assert (one.value, one.is_own) == (number, True)
    assert one.note == f"your prediction: {number:,} jobs"
    assert f" predicted {number:,}, " in repr(Comparison({one: 1}))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0,5", "write it like 0.5"),
        ("0,500", "write it like 0.5"),
        ("60.000", "write 60.0000 or 60000"),
        ("1.250", "is 1.25 in one country and 1,250 in another"),
        ("1.250.000", "write it like"),
        ("60.000,5", "write it like"),
        ("6 0", "write it like"),
        ("1,2,3", "write it like"),
        ("1_000", "write it like"),
        ("½", "write it like"),
        ("\u0666\u0660", "write it like"),
        ("60 %", "without a unit"),
        ("60s", "without a unit"),
    ],
)
def test_text_that_could_be_another_number_is_refused_and_not_changed(text: str, why: str) -> None:
    one = peak()
    one.enter(text)

    assert (one.value, one.is_own) == (4000, False)
    assert why in one.note and repr(text) in one.note
    assert "the default counts until you enter one: 4,000 jobs" in one.note


@pytest.mark.parametrize("text", ["", "  ", "many", "-1", "nan", "inf", "1e999", "12 jobs"])
def test_text_without_a_number_leaves_the_default_with_a_reason(text: str) -> None:
    one = peak()
    one.enter("60000")
    one.enter(text)

    assert (one.value, one.is_own) == (4000, False)
    assert ("is not read as a number" in one.note) == bool(text.strip())


def test_a_prediction_outlives_its_kernel() -> None:
    peak().enter("60,000")
    peak("99.other").enter("7")

    assert peak().value == 60_000
    assert peak("99.other").value == 7
    assert peak("99.third").value == 4000


def test_in_a_folder_that_cannot_be_written_a_prediction_counts_until_the_kernel_ends(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")  # a read-only folder does not stop root, a file in its place does
    one = peak()

    field = _field(one)
    field.children[1].value = "60,000"

    assert (one.value, peak().value) == (60_000, 60_000)
    assert f"cannot write {tmp_path / 'runs' / 'predictions.json'}: " in field.children[2].value
    (tmp_path / "runs").unlink()
    one.enter("5")
    assert one.note == "your prediction: 5 jobs"
    Prediction._unsaved.clear()
    assert peak().value == 5, "written once the folder can be"


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"99.peak": 5}', "null"])
def test_a_broken_file_of_predictions_is_as_none(kept: str) -> None:
    Path("runs").mkdir()
    (Path("runs") / "predictions.json").write_text(kept)

    assert peak().value == 4000
    peak().enter("5")
    assert peak().value == 5


def test_a_field_shows_the_question_and_takes_what_is_typed() -> None:
    one = peak()
    bundle = one._repr_mimebundle_()

    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"] == "How deep? the default counts until you enter one: 4,000 jobs"
    assert bundle[PREDICTION_MIME] == {"prediction": "99.peak", "value": 4000, "is_own": False}


def test_without_the_extra_the_text_names_it_and_another_way_to_enter_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)

    bundle = peak()._repr_mimebundle_()

    assert bundle["text/plain"].startswith("How deep? the default counts until you enter one: 4,000 jobs (no field")
    assert "pip install -e '.[notebooks]'" in bundle["text/plain"] and '.enter("60000")' in bundle["text/plain"]
    assert bundle[PREDICTION_MIME] == {"prediction": "99.peak", "value": 4000, "is_own": False}


def test_a_comparison_shows_the_error_and_the_source_of_each_prediction() -> None:
    own, default = peak(), peak("99.other")
    own.enter("5000")

    compared = Comparison({own: 4000, default: 0})

    assert repr(compared) == (
        "How deep? predicted 5,000, measured 4,000 jobs, off by +25 %\n"
        "How deep? predicted 4,000 (default), measured 0 jobs, off by -"
    )
    assert ">+25 %</td>" in compared._repr_html_()
