"""``OVERLOAD_MIN_REPLICAS``: a 202 or a cancellation is on a replica too, or it is no 202."""

import concurrent.futures
import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.store.connect import EmbeddedStore, check_store, open_store
from tests.crash.test_store_external_server import own_server
from tests.crash.test_stuck_store import DURABLE, Relay
from tests.history.environments import Pair, primary_and_replica
from tests.support.cases import plain_first
from tests.support.clusters import running_cluster
from tests.support.running import JOB, make_settings, serving_api, submit
from tests.support.stores import no_process_left_in, servers_of, standalone_store
from tests.support.waiting import wait_until

URL = "OVERLOAD_REDIS_URL"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with primary_and_replica(tmp_path) as one:
        yield one


@contextlib.contextmanager
def replicated_api(folder: Path, url: object, **changes: Any) -> Iterator[httpx.Client]:
    """An API that waits for one replica, in front of a server; its requests fail after a second."""
    folder.mkdir(exist_ok=True)
    own = {"overload_key_prefix": "", "overload_min_replicas": 1, "overload_store_deadline_s": 1.0}
    settings = make_settings(folder, overload_redis_url=url, **(own | changes))
    with (
        no_process_left_in(folder / "data"),
        open_store(settings) as store,
        serving_api(settings, store) as client,
    ):
        yield client


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def post(client: httpx.Client, key: str) -> httpx.Response:
    return client.post("/jobs", json=JOB, headers={"Idempotency-Key": key})


def test_a_job_that_the_replica_has_not_is_unknown_and_its_repeat_is_the_same_job(tmp_path: Path, pair: Pair) -> None:
    with replicated_api(tmp_path / "api", pair.variables[URL]) as client:
        assert client.get("/health").json()["durability"] == "always+1"
        (other,) = submit(client)
        with stopped(pair.replica.pid):
            first, repeat = post(client, "k"), post(client, "k")
            cancelled = client.delete(f"/jobs/{other}")
        again = post(client, "k")

        for refused in (first, repeat):
            # The repeat writes nothing, and the replica still lacks what the first request has written.
            assert (refused.status_code, refused.json()["outcome"]) == (503, "unknown"), refused.text
            assert "replicas that have the write: 0, not 1" in refused.json()["detail"]
        assert (cancelled.status_code, cancelled.json()["outcome"]) == (503, "unknown"), cancelled.text
        assert (again.status_code, again.json()["job_id"]) == (202, first.json()["job_id"])
        assert client.delete(f"/jobs/{other}").json()["status"] == "cancelled"
        assert client.get("/queue/stats").json()["accepted"] == 2


class Ledger:
    """What clients were told while the replica came and went: accepted and cancelled ids."""

    def __init__(self, client: httpx.Client) -> None:
        self._client, self._ends = client, threading.Event()
        self.accepted: list[str] = []
        self.cancelled: list[str] = []
        self.unknown = 0

    def run(self) -> None:
        """Post jobs one after the other, and cancel every fifth, until the end or the first lost connection."""
        with contextlib.suppress(httpx.HTTPError):
            while not self._ends.is_set():
                answer = self._client.post("/jobs", json=JOB)
                self.unknown += answer.status_code == 503
                if answer.status_code == 202:
                    self.accepted.append(answer.json()["job_id"])
                    if len(self.accepted) % 5 == 0:
                        self._cancel(self.accepted[-1])

    def _cancel(self, job_id: str) -> None:
        if self._client.delete(f"/jobs/{job_id}").status_code == 200:
            self.cancelled.append(job_id)

    def end(self) -> None:
        self._ends.set()


def test_after_the_loss_of_the_primary_the_replica_has_every_accepted_job(tmp_path: Path, pair: Pair) -> None:
    with replicated_api(tmp_path / "before", pair.variables[URL]) as client:
        ledger = Ledger(client)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            loads = [pool.submit(ledger.run) for _ in range(8)]
            wait_until("jobs are accepted", lambda: len(ledger.accepted) > 100, 20)
            with stopped(pair.replica.pid):
                wait_until("jobs are unknown", lambda: ledger.unknown, 20)
            seen = len(ledger.accepted)
            wait_until("jobs are accepted again", lambda: len(ledger.accepted) > seen + 100, 20)
            os.kill(pair.replica.pid, signal.SIGSTOP)  # it misses the primary's last moments
            unknown = ledger.unknown
            wait_until("jobs are unknown again", lambda: ledger.unknown > unknown, 20)
            pair.primary.kill()
            pair.primary.wait()
            os.kill(pair.replica.pid, signal.SIGCONT)
            ledger.end()
            for load in loads:
                load.result(20)
    with replicated_api(tmp_path / "after", pair.promote(), overload_min_replicas=0) as client:
        states = {one: client.get(f"/jobs/{one}").json().get("status") for one in ledger.accepted}
        assert set(states.values()) <= {"queued", "cancelled"}, "an accepted job is lost"
        assert {states[one] for one in ledger.cancelled} == {"cancelled"}


def test_a_full_store_still_cancels(tmp_path: Path, pair: Pair) -> None:
    with replicated_api(tmp_path / "api", pair.variables[URL]) as client:
        (job_id,) = submit(client)
        pair.ask("CONFIG", "SET", "maxmemory", "1")
        refused = client.post("/jobs", json=JOB)
        assert (refused.status_code, refused.json()["outcome"]) == (503, "not_enqueued"), refused.text
        assert client.delete(f"/jobs/{job_id}").json()["status"] == "cancelled"


def test_an_unknown_job_in_an_empty_queue_is_not_found(tmp_path: Path, pair: Pair) -> None:
    with replicated_api(tmp_path / "api", pair.variables[URL]) as client:
        assert client.delete(f"/jobs/job_{'0' * 32}").status_code == 404


def test_a_primary_that_refuses_writes_without_replicas_enqueues_nothing(tmp_path: Path) -> None:
    options = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "3"]
    with (
        primary_and_replica(tmp_path, *options) as pair,
        replicated_api(tmp_path / "api", pair.variables[URL]) as client,
    ):
        submit(client)
        with stopped(pair.replica.pid):
            wait_until("the primary misses it", lambda: "min_slaves_good_slaves:0" in pair.ask("INFO", "replication"))
            refused = client.post("/jobs", json=JOB)
        assert (refused.status_code, refused.json()["outcome"]) == (503, "not_enqueued"), refused.text
        assert "NOREPLICAS" in refused.json()["detail"]
        assert client.get("/queue/stats").json()["accepted"] == 1


@pytest.mark.exhaustive
def test_a_stopped_primary_costs_no_connections(tmp_path: Path, pair: Pair) -> None:
    def connections() -> int:
        return len(pair.ask("CLIENT", "LIST").splitlines())

    with replicated_api(tmp_path / "api", pair.variables[URL]) as client:
        submit(client, 3)
        before = connections()
        with stopped(pair.primary.pid):
            refused = [client.post("/jobs", json=JOB) for _ in range(4)]
        assert {answer.status_code for answer in refused} == {503}
        wait_until("jobs are accepted again", lambda: client.post("/jobs", json=JOB).status_code == 202, 20)
        wait_until("connections that were given up are closed", lambda: connections() <= before + 3, 20)


@pytest.mark.exhaustive
def test_silent_connections_end_with_the_shared_one(tmp_path: Path) -> None:
    with own_server(tmp_path / "own", *DURABLE) as url, contextlib.closing(Relay(url.removeprefix("unix://"))) as relay:
        with standalone_store(tmp_path / "data", OVERLOAD_REDIS_URL=relay.url) as rest:
            waiting = [["SET", "k", "v"], ["WAIT", 1, 500]]
            with concurrent.futures.ThreadPoolExecutor() as pool:
                assert {reply.status for reply in pool.map(lambda _: rest.post("/pipeline", waiting), range(2))} == {
                    200
                }
            relay.silence()
            under_way = rest.post("/pipeline", waiting)
            assert (under_way.status, "the outcome is unknown" in under_way.body["error"]) == (503, True), under_way
            wait_until("a request is served", lambda: rest.post("/", ["GET", "k"]).status == 200)
            assert rest.post("/pipeline", waiting).status == 200, "the idle one was silent too"


def test_the_death_of_the_server_ends_what_waits(tmp_path: Path) -> None:
    with standalone_store(tmp_path) as rest, concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = [["SET", "k", "v"], ["WAIT", 1, 5_000]]
        one = pool.submit(rest.post, "/pipeline", waiting)
        wait_until("it waits", lambda: "blocked_clients:1\r" in rest.run("INFO", "clients"))
        servers_of(tmp_path)[0].kill()
        assert (one.result().status, "unknown" in one.result().body["error"]) == (503, True)
        wait_until("the next one is served", lambda: rest.post("/pipeline", [["PING"], ["WAIT", 0, 1]]).status == 200)


# --- what is reported at the start


SLOW = ("does not answer: requests wait", "answers again")  # a busy machine


def log_of(folder: Path, url: object, caplog: pytest.LogCaptureFixture) -> str:
    """What the gateway and the process that starts it log about a server."""
    settings = make_settings(folder, overload_redis_url=url, overload_min_replicas=1)
    with no_process_left_in(folder / "data"), open_store(settings):
        text = (folder / "data" / "store.log").read_text() + caplog.text
    return "".join(line for line in text.splitlines(keepends=True) if not any(one in line for one in SLOW))


def test_a_sound_pair_is_used_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with primary_and_replica(tmp_path, "--min-replicas-to-write", "1") as pair:
        assert log_of(tmp_path, pair.variables[URL], caplog) == ""


@pytest.mark.parametrize(
    ("setting", "at_replica", "warning"),
    plain_first(
        [
            (("appendfsync", "everysec"), True, "is 'everysec', and it may become the primary"),
            (("min-replicas-to-write", "0"), False, "min-replicas-to-write of the server 127.0.0.1:"),
            (("appendfsync", "everysec"), False, "is 'everysec': an acknowledged job can be lost in a crash"),
            (("maxmemory", "1gb", "maxmemory-policy", "allkeys-lru"), True, "evicts keys when full"),
            (("requirepass", "secret"), True, "is 'unknown', and it may become the primary"),
        ],
        2,
    ),
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_setting_that_weakens_the_promise_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: tuple[str, ...], at_replica: bool, warning: str
) -> None:
    with primary_and_replica(tmp_path, "--min-replicas-to-write", "1") as pair:
        assert pair.ask("CONFIG", "SET", *setting, replica=at_replica) == "OK"
        lines = log_of(tmp_path, pair.variables[URL], caplog).strip().split("\n")
        assert [line for line in lines if warning not in line] == []


def test_missing_replicas_and_a_missing_config_command_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with own_server(tmp_path / "own", *DURABLE, "--rename-command", "CONFIG", "") as url:
        found = log_of(tmp_path, url, caplog)
    assert re.search(r"OVERLOAD_MIN_REPLICAS is 1, but /\S+ has 0 replicas: no job is accepted", found)
    assert re.search(r"min-replicas-to-write of the server /\S+ is unknown: with less than 1", found)
    assert "OVERLOAD_MIN_REPLICAS is 1, but replicas of shard 0: 0; until then it accepts no job" in found


def test_the_embedded_store_has_no_replicas(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, overload_min_replicas=1)
    with pytest.raises(ConfigurationError, match="OVERLOAD_MIN_REPLICAS: the embedded store with OVERLOAD_NODES=1"):
        EmbeddedStore(settings.overload_data_dir, settings).acquire()


def test_a_store_that_runs_without_replicas_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = make_settings(tmp_path)
    with no_process_left_in(tmp_path / "data"), open_store(settings) as (address, _):
        check_store(address, settings.model_copy(update={"overload_min_replicas": 1}))
    assert "OVERLOAD_MIN_REPLICAS is 1, but replicas of shard 0: 0" in caplog.text


def test_jobs_of_an_embedded_cluster_wait_for_their_replicas(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = make_settings(tmp_path, overload_key_prefix="", overload_min_replicas=1, overload_store_deadline_s=1.0)
    with (
        running_cluster(tmp_path / "data", overload_min_replicas=1) as cluster,
        serving_api(settings, cluster.store) as client,
    ):
        assert "WARNING" not in (tmp_path / "data" / "store.log").read_text() + caplog.text
        assert client.get("/health").json()["durability"] == "always+1"
        for number in cluster.replicas():
            cluster.freeze(number)
        refused = post(client, "k")
        for number in cluster.numbers:
            cluster.proceed(number)
        assert (refused.status_code, refused.json()["outcome"]) == (503, "unknown"), refused.text
        wait_until("it is accepted", lambda: post(client, "k").status_code == 202)
        assert post(client, "k").json()["job_id"] == refused.json()["job_id"]
