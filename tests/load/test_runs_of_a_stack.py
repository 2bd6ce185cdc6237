"""Spikes on one stack: separate files, a separate key, and an interrupt of the naive part loses nothing."""

import asyncio
import threading
from pathlib import Path

import httpx
import psutil
import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.lab.job_log import JobLog
from overload_demo.lab.result import SpikeResult
from overload_demo.lab.spike_plan import SpikePlan, SpikeProgress
from overload_demo.lab.spike_run import run_spike
from overload_demo.lab.stack import Stack
from overload_demo.live.dashboard import Dashboard
from overload_demo.live.sources import spike_text
from overload_demo.load import calibrate
from tests.support.running import JOB, files_below
from tests.support.waiting import wait_until_async

PLAN = SpikePlan(60, 300, baseline="none")
pytestmark = pytest.mark.anyio


async def test_a_worker_that_stands_still_leaves_jobs_not_ended_and_none_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overload_demo.lab.spike_run.STUCK_AFTER_S", 1.0)
    async with await Stack.start(placement="process", processing_delay_s=0.01, runs=tmp_path) as stack:
        worker = psutil.Process(stack.process_ids()["worker"])
        worker.suspend()
        result = await run_spike(stack, PLAN)
        worker.resume()

    assert (result.verdict, result.lost, result.unended, result.examples) == ("not absorbed", 0, 60, [])
    assert result.reasons == ["60 accepted jobs had not ended when the run did"]
    assert "60 accepted, 0 lost, 60 not ended. " in spike_text(result)


@pytest.mark.exhaustive
async def test_a_spike_waits_for_a_worker_that_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overload_demo.lab.spike_run.STUCK_AFTER_S", 3.0)
    settings = {"placement": "process", "processing_delay_s": 0.01, "worker_lease_s": 1.0, "runs": tmp_path}
    async with await Stack.start(**settings) as stack:  # type: ignore[arg-type]
        stack.kill("worker", hold=True)
        asyncio.get_running_loop().call_later(6.0, stack.held.discard, "worker")

        result = await run_spike(stack, PLAN)

    assert (result.verdict, result.done) == ("absorbed", 60), result.reasons


@pytest.mark.exhaustive
async def test_each_run_of_a_stack_keeps_separate_files(tmp_path: Path) -> None:
    async with await Stack.start(processing_delay_s=0.0, runs=tmp_path) as stack:
        first = await run_spike(stack, PLAN)
        assert first.folder is not None
        before = {path: path.read_bytes() for path in first.folder.iterdir()}
        second = await run_spike(stack, SpikePlan(90, 300, baseline="none"))

    assert second.folder is not None and second.folder != first.folder
    assert {path.name for path in before} >= {"result.json", "load.npz", "load.json", "effects.log"}
    assert {path: path.read_bytes() for path in before} == before, "the first run's files stay as they were"
    assert [JobLog.read(one.folder).offered for one in (first, second) if one.folder] == [60, 90]
    assert SpikeResult.read(second.folder / "result.json") == second


async def test_a_stack_requires_its_own_key_and_every_client_of_the_lab_sends_it(tmp_path: Path) -> None:
    async with await Stack.start(processing_delay_s=0.0, runs=tmp_path, name="keyed") as stack:
        async with httpx.AsyncClient(base_url=stack.url, trust_env=False) as keyless:
            answers = [await keyless.post("/jobs", json=JOB)]
            answers += [await keyless.get(path) for path in ("/jobs/job_0", "/queue/stats", "/metrics")]
            known = await keyless.post("/jobs", json=JOB, headers=stack.headers)
        assert ([answer.status_code for answer in answers], known.status_code) == ([401] * 4, 202)
        assert stack.get("/queue/stats")["rest_calls"] > 0
        assert await calibrate(stack.url, 2.0, 2, api_key=stack.api_key) > 0
        assert (await run_spike(stack, PLAN)).accepted == 60
        assert stack.api_key is not None
        key = stack.api_key.get_secret_value()

    kept = [path for path, content in files_below(tmp_path).items() if key.encode() in content]
    assert (kept, key in repr(vars(stack))) == ([], False)


async def test_a_stack_can_be_started_without_a_key(tmp_path: Path) -> None:
    async with await Stack.start(processing_delay_s=0.0, runs=tmp_path, own_key=False) as stack:
        async with httpx.AsyncClient(base_url=stack.url, headers=stack.headers, trust_env=False) as client:
            assert (stack.headers, (await client.post("/jobs", json=JOB)).status_code) == ({}, 202)


async def test_an_interrupt_of_the_naive_part_keeps_the_finished_result(tmp_path: Path) -> None:
    async with await Stack.start(processing_delay_s=0.0, runs=tmp_path) as stack:

        def interrupt(progress: SpikeProgress) -> None:
            if progress.stage == "baseline":
                running.cancel()

        running = asyncio.create_task(run_spike(stack, SpikePlan(60, 300, baseline="live"), interrupt))
        result = await running

    assert (result.accepted, result.lost, result.baseline) == (60, 0, None)
    assert (result.baseline_source, result.baseline_note) == ("none", "interrupted before its end")
    assert result.folder is not None
    assert SpikeResult.read(result.folder / "result.json") == result


@pytest.mark.exhaustive
async def test_a_live_view_run_repeatedly_serves_one_page_and_none_after_the_stack(tmp_path: Path) -> None:
    def held() -> tuple[int, int, int]:
        names = [thread.name for thread in threading.enumerate()]
        listening = [one for one in psutil.Process().net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        return names.count("live-page"), len(listening), len(asyncio.all_tasks())

    before = held()
    async with await Stack.start(processing_delay_s=0.0, runs=tmp_path) as stack:
        for _ in range(5):
            live = Dashboard("again")
        assert held()[0] == before[0] + 1
        result = await run_spike(stack, PLAN, live=live)
        assert result.conditions.dashboard == "on"

    async def is_as_before() -> bool:
        return held() == before

    await wait_until_async("threads, listeners and tasks are those of before", is_as_before)


async def test_a_run_folder_that_cannot_be_created_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")  # root can write into a read-only folder, but not below a file

    with pytest.raises(ConfigurationError, match=rf"run folder in {tmp_path / 'runs'}: .*runs= of Stack\.start"):
        await Stack.start(runs=tmp_path / "runs")


async def test_a_stack_a_round_trip_away_counts_what_it_sends_and_leaves_no_data(tmp_path: Path) -> None:
    far = {"processing_delay_s": 0.0, "round_trip_s": 0.01, "overload_max_batch": 3}
    async with await Stack.start(runs=tmp_path, **far) as stack:
        assert stack.cloud is not None
        assert stack.get("/health")["durability"] == "unknown"
        before = stack.cloud.exchanges
        result = await run_spike(stack, PLAN)
        assert (result.accepted, result.lost, result.conditions.durability) == (60, 0, "unknown")
        assert stack.cloud.exchanges - before >= 20, "60 jobs in calls of at most 3"
        assert stack.cloud.commands >= stack.cloud.exchanges
        assert await Stack.start(runs=tmp_path, **far) is stack, "equal arguments return the running stack"

    assert not list(tmp_path.glob("*/store-*"))
