"""Several gateways, each with an API and a worker, on one cluster: one queue, also while a gateway is killed."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from overload_demo.lab.ledger import ledger_of, read_charges
from overload_demo.lab.parts import store_processes
from overload_demo.load import LoadPlan, LoadResult, Shape, run_load
from tests.support.clusters import running_cluster
from tests.support.running import child, free_port, status, worker_process
from tests.support.waiting import wait_until

JOBS, RATE_PER_S = 1_500, 300.0  # of each API
SHARDS = 12


@contextmanager
def machine(folder: Path, api_processes: int, **variables: object) -> Iterator[httpx.Client]:
    """One gateway with its API and worker, as on a machine of its own; yields a client of the API."""
    folder.mkdir()
    port, charging = free_port(), {"WORKER_HANDLER": "overload_demo.lab.ledger:charge", **variables}
    arguments = ("--port", str(port), "--processes", str(api_processes))
    api = child("overload_demo.api", *arguments, folder=folder, **variables)
    with worker_process(folder, **charging), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as client:
        api.start()
        try:
            wait_until("the API is ready", lambda: is_ready(client), 20.0)
            yield client
        finally:
            api.stop()


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def stats(client: httpx.Client) -> dict[str, int]:
    return dict(client.get("/queue/stats").raise_for_status().json())


def load(client: httpx.Client) -> LoadResult:
    plan = LoadPlan(str(client.base_url), requests=JOBS, rate_per_s=RATE_PER_S, shape=Shape.CONSTANT, processes=1)
    return asyncio.run(run_load(plan))


@pytest.mark.exhaustive
@pytest.mark.parametrize("gateways", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_gateways_of_one_cluster_are_one_queue_and_a_killed_one_loses_nothing(tmp_path: Path, gateways: int) -> None:
    folders = [tmp_path / f"machine-{number}" for number in range(gateways)]
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster(tmp_path / "nodes", overload_min_replicas=1))
        variables = {"OVERLOAD_REDIS_URL": cluster.url(SHARDS), "OVERLOAD_MIN_REPLICAS": 1}
        apis = [
            stack.enter_context(machine(folder, 1 + (folder == folders[0]), **variables)) for folder in folders
        ]  # the first has two API processes
        killed = store_processes(folders[0] / "data")["gateway"]
        with ThreadPoolExecutor(gateways) as pool:
            loads = [pool.submit(load, api) for api in apis]
            wait_until("a third is accepted", lambda: stats(apis[-1])["accepted"] > JOBS * gateways / 3)
            os.kill(killed, signal.SIGKILL)
            results = [one.result() for one in loads]
        accepted = [job_id for result in results for job_id in result.accepted_ids]
        wait_until(
            "the queue is empty", lambda: stats(apis[0])["queue_length"] == stats(apis[0])["in_flight"] == 0, 60.0
        )
        shown = Counter(status(apis[1], one) for one in results[0].accepted_ids[:300])
        sums = [stats(api) for api in apis]
        assert store_processes(folders[0] / "data")["gateway"] != killed

    charges = [read_charges(ledger_of(folder / "effects.log")) for folder in folders]
    times = sum(charges, Counter[str]())
    assert [len(result.accepted_ids) for result in results[1:]] == [JOBS] * (gateways - 1), "no other gateway refuses"
    assert len(results[0].accepted_ids) > JOBS / 2
    assert set(accepted) <= times.keys(), "no accepted job is lost"
    assert set(times.values()) == {1}, "no job is done twice"
    assert all(charges), "each worker took part"
    assert shown == {"done": 300}, "the second API knows the jobs of the first"
    assert len({one["accepted"] for one in sums}) == 1
    assert sums[0]["accepted"] == sums[0]["done"] == times.total()
