"""Common parts of all command lines: a version, help that fits a terminal, and completion."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from overload_demo import __version__
from tests.support.commands import run_module

COMMANDS = [
    ["overload_demo"],
    *(["overload_demo", name] for name in ("spike", "watch", "check", "reset", "queue")),
    *(["overload_demo", "queue", name] for name in ("reconcile", "pause", "resume", "dead")),
    *(["overload_demo", "queue", "dead", name] for name in ("list", "show", "requeue", "purge")),
    *([f"overload_demo.{name}"] for name in ("api", "worker", "store", "load", "live")),
]


def run(*arguments: str, **variables: str) -> str:
    run = run_module(*arguments, env=os.environ | variables)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_no_sentence_is_cut_off(command: list[str]) -> None:
    lines = run(*command, "--help", COLUMNS="80").splitlines()

    assert max(map(len, lines)) <= 80
    assert not [line for line in lines[1:] if line.endswith("...")]
    paragraphs = "\n".join(lines).split("\n\n")
    prose = [one.splitlines() for one in paragraphs[1:] if not re.match(r"\w+:\n", one)]
    assert not [line for one in prose for line in one[:-1] if len(line) < 50], "a line ends in its middle"


def test_the_version_is_shown() -> None:
    assert run("overload_demo", "--version") == f"overload-demo {__version__}\n"


@pytest.mark.exhaustive
def test_completion_can_be_installed_and_completes(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = Path(sys.executable).with_name("overload-demo")
    installed = subprocess.run(
        [script, "--install-completion", "bash"], env=os.environ | home, capture_output=True, text=True, timeout=60
    )
    asked = {"_OVERLOAD_DEMO_COMPLETE": "complete_bash", "COMP_WORDS": "overload-demo queue re", "COMP_CWORD": "2"}
    completed = subprocess.run([script], env=os.environ | asked, capture_output=True, text=True, timeout=60)

    assert installed.returncode == 0, installed.stderr
    assert "overload" in (tmp_path / ".bashrc").read_text()
    assert completed.stdout.split() == ["resume", "reconcile"]
