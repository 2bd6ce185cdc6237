"""The main promises of overload_demo, one test each.

Reading tour 13 of 13; the end. Look for what each test kills, delays or fills. Question: which promise of the
README would you test next?
"""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from overload_demo.config import Settings
from overload_demo.jobs import JobState
from overload_demo.lab.job_log import read_effects, reconcile
from overload_demo.store.connect import Store
from tests.support.running import (
    JOB,
    api_process,
    events,
    make_settings,
    serving_api,
    status,
    store_processes,
    submit,
    wait_for,
    worker_process,
    working,
)
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

POISON = """
import os

def handle(payload):
    if payload["name"] == "poison":
        os._exit(139)
    return {}
"""


def test_an_accepted_job_is_done_and_its_result_kept(settings: Settings, store: Store) -> None:
    """202 now, the result later, under the same id."""
    with serving_api(settings, store) as client, working(settings, store):
        answer = client.post("/jobs", json=JOB)
        job_id = answer.json()["job_id"]

        wait_for(client, [job_id])

        echo = client.get(f"/jobs/{job_id}").json()["result"]["input_echo"]
        assert echo == JOB | {"processed_value": 84}
        assert isinstance(echo["processed_value"], int)


def test_a_202_is_on_disk(tmp_path: Path) -> None:
    """Kill the API and the store's two processes right after the 202: the job is still stored."""
    with api_process(tmp_path) as (api, client):
        [job_id] = submit(client)

        for pid in store_processes(tmp_path)[::-1]:  # the server first: it would end with the gateway
            os.kill(pid, signal.SIGKILL)
        api.kill()
        api.start()

        wait_until("the store is back with the job", lambda: status(client, job_id) == "queued")


def test_an_accepted_job_survives_a_killed_worker(tmp_path: Path) -> None:
    """``kill -9`` in the middle of a job: the restarted worker runs it again at once, not after the lease."""
    with api_process(tmp_path) as (_, client), worker_process(tmp_path, WORKER_PROCESSING_DELAY=1.0) as worker:
        [job_id] = submit(client)
        wait_until("the job has started", lambda: ("start", job_id, 1) in events(tmp_path))

        worker.kill()
        worker.start()

        wait_until("it is started again", lambda: ("start", job_id, 2) in events(tmp_path))
        wait_for(client, [job_id])
        assert [event for event in events(tmp_path) if event[0] == "effect"] == [("effect", job_id, 2)]


def test_a_killed_api_loses_no_accepted_job(tmp_path: Path) -> None:
    """A job with a 202 before the kill is done after it."""
    with api_process(tmp_path) as (api, client), worker_process(tmp_path):
        before = submit(client, 20)

        api.kill()
        api.start()

        client.close()
    with api_process(tmp_path) as (_, again), worker_process(tmp_path):
        after = submit(again, 5)
        wait_for(again, before + after)


def test_jobs_are_done_in_order_one_at_a_time(settings: Settings, store: Store, tmp_path: Path) -> None:
    """First in, first out, one at a time."""
    with serving_api(settings, store) as client:
        ids = submit(client, 30)
        with working(settings, store):
            wait_for(client, ids)

    expected = [event for job_id in ids for event in (("start", job_id, 1), ("effect", job_id, 1))]
    assert events(tmp_path) == expected


def test_a_waiting_job_never_expires_and_a_finished_one_does(tmp_path: Path, store: Store) -> None:
    """The time to live counts from the end of a job."""
    settings = make_settings(tmp_path, queue_result_ttl=1)
    with serving_api(settings, store) as client:
        [job_id] = submit(client)
        wait_until("longer than the TTL has passed", lambda: oldest_age_s(client) > 1.5)
        assert status(client, job_id) == "queued"

        with working(settings, store):
            wait_until("the job has expired", lambda: client.get(f"/jobs/{job_id}").status_code == 404)


def test_a_job_that_kills_its_worker_becomes_a_dead_letter(tmp_path: Path) -> None:
    """Three attempts, then it is a dead letter with a reason; the jobs behind it are done, once each."""
    (tmp_path / "poison.py").write_text(POISON)
    with api_process(tmp_path) as (_, client):
        others = submit(client, 10)
        [poison] = submit(client, 1, name="poison")
        others += submit(client, 10)
        with worker_process(tmp_path, WORKER_HANDLER="poison:handle") as worker:
            for attempt in (1, 2, 3):
                wait_until(f"attempt {attempt} killed the worker", lambda: worker.pid is None)
                assert ("start", poison, attempt) in events(tmp_path)
                worker.start()
            wait_for(client, others)
            wait_for(client, [poison], "failed")

        assert "interrupted 3 times" in client.get(f"/jobs/{poison}").json()["error"]
        assert client.get("/queue/stats").json()["dead"] == 1


def test_a_handler_that_raises_fails_its_job_and_nothing_else(tmp_path: Path) -> None:
    """An exception fails the job at once, without a retry, and the worker continues."""
    (tmp_path / "picky.py").write_text("def handle(payload):\n    return 1 / payload['value']\n")
    with api_process(tmp_path) as (_, client), worker_process(tmp_path, WORKER_HANDLER="picky:handle"):
        bad, good = submit(client, 2)
        wait_for(client, [good])

        assert client.get(f"/jobs/{bad}").json() == {
            "status": "failed",
            "job_id": bad,
            "error": "ZeroDivisionError: division by zero",
        }


def test_a_late_worker_changes_nothing(tmp_path: Path) -> None:
    """A worker resumes after its lease: another one has done the job, and that result stays."""
    gate = tmp_path / "gate"
    slow = {"WORKER_HANDLER": "tests.support.handlers:wait_for_file", "WORKER_LEASE_S": 1, "PYTHONPATH": ROOT}
    with api_process(tmp_path) as (_, client), worker_process(tmp_path, WORKER_ID="late", **slow) as late:
        [job_id] = submit(client, message=str(gate))
        wait_for(client, [job_id], "processing")
        assert late.pid is not None
        os.kill(late.pid, signal.SIGSTOP)
        gate.touch()

        with worker_process(tmp_path, WORKER_ID="quick", **slow):
            wait_for(client, [job_id])
        first = client.get(f"/jobs/{job_id}").json()
        os.kill(late.pid, signal.SIGCONT)

        wait_until("the late worker logs its lost lease", lambda: "came too late" in late.log.read_text())
        assert client.get(f"/jobs/{job_id}").json() == first
        assert client.get("/queue/stats").json()["done"] == 1


def test_the_same_idempotency_key_gives_the_same_job(settings: Settings, store: Store) -> None:
    """A client that repeats a request gets the first answer again, and the job is done once."""
    with serving_api(settings, store) as client:
        first, second = (client.post("/jobs", json=JOB, headers={"Idempotency-Key": '"a-1"'}) for _ in range(2))
        other = client.post("/jobs", json=JOB | {"value": 43}, headers={"Idempotency-Key": '"a-1"'})

        assert (first.status_code, second.status_code, other.status_code) == (202, 202, 422)
        assert first.json() == second.json()
        assert client.get("/queue/stats").json()["accepted"] == 1


def test_a_bounded_queue_refuses_exactly(tmp_path: Path, store: Store) -> None:
    """A hundred requests at once with room for twenty: twenty are accepted, eighty get 429 and Retry-After."""
    settings = make_settings(tmp_path, overload_max_queue_depth=20)
    with serving_api(settings, store) as client, ThreadPoolExecutor(25) as crowd:
        answers = list(crowd.map(lambda _: client.post("/jobs", json=JOB), range(100)))

        assert sorted(answer.status_code for answer in answers) == [202] * 20 + [429] * 80
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.json()["outcome"] == "not_enqueued"
        assert client.get("/queue/stats").json()["queue_length"] == 20


def test_a_full_store_refuses_new_jobs_and_still_drains(tmp_path: Path) -> None:
    """A full store refuses enqueue and loses nothing; the accepted jobs are done, which makes room again."""
    big = {"message": "x" * 60_000}
    with api_process(tmp_path, OVERLOAD_MAXMEMORY="6mb", QUEUE_RESULT_TTL=1) as (_, client):
        ids = []
        while (answer := client.post("/jobs", json=JOB | big)).status_code == 202:
            ids.append(answer.json()["job_id"])
        assert answer.status_code == 503
        assert answer.json()["outcome"] == "not_enqueued"
        assert int(answer.headers["Retry-After"]) >= 1

        with worker_process(tmp_path, OVERLOAD_MAXMEMORY="6mb", QUEUE_RESULT_TTL=1):
            stats = "/queue/stats"
            wait_until("all is done", lambda: client.get(stats).json()["done"] == len(ids), timeout_s=30.0)
            wait_until("there is room again", lambda: client.post("/jobs", json=JOB | big).status_code == 202, 20.0)


def test_a_reconciliation_reports_each_kind_of_error(tmp_path: Path) -> None:
    """a is done once, b twice, c never ended, d failed, e is unknown to the store, f ran but got no 202."""
    states = {"a": JobState.DONE, "b": JobState.DONE, "c": JobState.QUEUED, "d": JobState.FAILED}
    log = tmp_path / "effects.log"
    log.write_text("start a 1 .1\neffect a 1 .2\neffect b 1 .3\neffect b 2 .4\neffect f 1 .5\neffect e 1 .6")

    account = reconcile(["a", "b", "c", "d", "e"], read_effects(log), states)

    assert (account.done, account.failed, account.lost, account.duplicated, account.unclaimed) == (2, 1, 2, 1, 1)
    assert account.examples == ["lost c", "lost e", "duplicated b"]


def oldest_age_s(client: httpx.Client) -> float:
    return float(client.get("/queue/stats").json()["oldest_age_s"])
