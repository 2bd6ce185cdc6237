"""A vote of a class, counted before and after it discussed the question (peer instruction; E. Mazur, 1997)."""

from typing import Self

from pydantic import BaseModel, Field, NonNegativeInt, model_validator

MOST_ANSWERS, MOST_HANDS = 4, 10_000  # rows of the page; more hands than a lecture hall has seats


class Question(BaseModel, frozen=True):
    """A prepared question on ``act``; ``right`` is the position of the right answer, from 0, and ``why`` its reason."""

    act: str
    title: str
    text: str
    answers: list[str] = Field(min_length=3, max_length=MOST_ANSWERS)
    right: int = Field(ge=0, lt=MOST_ANSWERS)
    why: str


class Vote(BaseModel, frozen=True):
    """A question with the hands of each count, one number an answer; None before that count.

    ``asked_at_s`` is on the clock of the act's curves, 0 before the act.
    """

    question: Question
    asked_at_s: float = 0.0
    first: list[NonNegativeInt] | None = None
    second: list[NonNegativeInt] | None = None

    @model_validator(mode="after")
    def _fits_the_question(self) -> Self:
        answers = len(self.question.answers)
        if self.question.right >= answers or any(len(one) != answers or not sum(one) for one in self.counts.values()):
            raise ValueError("a count needs a number for each answer, and at least one hand")
        return self

    @property
    def counts(self) -> dict[str, list[int]]:
        """The counts taken so far: "first", "second"."""
        return {name: hands for name in ("first", "second") if (hands := getattr(self, name)) is not None}

    @property
    def change(self) -> str:
        """The share of right answers in each count, in a line; empty before the first."""
        shares = [hands[self.question.right] / sum(hands) for hands in self.counts.values()]
        return "Right answers: " + ", then ".join(f"{100 * share:.0f} %" for share in shares) + "." if shares else ""
