"""An error that a student can cause, and a stopped cell, are a sentence; any other error keeps its traceback."""

from pathlib import Path

import pytest

from tests.notebooks.kernels import Kernel, cells, kernel, no_process_left, refusal_of, text_of
from tests.support.waiting import wait_until

IMPORTS = "from overload_demo.course import by_level\nfrom overload_demo.lab import RetryPolicy"
LOOP = (
    "from pathlib import Path\n\ndef student():\n    Path('runs').mkdir(exist_ok=True)\n    while True:\n        pass"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def shown(one: Kernel, *sources: str) -> list[str]:
    """The lines that the cells show; the last one may fail."""
    notebook = cells(*sources)
    one.start(notebook).exception(timeout=60)
    return text_of(notebook).strip().splitlines()


def test_an_error_that_a_student_can_cause_is_a_sentence_and_the_line_of_the_cell(folder: Path) -> None:
    with no_process_left(folder), kernel(folder) as one:
        said, where = shown(one, IMPORTS, "policy = 1\npolicy = RetryPolicy(attempts=0)")

        assert said == "ConfigurationError: attempts: Input should be greater than or equal to 1, not 0"
        assert where == "Cell In[2], line 2: policy = RetryPolicy(attempts=0)"
        assert len(shown(one, "%tb")) > 5, "the traceback is still there"
        said, where = shown(one, "number = 1\nprint(stack)")
        assert said.startswith("NameError: name 'stack' is not defined. Is it misspelled, or was a cell above not run")
        assert where.endswith(", line 2: print(stack)")
        assert any("ZeroDivisionError" in line for line in shown(one, "1 / 0"))
        assert len(shown(one, "1 / 0")) > 3


def test_a_loop_of_a_student_that_is_stopped_names_its_line(folder: Path) -> None:
    with no_process_left(folder), kernel(folder) as one:
        notebook = cells(IMPORTS, LOOP, "student()")
        running = one.start(notebook)
        wait_until("it loops", lambda: (folder / "runs").is_dir())
        one.interrupt()

        assert refusal_of(running) == "KeyboardInterrupt", "Run All ends here"
        assert text_of(notebook).splitlines()[0] == "Stopped (■). You can run the cell again."
        assert "Cell In[2], line 5: while True:" in text_of(notebook) or "line 6: pass" in text_of(notebook)


def test_a_cell_that_only_waits_can_be_stopped(folder: Path) -> None:
    with no_process_left(folder), kernel(folder) as one:
        running = one.start(
            cells(IMPORTS, "import asyncio, pathlib\npathlib.Path('runs').mkdir()\nawait asyncio.sleep(99)")
        )
        wait_until("it waits", lambda: (folder / "runs").is_dir())
        one.interrupt()

        assert refusal_of(running) == "CancelledError", "long before the wait is over"
