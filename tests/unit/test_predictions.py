"""Predictions: what is typed counts, what is no number does not, and both are still there after a restart."""

import sys
from pathlib import Path

import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.lab.course.predictions import MIME, Comparison, Prediction


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def peak(key: str = "99.peak") -> Prediction:
    return Prediction(key, "How deep?", default=4000, unit="jobs")


def test_until_somebody_predicts_the_default_counts_and_says_so() -> None:
    one = peak()

    assert (one.value, one.is_own) == (4000, False)
    assert one.note == "the default counts until you enter one: 4,000 jobs"


@pytest.mark.parametrize("text", ["60000", "60,000", " 60 000 ", "6e4", "60000.0"])
def test_what_people_type_as_a_number_is_one(text: str) -> None:
    one = peak()
    one.enter(text)

    assert (one.value, one.is_own) == (60_000, True)
    assert one.note.startswith("your prediction: ")


@pytest.mark.parametrize("text", ["", "  ", "many", "-1", "nan", "inf", "1e999", "12 jobs"])
def test_what_is_no_number_leaves_the_default_and_says_why(text: str) -> None:
    one = peak()
    one.enter("60000")
    one.enter(text)

    assert (one.value, one.is_own) == (4000, False)
    assert ("is no number" in one.note) == bool(text.strip())


def test_a_prediction_outlives_its_kernel() -> None:
    peak().enter("60,000")
    peak("99.other").enter("7")

    assert peak().value == 60_000
    assert peak("99.other").value == 7
    assert peak("99.third").value == 4000


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
    assert bundle[MIME] == {"prediction": "99.peak", "value": 4000, "is_own": False}


def test_without_the_extra_a_field_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)

    with pytest.raises(ConfigurationError, match=r"pip install -e '\.\[notebooks\]'"):
        peak()._repr_mimebundle_()


def test_a_comparison_says_how_far_off_and_whose_prediction_it_was() -> None:
    own, default = peak(), peak("99.other")
    own.enter("5000")

    compared = Comparison({own: 4000, default: 0})

    assert repr(compared) == (
        "How deep? predicted 5,000, measured 4,000 jobs, off by +25%\n"
        "How deep? predicted 4,000 (default), measured 0 jobs, off by -"
    )
    assert "<td>+25%</td>" in compared._repr_html_()
