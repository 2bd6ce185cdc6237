"""The README cannot drift: its numbers come from the recorded runs, its paths and commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.readme import with_numbers
from overload_demo.config import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_numbers_are_those_of_the_recorded_runs() -> None:
    assert with_numbers(README) == README


def test_every_path_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_variable_it_names_is_a_setting() -> None:
    names = set(re.findall(r"`((?:UPSTASH|WORKER|QUEUE|OVERLOAD)_[A-Z_]+)`", README))

    assert names
    assert names - {name.upper() for name in Settings.model_fields} <= {"OVERLOAD_LEVEL"}


@pytest.mark.parametrize(
    "module", ["overload_demo", "overload_demo.api", "overload_demo.worker", "overload_demo.store"]
)
def test_every_door_has_help(module: str) -> None:
    outcome = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)

    assert "Usage" in outcome.stdout
