"""The vendor's clients for Node work on the embedded store as on the cloud; Node runs each file."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.stores import Rest
from tests.vendor.node import HERE, workshop

PROGRAMS = sorted(HERE.glob("*.mjs"))


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest) -> Path:
    return workshop(request.config.cache)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_the_clients_for_node(rest: Rest, folder: Path, tmp_path: Path, program: Path) -> None:
    # Node looks for packages in the folders above a program, wherever it is started.
    shutil.copy(program, tmp_path)
    (tmp_path / "node_modules").symlink_to(folder / "node_modules")
    variables = {"URL": rest.url, "TOKEN": rest.token, "READ_ONLY_TOKEN": rest.read_only_token}
    outcome = subprocess.run(
        ["node", "--test", "--test-reporter=tap", program.name],
        cwd=tmp_path,
        env=os.environ | {f"UPSTASH_REDIS_REST_{name}": value for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "\n# pass 0\n" not in outcome.stdout
