"""Notebooks as students run them: Run All twice, interrupt, kill, two at once. Nothing is lost and nothing is left."""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from nbformat import NotebookNode

from experiments.course import page_of
from overload_demo.course.exercise import exercises
from overload_demo.course.rerun import findings
from tests.browser.static import assert_a_static_page_needs_nothing
from tests.notebooks.kernels import (
    NOTEBOOKS,
    STOP,
    Kernel,
    cells,
    command_lines,
    first_spike,
    kernel,
    no_process_left,
    processes_of,
    read,
    refusal_of,
    replace,
    text_of,
)
from tests.notebooks.solutions import exercises_in, solutions_of, solve
from tests.support.waiting import wait_until

RUN_TWICE = {"00_preflight", "04_spike"}
ABSORBED = "lost 0   duplicated 0"
SLOW = {"requests": 40_000, "rate_per_s": 400, "delay_s": 0.001}  # never runs to its end
SHORT = {"requests": 300, "rate_per_s": 300}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a kernel works; fails when a process that was started for it is still there at the end."""
    with no_process_left(tmp_path):
        yield tmp_path


def without_stop(notebook: NotebookNode) -> NotebookNode:
    """The cells without the last one, which stops the stack."""
    notebook.cells = [cell for cell in notebook.cells if STOP not in cell.source]
    return notebook


def effects(folder: Path) -> int:
    """Jobs that had their effect in any run below ``folder`` so far."""
    return sum(log.read_text().count("effect ") for log in folder.glob("runs/*/run-*/effects.log"))


def wait_for_mid_spike(folder: Path) -> None:
    wait_until("the spike is under way", lambda: effects(folder) > 100, 40.0)
    assert "overload_demo.load.sender" in " ".join(command_lines(processes_of(folder)))


def url_in(text: str) -> str:
    found = re.search(r"http://127\.0\.0\.1:\d+", text)
    assert found, text
    return found[0]


def is_refused(url: str) -> bool:
    parts = urlsplit(url)
    with contextlib.suppress(OSError), socket.create_connection((parts.hostname, parts.port), timeout=2):
        return False
    return True


def assert_only_the_kernel_is_left(one: Kernel, folder: Path) -> None:
    wait_until("only the kernel is left", lambda: [p.pid for p in processes_of(folder)] == [one.pid], 15.0)


@pytest.mark.course
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_top_to_bottom_solved_and_again_as_it_is_and_leaves_nothing(path: Path, folder: Path) -> None:
    with kernel(folder) as one:
        solved = solve(read(path), path)
        text = one.run(solved)
        assert_a_static_page_needs_nothing(page_of(deepcopy(solved)), folder)

        found = {finding.item: finding.status for finding in findings(path.stem, solved)}
        assert {key: found[key] for key in exercises_in(solved)} == dict.fromkeys(exercises_in(solved), "right"), text

        if path.stem in RUN_TWICE:
            text = one.run(unsolved := read(path))
            found = {finding.item: finding.status for finding in findings(path.stem, unsolved)}
            assert {found[key] for key in exercises_in(unsolved)} == {"not done"}, "no cell needs the students' answers"
        assert_only_the_kernel_is_left(one, folder)
        assert not list(folder.glob("runs/*/store-*")), "the data of a stopped stack is removed"


def test_every_exercise_is_in_a_notebook_and_has_a_solution() -> None:
    asked = {path.stem: exercises_in(read(path)) for path in NOTEBOOKS}

    assert sorted(key for keys in asked.values() for key in keys) == sorted(exercises())
    assert asked == {path.stem: list(solutions_of(path)) for path in NOTEBOOKS}


@pytest.mark.course
def test_the_same_stack_is_used_again_and_starts_each_spike_on_an_empty_queue(folder: Path) -> None:
    with kernel(folder) as one:
        first, second = (without_stop(first_spike(**SHORT)) for _ in range(2))
        assert ABSORBED in one.run(first)
        generation = "stack._generation, len(list(stack.folder.parent.iterdir()))"
        assert one.evaluate(generation) == "(1, 1)"

        assert "accepted 300" in one.run(second)

        assert one.evaluate(generation) == "(2, 1)"
        url = one.evaluate("stack.url").strip("'")
    assert is_refused(url), "closing the kernel ends the stack"


@pytest.mark.course
def test_an_interrupted_spike_leaves_the_stack_and_the_notebook_usable(folder: Path) -> None:
    with kernel(folder) as one:
        running = one.start(without_stop(first_spike(**SLOW)))
        wait_for_mid_spike(folder)
        one.interrupt()
        assert refusal_of(running) in ("KeyboardInterrupt", "CancelledError")

        no_load = "the load has ended with its cell"
        wait_until(no_load, lambda: "load.sender" not in " ".join(command_lines(processes_of(folder))))
        assert one.evaluate("stack.restarts.total(), *stack.process_ids()") == "(0, 'kernel', 'gateway', 'redis')"

        assert ABSORBED in one.run(first_spike(**SHORT))
        assert_only_the_kernel_is_left(one, folder)


@pytest.mark.course
def test_a_start_that_is_interrupted_can_be_repeated(folder: Path) -> None:
    with kernel(folder) as one:
        notebook = first_spike(**SHORT)
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        parameters, start = code[0], next(source for source in code if "Stack.start(" in source)
        one.run(cells(parameters, "import overload_demo.lab.stack"))
        running = one.start(cells(start))
        wait_until("the store starts", lambda: "overload_demo.store" in " ".join(command_lines(processes_of(folder))))
        one.interrupt()
        assert refusal_of(running) in ("KeyboardInterrupt", "CancelledError")

        assert ABSORBED in one.run(notebook)
        assert_only_the_kernel_is_left(one, folder)


@pytest.mark.course
def test_a_spike_cell_run_after_the_stack_was_stopped_starts_it_again(folder: Path) -> None:
    with kernel(folder) as one:
        notebook = first_spike(**SHORT)
        one.run(notebook)
        spike = next(cell.source for cell in notebook.cells if "run_spike(" in cell.source)

        assert one.run(cells(spike, "result.accepted, result.lost")).endswith("(300, 0)")


@pytest.mark.course
def test_a_verdict_that_is_not_the_expected_one_stands_below_the_bars_and_in_the_figure(folder: Path) -> None:
    notebook = first_spike(**SHORT, delay_s=0.05)  # 20 jobs a second: a queue of five is full at once
    replace(notebook, 'name="notebook-04")', "overload_max_queue_depth=5)")

    with kernel(folder) as one:
        text = one.run(notebook)

    refused = r"not absorbed: [\d,]+ of 300 requests were not accepted"
    assert re.search(rf"! {refused}", text), text
    figures = [
        output.data.get("text/html", "")
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "data" in output
    ]
    assert any("<figure>" in html and re.search(refused, html, re.IGNORECASE) for html in figures)


@pytest.mark.course
def test_a_kernel_killed_in_mid_spike_leaves_no_load_store_or_redis(folder: Path) -> None:
    with kernel(folder) as one:
        running = one.start(first_spike(**SLOW))
        wait_for_mid_spike(folder)
        assert len(processes_of(folder)) >= 4, "kernel, load, gateway, redis"

        one.kill()

        wait_until("nothing is left", lambda: not processes_of(folder), 20.0)
        assert running.exception(timeout=60) is not None
    assert list(folder.glob("runs/*/store-*")) == [], "the store has removed its data and tokens"


@pytest.mark.course
def test_children_survive_an_interrupt_and_end_with_the_kernel(folder: Path) -> None:
    with kernel(folder) as one:
        notebook = replace(without_stop(first_spike(**SLOW)), 'placement="kernel"', 'placement="process"')
        running = one.start(notebook)
        wait_for_mid_spike(folder)
        parts = [
            child.pid
            for child in psutil.Process(one.pid).children()
            if {"overload_demo.api", "overload_demo.worker"} & set(child.cmdline())
        ]
        assert len(parts) == 2
        assert all(os.getpgid(pid) == os.getpgid(one.pid) for pid in parts), "the interrupt reaches them too"

        one.interrupt()

        assert refusal_of(running) in ("KeyboardInterrupt", "CancelledError")
        ids = "sorted(pid for name, pid in stack.process_ids().items() if name in ('api', 'worker'))"
        assert one.evaluate(f"dict(stack.restarts), {ids}") == f"({{}}, {sorted(parts)})"

        one.kill()
        wait_until("nothing is left", lambda: not processes_of(folder), 20.0)


@pytest.mark.course
def test_two_notebooks_side_by_side_do_not_collide(folder: Path) -> None:
    with kernel(folder) as one, kernel(folder) as other:
        runs = [each.start(first_spike(**SHORT)) for each in (one, other)]
        texts = [text_of(run.result()) for run in runs]
    assert all("accepted 300" in text and ABSORBED in text for text in texts)
    assert url_in(texts[0]) != url_in(texts[1])
    assert len(list(folder.glob("runs/*/run-1/result.json"))) == 2
