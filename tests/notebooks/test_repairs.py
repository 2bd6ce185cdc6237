"""The grader of notebook 09: right and wrong repairs, files that misbehave, and the picture of a counterexample."""

import asyncio
import contextlib
from pathlib import Path

import psutil
import pytest

from overload_demo.course import broken_queues, grade
from overload_demo.course.exercise import Status, check
from overload_demo.lab import plots
from overload_demo.lab.history import Grading
from tests.notebooks.wrong_repairs import BROKEN, RIGHT, SOLVED, WRONG, Repair
from tests.support.waiting import wait_until

KEYS = ("pop", "acknowledge", "fence", "idempotent", "bound", "budget")
RUN = "    result = run(job)"
HEAD = '"""Rung 1: pop, then record.\n'


def graded(path: Path) -> Grading:
    found = asyncio.run(grade(path))
    assert isinstance(found, Grading)
    wait_until("no process of the grading is left", lambda: not processes_of(path))
    return found


def processes_of(path: Path) -> list[psutil.Process]:
    """The referee, the zygote and the processes of a file; the store's working directory is a grading's."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(path) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def key_of(repair: Repair) -> str:
    return f"09.{KEYS[int(repair.file[0]) - 1]}"


some = [pytest.param(one, marks=[] if one.base == BROKEN else pytest.mark.exhaustive, id=repr(one)) for one in WRONG]


@pytest.mark.parametrize("repair", some)
def test_a_wrong_repair_gets_a_counterexample_with_a_picture_and_a_hint(tmp_path: Path, repair: Repair) -> None:
    found = graded(repair.write(tmp_path))

    assert (found.status, found.kind) == ("broken", repair.kind), repr(found)
    assert repair.story in found.story
    alt = plots.counterexample(found).alt
    assert found.broken in alt and found.steps[-1].what in alt
    verdict = check(key_of(repair), found)
    assert verdict.status is Status.NOT_YET
    hint = verdict.text.partition(f"{found.broken}. ")[2] or verdict.text
    assert len(hint) > 30, "a hint beside what was broken"


@pytest.mark.parametrize("repair", [pytest.param(one, marks=pytest.mark.exhaustive, id=repr(one)) for one in RIGHT])
def test_a_right_repair_holds(tmp_path: Path, repair: Repair) -> None:
    found = graded(repair.write(tmp_path))

    assert found.status == "holds", repr(found)
    assert check(key_of(repair), found).status is Status.RIGHT


def test_two_gradings_at_once_do_not_disturb_each_other() -> None:
    async def both() -> list[Grading]:
        return list(await asyncio.gather(grade(SOLVED / "4_idempotent.py"), grade(BROKEN / "1_pop.py")))

    one, other = asyncio.run(both())

    assert (one.status, other.kind, other.is_changed) == ("holds", "lost", False)


MISBEHAVING = {
    "loops": ((RUN, "    while True:\n        pass"), "loops"),
    "forks for ever": (
        (
            RUN,
            "    import os\n    while True:\n        try: os.fork()\n        except BaseException: pass",
        ),
        "starts a process",
    ),
    "deletes the store": ((RUN, "    store.flushall()"), "deletes or changes the whole store"),
    "calls eval without a script": ((RUN, "    store.eval()"), "wrong number of arguments"),
    "deletes its files": ((RUN, "    import shutil\n    shutil.rmtree('.')"), "changes files"),
    "prints a megabyte": ((RUN, "    print('x' * 1_000_000)"), "prints more than 10,000 characters"),
    "takes all memory": ((RUN, "    x = 'x' * 10**12"), "MemoryError"),
    "kills the referee": ((RUN, "    import os\n    os.kill(os.getppid(), 9)"), "sends a signal"),
    "ends itself": ((RUN, "    import os\n    os._exit(0)"), "ends its own process"),
    "raises": ((RUN, "    result = run(jb)"), "NameError in line 17"),
    "misspells a command": ((RUN, "    store.hgett('x')"), "unknown command"),
    "waits for the store": ((RUN, "    store.blpop('x', 0)"), "neither waits"),
    "has a syntax error": (("def work(store, run):", "def work(store, run)"), "SyntaxError in line 12"),
    "has another signature": (("def work(store, run):", "def work(store):"), "cannot be called as work(store, run)"),
    "has no work": (("def work(", "def werk("), "has no function work(store, run)"),
    "is no text": ((HEAD, "\0" + HEAD), "null bytes"),
}
MORE = {  # another way to the same reason, or slow
    "loops over the store": ((RUN, "    while True:\n        store.llen('queue')"), "loops"),
    "runs a program": ((RUN, "    import subprocess\n    subprocess.run(['true'])"), "starts a process"),
    "writes files": ((RUN, "    open('x', 'w')"), "changes files"),
    "waits for something else": ((RUN, "    import threading\n    threading.Event().wait()"), "waits for something"),
    "runs an endless script": ((RUN, "    store.eval('while true do end', 0)"), "a script that does not end"),
}
cases = [pytest.param(*case, id=name) for name, case in MISBEHAVING.items()]
cases += [pytest.param(*case, id=name, marks=pytest.mark.exhaustive) for name, case in MORE.items()]


@pytest.mark.parametrize(("edit", "reason"), cases)
def test_a_file_that_misbehaves_is_ended_and_the_reason_is_one_line(
    tmp_path: Path, edit: tuple[str, str], reason: str
) -> None:
    found = graded(Repair("1_pop.py", "misbehaves", edits=(edit,)).write(tmp_path))

    assert found.status == "ended"
    assert reason in found.broken and "\n" not in found.broken
    assert reason in check("09.pop", found).text
    assert list(tmp_path.iterdir()) == [tmp_path / "1_pop.py"]
    assert plots.counterexample(found).alt == repr(found)


@pytest.mark.parametrize(
    ("answer", "reason"), [(5, "the path of a file"), ("other.py", "one of 1_pop.py"), ("x/1_pop.py", "cannot read")]
)
def test_what_is_no_repair_is_named(answer: object, reason: str) -> None:
    found = asyncio.run(grade(answer))

    assert (found.status, reason in found.broken) == ("ended", True)


def test_no_answer_is_not_done() -> None:
    assert asyncio.run(grade(...)) is ...


def test_the_copies_of_a_student_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, *_ = broken_queues()
    first.write_text("# mine")

    copies = broken_queues()

    assert copies[0].read_text() == "# mine"
    assert [copy.name for copy in copies] == sorted(path.name for path in BROKEN.iterdir())
    copies[0].unlink()
    assert broken_queues()[0].read_text() == (BROKEN / "1_pop.py").read_text()


@pytest.mark.parametrize("path", [*BROKEN.glob("*.py"), *SOLVED.glob("*.py")], ids=lambda path: path.name)
def test_a_queue_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 40


def test_what_a_file_prints_stands_below_the_picture(tmp_path: Path) -> None:
    printing = Repair("1_pop.py", "prints", edits=((RUN, "    print('took', job)\n" + RUN),), base=BROKEN)

    found = graded(printing.write(tmp_path))

    assert "took j1" in plots.counterexample(found).caption
