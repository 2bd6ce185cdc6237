"""The checker finds each broken promise. CI runs this as its own job (``pytest -m mutants``)."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.history.mutants import MUTANTS
from tests.history.rows import BY_NAME

pytestmark = pytest.mark.mutants

REVEALED_BY = {
    "a bare pop": "F2",
    "no fence": "F16",
    "an enqueue that is not idempotent": "F9",
    "202 before the commit": "F1",
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_queue_with_a_broken_promise_is_found(tmp_path: Path, name: str) -> None:
    mutant, row = MUTANTS[name], BY_NAME[REVEALED_BY[name]]
    broken = replace(row, setup=row.setup | {"package": mutant.build(tmp_path / "mutant")})

    results = []
    for go in ("first", "second"):  # a fault hits the broken place by chance
        folder = tmp_path / go
        folder.mkdir()
        result = broken.run(folder, random.randrange(1, 1_000_000))
        if any(kind in result.wrong for kind in mutant.shows_as):
            return
        results.append(result.describe())
    pytest.fail("\n".join(results))
