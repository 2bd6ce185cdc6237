"""``overload_demo.lab``: one line imports what a notebook needs, and nothing is loaded before it is used."""

import subprocess
import sys

import pytest

from overload_demo import lab


@pytest.mark.parametrize("name", dir(lab))
def test_each_offered_name_can_be_imported(name: str) -> None:
    exec(f"from overload_demo.lab import {name}")


def test_the_command_loads_no_drawing_library() -> None:
    code = "import sys, overload_demo.lab, overload_demo.cli.application; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_unknown_name_is_an_import_error() -> None:
    with pytest.raises(ImportError):
        exec("from overload_demo.lab import nothing_of_that_name")
