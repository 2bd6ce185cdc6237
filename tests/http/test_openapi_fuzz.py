"""The published OpenAPI document against schemathesis: every response is as documented.

Boundary values, negated and random requests to every operation, unlisted methods, and walks along the links (submit,
then poll), against an API process with a worker. All checks of schemathesis must hold: no 5xx, no undocumented status,
content type, header or body, no valid request refused, no invalid one accepted.
"""

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import JOB, api_process, worker_process

# Run as ``python -m schemathesis.cli`` runs it, with settings that no document holds.
HOOKS = '''
import itertools
import os

import schemathesis

numbers = itertools.count()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Keep valid requests from refusals that are right: a key used with another body, a cancel of no job."""
    if not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = f"{next(numbers)}-{case.headers['Idempotency-Key']}"[:250] + "."
    if case.method == "DELETE":
        case.path_parameters = {"job_id": os.environ["KNOWN_JOB"]}


@schemathesis.check
def every_error_is_a_problem_document(ctx, response, case):
    if response.status_code >= 400:
        assert response.headers["content-type"] == ["application/problem+json"]
        problem = response.json()
        assert problem["status"] == response.status_code
        assert isinstance(problem["detail"], str)
'''


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("examples", "seed"),
    [
        pytest.param(60, 1, id="short"),
        pytest.param(1_500, None, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_every_response_matches_the_openapi_document(
    tmp_path: Path, examples: int, seed: int | None, own_queue: dict[str, object]
) -> None:
    seed = random.randrange(1 << 32) if seed is None else seed
    (tmp_path / "hooks.py").write_text(HOOKS)
    (tmp_path / "schemathesis.toml").write_text('hooks = "hooks.py"\n')
    with api_process(tmp_path, **own_queue) as (api, client), worker_process(tmp_path, **own_queue) as worker:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json"]
        # A DELETE cancels: the job stays to be polled, as cancelled.
        command += ["--checks=all", "--exclude-checks=use_after_free"]
        options = [f"--seed={seed}", f"--max-examples={examples}", "--generation-database=none", "--no-color"]

        environment = os.environ | {"KNOWN_JOB": client.post("/jobs", json=JOB).json()["job_id"]}

        run = subprocess.run(
            [*command, *options], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )

        assert run.returncode == 0, f"seed {seed}\n{run.stdout}\n{run.stderr}"
        assert "No issues found" in run.stdout, run.stdout
        assert int(re.findall(r"(\d+) generated", run.stdout)[0]) > 5 * examples
        assert api.pid is not None
        assert worker.pid is not None
    logs = [(tmp_path / name).read_text() for name in ("api.log", "worker.log")]
    assert not re.search("Traceback|ERROR", "".join(logs)), logs
