"""Vote, discuss, vote again: the questions of a class, the counts, and what the page shows of them."""

import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, TypeAdapter

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab.result import MOST_ANSWERS, MOST_HANDS, Question, SpikeResult, Vote
from overload_demo.live.feed import Feed

QUESTIONS = TypeAdapter(dict[str, Question]).validate_python(
    tomllib.loads(Path(__file__).with_name("questions.toml").read_text())
)
VOTES_FILE = "votes.json"
LETTERS = "ABCD"
STEPS = {"first": "First count", "second": "Second count", "answer": "Show answer", "close": "Close"}
# By the number of counts taken.
_NOTES = ("Vote by a show of hands.", "Discuss with a neighbour who voted differently. Then vote again.", "")


class VoteEntry(BaseModel):
    """What the instructor has entered: the question to ask, and the hands for each answer as typed."""

    question: str = ""
    counts: list[str] = Field([], max_length=MOST_ANSWERS)


class Ballot:
    """The votes of one class; each step changes the vote shown on ``feed``, and is kept at once.

    ``votes`` holds all of them in order, and so does :data:`VOTES_FILE` in ``folder``. Those since the last act with a
    result are part of that result, or of the next one.
    """

    def __init__(self, feed: Feed, acts: Collection[str], folder: Path) -> None:
        self._feed, self._folder = feed, folder
        self.questions = {name: one for name, one in QUESTIONS.items() if one.act in acts}
        self.votes: list[Vote] = []
        self._has_answer = False
        self._from = 0
        self._result: SpikeResult | None = None

    def ask(self, name: str, at_s: float) -> None:
        """Show a question without counts. Raises :class:`ConfigurationError` for one that is not prepared."""
        if name not in self.questions:
            raise ConfigurationError(f"there is no question {name!r}")
        if self._result is not None:  # the votes on the act before are complete
            self._from, self._result = len(self.votes), None
        self.votes.append(Vote(question=self.questions[name], asked_at_s=round(at_s, 2)))
        self._keep()
        self._has_answer = False
        self._show(is_open=True)

    def take(self, step: str, counts: list[str]) -> None:
        """Carry out one of :data:`STEPS`; a count that is taken again replaces the one before.

        Raises :class:`ConfigurationError` for counts that are not numbers of hands, and :class:`OverloadDemoError` for
        a step that is not possible yet. Both leave every count as it was.
        """
        if not self.votes:
            raise OverloadDemoError("no question was asked yet")
        vote = self.votes[-1]
        if step in ("second", "answer") and vote.first is None:
            raise OverloadDemoError(f"{STEPS[step]!r} is not possible now: the first count comes before it")
        if step in ("first", "second"):
            hands = read_hands(counts, len(vote.question.answers))
            self.votes[-1] = vote.model_copy(update={step: hands})
            self._keep()
        self._has_answer |= step == "answer"
        self._show(is_open=step != "close")

    def begin(self, act: str) -> None:
        """Fold the question away when ``act`` begins; a vote on another act is no longer shown."""
        if self.votes and self.votes[-1].question.act == act:
            self._show(is_open=False)
        else:
            self._feed.show(vote=None)
            self._from = self._from if self._result is None else len(self.votes)
        self._result = None

    def end(self, result: SpikeResult) -> None:
        """Write the ``result`` of an act with its votes; a later count changes it."""
        self._result = result
        self._keep()

    def _keep(self) -> None:
        (self._folder / VOTES_FILE).write_bytes(TypeAdapter(list[Vote]).dump_json(self.votes, indent=1))
        if self._result is not None and self._result.folder is not None:
            self._result.model_copy(update={"votes": self.votes[self._from :]}).save(self._result.folder)

    def _show(self, is_open: bool) -> None:
        self._feed.show(vote=vote_view(self.votes[-1], is_open=is_open, has_answer=self._has_answer))


def read_hands(counts: list[str], answers: int) -> list[int]:
    """Return the hands for each of ``answers``; an empty field is 0. Raises :class:`ConfigurationError` for others."""
    typed = [text.strip() for text in counts[:answers]] + [""] * (answers - len(counts))
    for letter, text in zip(LETTERS, typed, strict=False):
        if text and not (re.fullmatch(r"\d{1,9}", text, re.ASCII) and int(text) <= MOST_HANDS):
            raise ConfigurationError(f"{letter}: {text[:20]!r} is not a number of hands from 0 to {MOST_HANDS:,}")
    hands = [int(text or 0) for text in typed]
    if not any(hands):
        raise ConfigurationError("no hand was counted: enter the hands for at least one answer")
    return hands


def vote_view(vote: Vote, *, is_open: bool, has_answer: bool) -> dict[str, Any]:
    """Return what a page shows of a vote; the right answer only if ``has_answer``, as every viewer can read it."""
    question, rows = vote.question, []
    for number, answer in enumerate(question.answers):
        is_right = has_answer and number == question.right
        row: dict[str, Any] = {"letter": LETTERS[number] + " ✓" * is_right, "text": answer}
        for name, hands in vote.counts.items():
            row[name] = {"hands": f"{hands[number]:,}", "share": round(hands[number] / sum(hands), 4)}
        rows.append(row)
    return {
        "open": is_open,
        "question": question.text,
        "rows": rows,
        "note": f"{question.why} {vote.change}" if has_answer else _NOTES[len(vote.counts)],
        "label": " ".join([question.title, *_described(vote), vote.change if has_answer else ""]).strip(),
        "steps": ["first", *(["second", "answer"] if vote.first else []), "close"],
    }


def _described(vote: Vote) -> list[str]:
    """Return each count in words, for a text alternative."""
    return [
        f"{STEPS[name]}: " + ", ".join(f"{LETTERS[at]} {count:,}" for at, count in enumerate(hands)) + "."
        for name, hands in vote.counts.items()
    ]
