"""The course guide is right about the notebooks, the arithmetic of its answers, and the output of a check."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from overload_demo.course import Level
from overload_demo.course.exercise import Status, exercises
from overload_demo.course.rerun import Finding
from overload_demo.lab import theory
from tests.notebooks.kernels import NOTEBOOKS, ROOT, read

GUIDE = (ROOT / "notebooks" / "README.md").read_text()
MAP = {
    number: (slug, int(minutes)) for number, slug, minutes in re.findall(r"(?m)^\| (\d\d) \| (\w+) \| (\d+) ", GUIDE)
}


def section(title: str) -> str:
    [text] = [part for part in re.split(r"(?m)^## ", GUIDE) if part.startswith(title)]
    return text


QUESTIONS = re.split(r"(?m)^\d+\. ", section("Exam questions"))[1:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_is_on_the_map(path: Path) -> None:
    number, _, slug = path.stem.partition("_")

    head = read(path).cells[0].source
    assert MAP[number] == (slug, int(re.search(r"(\d+) minutes", head)[1]))  # type: ignore[index]


def test_every_exercise_is_an_outcome() -> None:
    assert set(re.findall(r"`(\d\d\.\w+)`", section("What students can do"))) == set(exercises())


def test_every_notebook_has_instructor_notes() -> None:
    assert re.findall(r"(?m)^\*\*(\d\d), (\w+)\.", section("Instructor notes")) == [
        (number, slug) for number, (slug, _) in MAP.items()
    ]


def test_the_minutes_of_the_routes_are_those_of_the_map() -> None:
    minutes = {number: of_one for number, (_, of_one) in MAP.items()}
    first, second = (sum(minutes[one] for one in numbers) for numbers in (("00", "01", "02"), ("04", "05")))

    assert f"first session 00, 01, 02 ({first} minutes); second session 04, 05 ({second} minutes)" in GUIDE
    assert max(first, second) <= 90
    assert f"in this order: {sum(minutes.values())} minutes" in GUIDE


def test_every_misconception_is_tied_to_a_notebook() -> None:
    rows = [line.split(" | ") for line in section("Misconceptions").splitlines()[4:] if line.startswith("|")]

    assert len(rows) == 6
    assert [row[0] for row in rows if not MAP.keys() & set(re.findall(r"\b\d\d\b", row[2]))] == []


def test_there_are_twelve_questions_and_their_answers_are_folded() -> None:
    assert len(QUESTIONS) == 12
    for question in QUESTIONS:
        assert re.search(r"[?.]\n +<details><summary>Answer</summary>.+</details>\n", question), question


def test_the_answers_agree_with_theory() -> None:
    depth = theory.peak_depth(1500, 1000, 60)
    mean_stay_s = 30 / 2

    assert f"= {depth:,.0f} jobs" in QUESTIONS[0]
    assert f"empty {theory.seconds_to_empty(1500, 1000, 60):g} s after" in QUESTIONS[0]
    assert f"= {theory.seconds_to_drain(depth, 1000):g} s" in QUESTIONS[1]
    assert f"= {theory.seconds_to_drain(100_000, theory.capacity_per_s(2.0)) / 3600:.1f} hours" in QUESTIONS[2]
    assert theory.mean_in_system(7200 / 3600, mean_stay_s) == 30
    assert f"= {mean_stay_s:g} s" in QUESTIONS[6]
    assert f"= {theory.depth_for_age(20, 300):,.0f} jobs" in QUESTIONS[7]


def test_the_output_of_a_check_is_documented() -> None:
    grading = section("Grading")

    assert f"`{', '.join(field.name for field in fields(Finding))}`" in grading
    assert [status for status in Status if f"`{status.value}`" not in grading] == []
    assert [level for level in Level if f"| `{level.value}`" not in section("Levels")] == []
