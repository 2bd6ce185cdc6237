"""The documents cannot drift: their numbers come from the recorded runs, their paths and commands exist."""

import importlib
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from prometheus_client import generate_latest
from typer.main import get_command, get_group

from experiments.bench.record import RESULTS
from experiments.readme.documents import DOCUMENTS, with_blocks
from experiments.readme.recordings import all_recordings, program_of
from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.cli.application import application as cli
from overload_demo.config import Settings
from overload_demo.errors import OverloadDemoError
from overload_demo.queue.results import QueueStats
from overload_demo.worker.worker_metrics import WorkerMetrics

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "experiments" / "README.md"
COMMANDS = sorted({command for one in all_recordings() for command in one.commands})

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def links_in(path: Path) -> set[str]:
    return set(re.findall(r"\]\(([^)#:]+)\)", path.read_text()))


@each_document
def test_the_numbers_are_those_of_the_recorded_runs(path: Path) -> None:
    assert with_blocks(path.read_text(), DOCUMENTS[path]()) == path.read_text()


@each_document
def test_every_path_it_links_to_exists(path: Path) -> None:
    assert [link for link in links_in(path) if not (path.parent / link).exists()] == []


@each_document
def test_every_variable_it_names_is_a_setting(path: Path) -> None:
    names = set(re.findall(r"`((?:UPSTASH|WORKER|QUEUE|OVERLOAD)_[A-Z_]+)`", path.read_text()))

    assert names - {name.upper() for name in Settings.model_fields} <= {"OVERLOAD_LEVEL"}


def test_the_table_of_metrics_names_exactly_those_that_are_told() -> None:
    stats = QueueStats(*[0] * len(fields(QueueStats)))
    by_api, _ = ApiMetrics().exposition(stats, "")
    by_worker = generate_latest(WorkerMetrics().metrics)
    told = set(re.findall(r"^# TYPE (\S+)", (by_api + by_worker).decode(), re.MULTILINE))

    assert set(re.findall(r"`(overload_[a-z_]+)[`{ ]", (ROOT / "README.md").read_text())) == told


def test_a_document_without_the_place_of_a_block_is_an_error() -> None:
    with pytest.raises(OverloadDemoError, match="there is no <!-- cost:begin -->"):
        with_blocks("some text", {"cost": "a table"})


def test_every_recorded_file_is_in_the_table() -> None:
    files = {f"results/{path.name}" for path in RESULTS.iterdir()}

    assert files
    assert files - links_in(TABLE) == set()


def test_a_recording_that_nobody_can_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "something_new.json").write_text("{}")

    with pytest.raises(OverloadDemoError, match=r"something_new\.json"):
        all_recordings(tmp_path)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_that_made_a_recording_still_exists_and_takes_its_options(command: str) -> None:
    words = shlex.split(command)
    if words[0] == "overload-demo":
        get_group(cli.app).commands[words[1]].make_context(words[1], words[2:])
        return
    program, app = importlib.import_module(program_of(command)), typer.Typer()
    app.command()(program.main)
    get_command(app).make_context(command, words[3:])  # reads the options, and runs nothing


def test_a_command_whose_program_is_gone_is_an_error() -> None:
    with pytest.raises(OverloadDemoError, match="no program"):
        program_of("python -m experiments.gone --rounds 3")


@pytest.mark.parametrize(
    "module", ["overload_demo", "overload_demo.api", "overload_demo.worker", "overload_demo.store"]
)
def test_every_door_has_help(module: str) -> None:
    outcome = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)

    assert "Usage" in outcome.stdout
