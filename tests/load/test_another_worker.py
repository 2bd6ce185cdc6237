"""Another worker, started in a terminal on the stack of a notebook."""

import re
from pathlib import Path

import anyio
import httpx
import pytest

from overload_demo.lab.ledger import ledger_of, read_charges
from overload_demo.lab.stack import Stack
from tests.support.running import JOB


@pytest.mark.anyio
async def test_the_worker_command_starts_another_worker_with_equal_settings(tmp_path: Path) -> None:
    handler = "overload_demo.lab.ledger:charge"
    wanted = {"placement": "process", "processing_delay_s": 0.1, "worker_handler": handler}
    async with await Stack.start(runs=tmp_path, **wanted) as stack:
        async with httpx.AsyncClient(base_url=stack.url, headers=stack.headers, trust_env=False) as client:
            answers = [await client.post("/jobs", json=JOB) for _ in range(40)]
        ended = await anyio.run_process(f"{stack.worker_command()} --until-empty")
        charges = read_charges(ledger_of(stack.effect_log))

    [done] = re.findall(rb"stopped: (\d+) done, 0 failed", ended.stderr)
    assert 0 < int(done) < 40
    assert charges == {answer.json()["job_id"]: 1 for answer in answers}
