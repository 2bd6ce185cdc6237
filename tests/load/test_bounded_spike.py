"""A spike that exceeds its queue, bounded and with deadlines: each request has a known outcome."""

import asyncio
from pathlib import Path
from typing import Any

from overload_demo.lab.job_log import PromiseRun
from overload_demo.lab.spike_plan import SpikePlan
from overload_demo.lab.spike_run import run_spike
from overload_demo.lab.stack import Stack
from overload_demo.load import Shape
from overload_demo.queue.results import Results
from overload_demo.rest.client import Upstash

REQUESTS, DELAY_S = 60, 0.02  # offered in 0.1 s; they would take 1.2 s


async def spike(folder: Path, expires_in_s: float | None = None, **settings: Any) -> tuple[PromiseRun, list[str]]:
    """Return the run, and the stored errors of jobs that were accepted and never done."""
    plan = SpikePlan(REQUESTS, 600.0, Shape.CONSTANT, expires_in_s=expires_in_s, baseline="none")
    async with await Stack.start(processing_delay_s=DELAY_S, runs=folder, **settings) as stack:
        run = PromiseRun.read("", await run_spike(stack, plan), promise_s=3600.0)
        upstash = Upstash(stack.store[0])
        results = Results(upstash, stack.settings)
        found = await results.statuses(run.log.undone_ids) if run.log.undone_ids else []
        await results.aclose()
        await upstash.aclose()
    return run, [status.error for status in found if status]


def test_a_full_queue_refuses_requests_and_completes_every_accepted_job(tmp_path: Path) -> None:
    run, errors = asyncio.run(spike(tmp_path, overload_max_queue_depth=10))

    assert run.result.verdict == "not absorbed"
    assert "status 429" in run.result.reasons[0]
    refused = run.ends["refused at once"]
    assert refused > 0
    assert run.ends == {
        "done in time": REQUESTS - refused,
        "done late": 0,
        "refused at once": refused,
        "expired": 0,
        "anything else": 0,
    }
    assert run.result.conditions.max_queue_depth == 10
    assert run.result.peak_queue_depth <= 10
    assert errors == []


def test_jobs_past_their_deadline_are_accepted_failed_and_never_run(tmp_path: Path) -> None:
    run, errors = asyncio.run(spike(tmp_path, expires_in_s=0.4))

    assert run.result.verdict == "not absorbed"
    assert f"{run.result.expired:,} accepted jobs expired" in run.result.reasons[0]
    assert run.result.expired == run.result.failed > 0
    assert run.in_time == REQUESTS - run.result.expired
    assert (run.result.accepted, run.result.lost, run.ends["anything else"]) == (REQUESTS, 0, 0)
    assert run.result.conditions.expires_in_s == 0.4
    assert errors == ["expired: not started within 0.4 s"] * run.result.expired
