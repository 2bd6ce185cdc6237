"""The fault matrix: the stack under load while its parts are killed, stopped and disconnected, checked.

By default the main rows run, short; ``pytest -m slow tests/history`` runs every row, and ``python -m
tests.history`` besides records them. The seed of each is printed, and can be given with HISTORY_SEED.
"""

import os
import random
import sys
from pathlib import Path

import pytest

from experiments.fault_matrix import RowResult
from tests.history.rows import BY_NAME

# One row each for the worker, the API, the store, its answers, its disk, a node of a cluster.
MAIN_ROWS = ("F2", "F4", "F5a", "F7a", "F9", "F28")
SHORT = 0.3


def run(name: str, folder: Path, *, share: float = 1.0) -> RowResult:
    """Run a row; a machine that does not allow the fault skips it."""
    seed = int(os.environ.get("HISTORY_SEED", "0")) or random.randrange(1, 1_000_000)
    sys.stdout.write(f"HISTORY_SEED={seed}\n")
    result = BY_NAME[name].run(folder, seed, share=share)
    sys.stdout.write(result.describe() + "\n")
    if result.not_here:
        pytest.skip(result.not_here)
    return result


@pytest.mark.parametrize(
    "name", ["F4", *(pytest.param(one, marks=pytest.mark.exhaustive) for one in MAIN_ROWS if one != "F4")]
)
def test_the_main_faults_lose_no_job_and_explain_every_repetition(tmp_path: Path, name: str) -> None:
    result = run(name, tmp_path, share=SHORT)

    assert not result.wrong
    assert result.lost == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BY_NAME)
def test_the_stack_keeps_its_promises_under(tmp_path: Path, name: str) -> None:
    assert not run(name, tmp_path).wrong
