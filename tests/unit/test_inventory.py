"""The concept inventory: twelve sound questions, answers that are kept, and the gain of a student and of a class."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from overload_demo.course.exercise import CHECKS
from overload_demo.course.inventory import KEPT_IN, OCCASIONS, Inventory, findings, gain, items, read_answers, score
from overload_demo.errors import ConfigurationError

RIGHT = {item.key: item.right for item in items()}
TEXT = (CHECKS[0] / "inventory.md").read_text()
SECTIONS = re.split(r"(?m)^## \d+\. ", TEXT)[1:]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Inventory, "_unsaved", {occasion: {} for occasion in OCCASIONS})


def with_right(count: int) -> dict[str, str]:
    """Answers to all questions, ``count`` of them right."""
    others = {item.key: next(letter for letter in item.options if letter != item.right) for item in items()}
    return others | dict(list(RIGHT.items())[:count])


def write(folder: Path, **answers: dict[str, str]) -> Path:
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    (folder / KEPT_IN).write_text(json.dumps(answers))
    return folder


def test_there_are_twelve_questions_with_four_different_answers() -> None:
    assert len(items()) == len(SECTIONS) == len(RIGHT) == 12
    for item in items():
        assert list(item.options) == ["A", "B", "C", "D"] and len(set(item.options.values())) == 4
        assert item.question.count("?") == 1 and "<" not in item.question
        assert all(len(text) <= 70 for text in item.options.values()), "an option is one line of the form"


def test_the_guide_defines_the_gain() -> None:
    guide = (CHECKS[0].parent / "README.md").read_text().replace("\N{MINUS SIGN}", "-")
    assert "(post - pre) ÷ (1 - pre)" in guide


def test_neither_the_letter_nor_the_length_tells_the_right_answer() -> None:
    longest = [max(item.options, key=lambda letter, of=item.options: len(of[letter])) for item in items()]

    assert set(Counter(RIGHT.values()).values()) == {3}
    assert sum(item.right == letter for item, letter in zip(items(), longest, strict=True)) <= 4


def test_every_answer_has_its_reason_and_every_misconception_two_questions() -> None:
    for item, section in zip(items(), SECTIONS, strict=True):
        answer = section.partition("<summary>Answer</summary>")[2]
        reasons = dict(re.findall(r"(?ms)^- ([A-D]): (.+?)(?=^-|^\n)", answer))
        assert set(reasons) == set(item.options) - {item.right}, item.key
        assert all(len(reason) > 40 for reason in reasons.values())
    guide = (CHECKS[0].parent / "README.md").read_text()
    rows = re.findall(r"(?m)^\| ([^|]+) \|", guide.partition("## Misconceptions")[2].partition("## Words")[0])[1:]
    assert Counter(re.findall(r"(?m)^Misconception: (.+)$", TEXT)) == dict.fromkeys(rows, 2)


def test_no_question_is_an_exam_question() -> None:
    exam = (CHECKS[0].parent / "README.md").read_text().partition("## Exam questions")[2]

    assert not {word for item in items() for word in re.findall(r"[^.?]{40,}", item.question) if word in exam}


def test_the_figures_in_the_answers_are_right() -> None:
    assert f"{round(0.99**30 * 100)} %. {round(100 - 0.99**30 * 100)} % of the pages" in TEXT
    assert round((980 * 10 + 20 * 5000) / 1000) == 110 and 5000 // 110 == 45


@pytest.mark.parametrize(
    ("pre", "post", "gained"),
    [(0.25, 0.75, 2 / 3), (0.5, 0.5, 0), (0.5, 0.25, -0.5), (0, 1, 1), (1, 1, None), (1, 0.5, None), (None, 1, None)],
)
def test_the_normalised_gain(pre: float | None, post: float | None, gained: float | None) -> None:
    assert gain(pre, post) == (gained if gained is None else pytest.approx(gained))


def test_a_score_needs_all_answers() -> None:
    assert score(RIGHT) == 1
    assert score(with_right(3)) == 0.25
    assert score({}) is None and score(dict(list(RIGHT.items())[:11])) is None


def test_answers_are_kept_for_each_occasion_and_outlive_the_kernel() -> None:
    Inventory("pre").enter({"receipt": "B"})
    Inventory("post").enter({"receipt": "A"})
    Inventory("pre").enter({"all_green": "C"})

    assert Inventory("pre").answers == {"receipt": "B", "all_green": "C"}
    assert Inventory("post").note == "1 of 12 answered after the course"
    assert read_answers(Path()) == {"pre": {"receipt": "B", "all_green": "C"}, "post": {"receipt": "A"}}
    assert [path.name for path in Path("runs").iterdir()] == ["inventory.json"]


def test_without_a_form_letters_are_the_answers() -> None:
    assert score(Inventory("pre", "".join(RIGHT.values())).answers) == 1
    for letters in ("ABC", "E" * 12, "abcdabcdabcd"):
        with pytest.raises(ConfigurationError, match="12 letters from A to D"):
            Inventory("post", letters)
    with pytest.raises(ConfigurationError, match="'pre' or 'post', not 'before'"):
        Inventory("before")


def test_the_form_shows_all_questions_and_takes_what_is_chosen() -> None:
    pytest.importorskip("ipywidgets")
    form = Inventory("pre")
    *shown, note = form._form().children
    fields = [one for one in shown if hasattr(one, "options")]

    assert "application/vnd.jupyter.widget-view+json" in form._repr_mimebundle_()
    fields[0].value = "B"
    fields[11].value = "D"

    assert form.answers == read_answers(Path())["pre"] == {"rush_hour": "B", "thirty_parts": "D"}
    assert note.value == "2 of 12 answered before the course"
    again = [one for one in Inventory("pre")._form().children if hasattr(one, "options")]
    assert (again[0].value, again[1].value) == ("B", None)
    assert "Answer" not in repr(form) and "**" not in repr(form), "the form does not tell the answers"


BROKEN = ["", "{", "[]", '"pre"', "null", '{"pre": 5}', '{"pre": {"receipt": "E"}}', '{"post": {"unknown": "A"}}']
BROKEN += ['{"pre": {"receipt": ["A"]}}', '{"pre": ["receipt"]}', "[" * 100_000, "\x00", '{"pre": {"receipt": NaN}}']


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_a_line_in_the_report_and_loses_no_other_folder(tmp_path: Path, text: str) -> None:
    good = write(tmp_path / "ada", pre=with_right(3), post=with_right(9))
    bad = write(tmp_path / "bob")
    (bad / KEPT_IN).write_text(text)

    first, second, of_class = findings([good, bad])

    assert (first.pre, first.post, first.is_open) == (0.25, 0.75, False)
    assert second.status.startswith(f"cannot read {bad / KEPT_IN}: ") and "\n" not in second.status and second.is_open
    assert of_class.status == "mean: 1 of 2 folders"


@pytest.mark.parametrize("text", BROKEN[:4], ids=range(4))
def test_a_broken_file_is_set_aside_and_not_overwritten(text: str) -> None:
    write(Path())
    KEPT_IN.write_text(text)
    form = Inventory("pre")
    assert "cannot read runs/inventory.json: it is not an inventory" in form.note

    form.enter({"receipt": "B"})

    [aside] = Path("runs").glob("inventory-unreadable-*.json")
    assert aside.read_text() == text and str(aside) in form.note
    form.enter({"all_green": "A"})
    assert read_answers(Path())["pre"] == {"receipt": "B", "all_green": "A"}
    assert form.note == "2 of 12 answered before the course"


def test_in_a_folder_that_cannot_be_written_answers_count_until_the_kernel_ends() -> None:
    Path("runs").write_text("")  # a read-only folder does not stop root, a file in its place does
    Inventory("pre").enter({"receipt": "B"})

    form = Inventory("pre")
    assert form.answers == {"receipt": "B"}
    form.enter({"all_green": "A"})
    assert ": cannot write" in form.note
    Path("runs").unlink()
    form.enter({"rush_hour": "A"})
    assert len(read_answers(Path())["pre"]) == 3
    assert form.note == "3 of 12 answered before the course"


def test_the_gain_of_a_class_is_that_of_its_means_over_complete_folders(tmp_path: Path) -> None:
    class_of_four = [
        write(tmp_path / "ada", pre=with_right(12), post=with_right(12)),
        write(tmp_path / "bob", pre=with_right(3), post=with_right(9)),
        write(tmp_path / "cy", pre=with_right(0), post=dict(list(RIGHT.items())[:5])),
        tmp_path / "dot",
    ]
    (tmp_path / "dot").mkdir()

    ada, bob, cy, dot, of_class = findings(class_of_four)

    assert (ada.pre, ada.gain) == (1, None), "nothing to gain"
    assert bob.gain == pytest.approx(2 / 3)
    assert (cy.pre, cy.post, cy.gain) == (0, None, None)
    assert cy.status == "incomplete: 12 of 12 before the course, 5 of 12 after the course"
    assert dot.status == "incomplete: 0 of 12 before the course, 0 of 12 after the course"
    assert of_class.status == "mean: 2 of 4 folders"
    assert (of_class.pre, of_class.post, of_class.gain) == (0.625, 0.875, pytest.approx(2 / 3))
    assert not any(one.is_open for one in (ada, bob, cy, dot, of_class)), "the inventory is not graded"


def test_a_notebooks_folder_is_reported_once_and_only_with_an_inventory(tmp_path: Path) -> None:
    write(tmp_path / "ada", pre=with_right(3), post=with_right(9))
    (tmp_path / "bob").mkdir()
    notebooks = [tmp_path / name for name in ("ada/00.ipynb", "ada/01.ipynb", "bob/00.ipynb")]

    assert [one.notebook for one in findings(notebooks)] == [str(tmp_path / "ada")]
