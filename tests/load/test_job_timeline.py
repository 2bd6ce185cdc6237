"""One job, followed as a client does and read from the store."""

from pathlib import Path

import httpx
import pytest

from overload_demo.errors import ConfigurationError, OverloadDemoError
from overload_demo.lab import plots
from overload_demo.lab.job_log import follow, read_life
from overload_demo.lab.stack import Stack
from tests.support.running import JOB


@pytest.mark.anyio
async def test_a_job_is_followed_to_its_end_and_its_times_are_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # no proxy listens there
    async with await Stack.start(processing_delay_s=0.1, runs=tmp_path) as stack:
        async with httpx.AsyncClient(base_url=stack.url, headers=stack.headers, trust_env=False) as client:
            job_id = (await client.post("/jobs", json=JOB)).json()["job_id"]
            seen = await follow(stack, job_id)
            answer = (await client.get(f"/jobs/{job_id}")).json()
        job = await read_life(stack, answer)
        invalid = [await read_life(stack, one) for one in (..., 42, "job_0", {}, {"job_id": 7})]
        with pytest.raises(OverloadDemoError, match="404"):
            await follow(stack, "job_0")

    assert seen[-1][1] == "done"
    assert job is not None
    assert (job.job_id, job.status, job.payload["value"]) == (job_id, "done", JOB["value"])
    moments = job.seconds()
    assert 0 == moments["accepted"] <= moments["started"] <= moments["completed"]
    assert invalid == [None] * 5
    picture = plots.life(job)
    assert f"completed at {moments['completed']:.3f} s" in picture.alt
    assert "The 202 was predicted after 0.500 s" in plots.life(job, answer_s=0.5).alt
    with pytest.raises(ConfigurationError, match="not ended"):
        plots.life(job.model_copy(update={"completed_at": ""}))
