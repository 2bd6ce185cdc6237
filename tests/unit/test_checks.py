"""Exercises: not done, not yet with one more hint each time, or right; no answer raises an error."""

from collections.abc import Iterator

import pytest

from overload_demo.course.exercise import EXERCISES, MIME, Exercise, Status, called, check, choice, function, number


def answer_is_four(answer: object) -> str:
    return number(answer, 4, mistakes={5: "You counted the fence posts."})


def function_doubles(answer: object) -> str:
    return function(answer, "twice(2)") or number(called(answer, 2), 4)


@pytest.fixture(autouse=True)
def exercises(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    hints = ("Two and two.", "It is an even number.")
    monkeypatch.setitem(EXERCISES, "99.four", Exercise(answer_is_four, hints))
    monkeypatch.setitem(EXERCISES, "99.twice", Exercise(function_doubles, ()))
    yield
    check("99.four", 4)  # resets the tries


@pytest.mark.parametrize("nothing", [..., None])
def test_an_empty_answer_is_not_done_and_no_try(nothing: object) -> None:
    verdict = check("99.four", nothing)

    assert (verdict.status, verdict.hint_level) == (Status.NOT_DONE, 0)


def test_each_further_try_gives_one_more_hint_until_there_are_no_more() -> None:
    verdicts = [check("99.four", 5) for _ in range(4)]

    assert [verdict.status for verdict in verdicts] == [Status.NOT_YET] * 4
    assert [verdict.hint_level for verdict in verdicts] == [1, 2, 3, 3]
    assert verdicts[0].text == "You counted the fence posts."
    assert verdicts[2].text == "You counted the fence posts. Two and two. It is an even number."
    assert check("99.four", 4.0).status is Status.RIGHT
    assert check("99.four", 5).hint_level == 1, "a right answer resets the hints"


@pytest.mark.parametrize(
    ("answer", "hint"),
    [
        ("4", "without quotes"),
        (True, "a number, not True"),
        ([4], "a number, not [4]"),
        ((4, 0), "with a decimal point"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (3, "too small"),
        (4.5, "too large"),
        (print, "a number, not"),
    ],
)
def test_a_wrong_answer_is_a_hint_and_no_error(answer: object, hint: str) -> None:
    verdict = check("99.four", answer)

    assert verdict.status is Status.NOT_YET
    assert hint in verdict.text


def test_a_failing_function_gets_a_hint_with_its_line() -> None:
    def divides(n: int) -> float:
        return n / 0

    text = check("99.twice", divides).text
    assert text == 'Your answer raised ZeroDivisionError in "return n / 0": division by zero.'
    assert "TypeError" in check("99.twice", lambda: 4).text


def test_a_function_without_a_return_is_told_from_one_that_is_not_written_yet() -> None:
    assert check("99.twice", lambda n: ...).status is Status.NOT_DONE
    assert "write return" in check("99.twice", lambda n: None).text
    assert "called like twice(2)" in check("99.twice", 4).text
    assert check("99.twice", lambda n: 2 * n).status is Status.RIGHT


def test_a_choice_names_what_can_be_chosen() -> None:
    others = {"no": "Look again."}

    assert choice(" Yes ", "yes", others) == ""
    assert choice("no", "yes", others) == "Look again."
    assert choice("maybe", "yes", others) == "The answer is one of 'no', 'yes', not 'maybe'."
    assert choice(1, "yes", others) == "The answer is one of 'no', 'yes', not 1."


def test_a_verdict_is_text_for_people_and_facts_for_the_command() -> None:
    bundle = check("99.four", "<b>")._repr_mimebundle_()

    assert bundle["text/plain"].startswith("✗ 99.four: not yet.")
    assert "<b>'" not in bundle["text/html"], "what a student typed is shown, not interpreted"
    assert bundle[MIME] == {"exercise": "99.four", "status": "not yet", "hint_level": 1}


def test_an_unknown_exercise_raises() -> None:
    with pytest.raises(KeyError):
        check("99.nothing", 1)
