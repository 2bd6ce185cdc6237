"""Documents agree with code and records: numbers, links, settings, metrics and commands."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.main import get_command, get_group

from experiments.bench.record import RESULTS
from experiments.readme.documents import DOCUMENTS, with_blocks
from experiments.readme.recordings import all_recordings, program_of
from overload_demo.cli import application as cli
from overload_demo.config import Settings
from overload_demo.errors import OverloadDemoError

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "experiments" / "README.md"
COMMANDS = sorted({command for one in all_recordings() for command in one.commands})

SKIPPED = {".venv", "runs", "node_modules", ".pytest_cache"}
EVERY_DOCUMENT = [path for path in sorted(ROOT.rglob("*.md")) if not SKIPPED & set(path.relative_to(ROOT).parts)]

each_generated = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
each_document = pytest.mark.parametrize("path", EVERY_DOCUMENT, ids=lambda path: str(path.relative_to(ROOT)))


def links_in(path: Path) -> set[str]:
    return {link for link in re.findall(r"\]\(([^)]+)\)", path.read_text()) if not link.startswith("http")}


def anchors_in(path: Path) -> set[str]:
    headings = re.findall(r"(?m)^#+ (.+)$", path.read_text())
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def leads_somewhere(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    return target.exists() and (not anchor or anchor in anchors_in(target))


@each_generated
def test_generated_blocks_are_up_to_date(path: Path) -> None:
    assert with_blocks(path.read_text(), DOCUMENTS[path]()) == path.read_text()


@each_document
def test_every_link_leads_somewhere(path: Path) -> None:
    assert [link for link in links_in(path) if not leads_somewhere(path, link)] == []


@each_document
def test_every_variable_it_names_is_a_setting(path: Path) -> None:
    names = set(re.findall(r"`((?:UPSTASH|WORKER|QUEUE|OVERLOAD)_[A-Z_]+)`", path.read_text()))

    assert names - {name.upper() for name in Settings.model_fields} <= {"OVERLOAD_LEVEL"}


def test_every_document_can_be_reached_from_the_first_page() -> None:
    reached, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        reached.add(path)
        links = {(path.parent / link.partition("#")[0]).resolve() for link in links_in(path)}
        todo += [link for link in links if link.suffix == ".md" and link not in reached]

    assert set(EVERY_DOCUMENT) - reached == set()


def test_a_document_without_the_markers_of_a_block_is_an_error() -> None:
    with pytest.raises(OverloadDemoError, match="there is no <!-- cost:begin -->"):
        with_blocks("some text", {"cost": "a table"})


def test_every_recorded_file_is_in_the_table() -> None:
    files = {f"results/{path.name}" for path in RESULTS.iterdir()}

    assert files
    assert files - links_in(TABLE) == set()


def test_a_recording_without_a_reader_is_an_error(tmp_path: Path) -> None:
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
def test_every_program_has_help(module: str) -> None:
    outcome = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)

    assert "Usage" in outcome.stdout
