"""The prepared questions of the live page: one for each act, with one right answer and its reason."""

import pytest

from overload_demo.live.ballot import QUESTIONS
from overload_demo.live.stage import BUTTONS, TITLES

ACTS_IN_AN_ACT = {"kill", "freeze"}


def test_each_act_has_a_question() -> None:
    assert set(QUESTIONS) >= {*TITLES, *ACTS_IN_AN_ACT}
    assert {question.act for question in QUESTIONS.values()} <= set(TITLES)
    assert set(BUTTONS) >= ACTS_IN_AN_ACT


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_has_different_answers_one_of_them_right_and_a_reason(name: str) -> None:
    question = QUESTIONS[name]

    assert question.right < len(question.answers) == len(set(question.answers))
    assert question.text.endswith("?") and question.why.endswith(".")
    assert max(map(len, question.answers)) <= 55, "an answer fits one line of a projector"
    assert len(question.text) <= 150 and len(question.why) <= 150, "two lines each"
