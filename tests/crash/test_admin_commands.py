"""``overload-demo queue``: pause, resume, reconcile and the dead-letter list, at a terminal."""

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from overload_demo.queue.consumer import LeaseEnd
from overload_demo.store.connect import open_store
from tests.support.cases import plain_first
from tests.support.commands import run_module
from tests.support.network import Network
from tests.support.queues import Queue, open_queue, settled
from tests.support.running import JOB, environment, free_port, make_settings

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    """The queue of the commands' data directory; the store is held, so that no command has to start one."""
    settings = make_settings(tmp_path, overload_key_prefix="")
    with open_store(settings) as store:
        async with open_queue(settings, store) as one:
            yield one


def run(folder: Path, *arguments: str, answer: str = "", **variables: object) -> "subprocess.CompletedProcess[str]":
    env = environment(folder, COLUMNS=40, **variables)
    return run_module("overload_demo", "queue", *arguments, env=env, cwd=folder, input=answer)


def output_of(folder: Path, *arguments: str, answer: str = "", **variables: object) -> str:
    """Return the output of a command that must succeed with nothing on stderr."""
    outcome = run(folder, *arguments, answer=answer, **variables)
    assert (outcome.returncode, outcome.stderr) == (0, ""), outcome
    return outcome.stdout


def the_error(outcome: "subprocess.CompletedProcess[str]") -> str:
    [line] = outcome.stderr.splitlines()
    assert outcome.returncode == 1
    assert line.startswith("error: ")
    return line


async def die(queue: Queue, count: int) -> list[str]:
    ids = await queue.enqueue(count)
    worker = queue.worker("killer")
    jobs = (await worker.lease(count)).jobs
    await worker.settle([settled(job, LeaseEnd.DEAD, "unreadable: [b]no[/b] job") for job in jobs])
    return ids


async def test_dead_jobs_are_shown_requeued_and_purged(tmp_path: Path, queue: Queue) -> None:
    first, second, third, fourth = await die(queue, 4)

    listed = output_of(tmp_path, "dead", "list").splitlines()
    assert [line.split("  ")[0] for line in listed] == [first, second, third, fourth]
    assert listed[0].endswith("unreadable: [b]no[/b] job")
    assert len(output_of(tmp_path, "dead", "list", "--limit", "2").splitlines()) == 2
    shown = json.loads(output_of(tmp_path, "dead", "show", first))
    assert (shown["status"], shown["payload"]) == ("failed", JOB)

    for _ in range(2):
        assert output_of(tmp_path, "dead", "requeue", first, first) == "1 job requeued\n"
    assert await queue.waiting() == [first]
    assert output_of(tmp_path, "dead", "requeue", "--all") == "3 jobs requeued\n"
    assert await queue.waiting() == [first, second, third, fourth]
    assert output_of(tmp_path, "dead", "list") == "the dead-letter list is empty\n"

    ids = await die(queue, 3)
    assert run(tmp_path, "dead", "purge", answer="n\n").returncode == 1
    assert len(await queue.dead_letters()) == len(ids)
    assert output_of(tmp_path, "dead", "purge", answer="y\n").endswith("dead jobs purged\n")
    assert output_of(tmp_path, "dead", "purge", "--yes") == "0 dead jobs purged\n"


async def test_jobs_that_cannot_be_requeued_are_one_line_and_the_others_are_requeued(
    tmp_path: Path, queue: Queue
) -> None:
    [good] = await die(queue, 1)
    [gone, done] = await queue.enqueue(2)
    await queue.redis("DEL", f"job:{gone}")
    worker = queue.worker()
    await worker.settle([settled(job) for job in (await worker.lease(2)).jobs])

    outcome = run(tmp_path, "dead", "requeue", gone, good, done, "job_0")

    error = the_error(outcome)
    assert outcome.stdout == "1 job requeued\n"
    assert f"{gone}: its payload is gone" in error
    assert f"{done}: it is done" in error
    assert "job_0: no such job" in error
    assert await queue.waiting() == [good]
    assert [letter["job_id"] for letter in await queue.dead_letters()] == [gone]


@pytest.mark.parametrize("arguments", plain_first([["requeue"], ["requeue", "job_1", "--all"], ["show", "job_1"]]))
async def test_a_mistake_is_a_one_line_error(tmp_path: Path, queue: Queue, arguments: list[str]) -> None:
    the_error(run(tmp_path, "dead", *arguments))


async def test_lost_keys_are_repaired_and_reported(tmp_path: Path, queue: Queue) -> None:
    ids = await queue.enqueue(3)
    assert output_of(tmp_path, "reconcile") == "nothing to repair\n"
    await queue.redis("DEL", "jobs:queue", "jobs:seq")

    assert output_of(tmp_path, "reconcile").splitlines() == [
        "1  sequence number was behind the jobs: raised",
        "3  waiting jobs that were not in the list: put at its tail",
    ]

    assert set(await queue.waiting()) == set(ids)
    assert output_of(tmp_path, "reconcile") == "nothing to repair\n"


async def test_the_queue_pauses_and_resumes(tmp_path: Path, queue: Queue) -> None:
    [job_id] = await queue.enqueue(1)
    for _ in range(2):
        assert "paused" in output_of(tmp_path, "pause")
    assert (await queue.results.stats()).paused
    assert (await queue.worker().lease(1)).jobs == []

    for _ in range(2):
        assert output_of(tmp_path, "resume") == "queue resumed\n"

    assert [job.job_id for job in (await queue.worker().lease(1)).jobs] == [job_id]


COMMANDS = [["dead", "list"], ["dead", "show", "x"], ["dead", "requeue", "--all"], ["dead", "purge", "--yes"]]


@pytest.mark.parametrize("command", plain_first([*COMMANDS, ["reconcile"], ["pause"], ["resume"]]), ids=" ".join)
def test_an_unreachable_store_is_a_one_line_error(tmp_path: Path, command: list[str]) -> None:
    nowhere = {
        "UPSTASH_REDIS_REST_URL": f"http://127.0.0.1:{free_port()}",
        "UPSTASH_REDIS_REST_TOKEN": "s3cret-token",
        "OVERLOAD_STORE_DEADLINE_S": 0.3,
    }
    assert "cannot be reached" in the_error(run(tmp_path, *command, **nowhere))


async def test_the_commands_use_the_store_of_the_settings(tmp_path: Path, queue: Queue) -> None:
    """Upstash's two variables win over the data directory."""
    with Network((queue.upstash.address, None)).serving() as network:
        address = network.store[0]
        elsewhere = {
            "UPSTASH_REDIS_REST_URL": address.url,
            "UPSTASH_REDIS_REST_TOKEN": address.token.get_secret_value(),
            "OVERLOAD_DATA_DIR": tmp_path / "another",
        }
        output_of(tmp_path, "pause", **elsewhere)

    assert (await queue.results.stats()).paused
    assert not (tmp_path / "another").exists()


async def test_a_command_waits_for_a_dead_shard_only_briefly_and_is_carried_out_in_the_others(
    tmp_path: Path, queue: Queue
) -> None:
    with Network((queue.upstash.address, None)).serving() as network:
        address = network.store[0]
        two_shards = {
            "UPSTASH_REDIS_REST_URL": f"{address.url},http://127.0.0.1:{free_port()}",
            "UPSTASH_REDIS_REST_TOKEN": f"{address.token.get_secret_value()},another-token",
            "OVERLOAD_STORE_DEADLINE_S": 60,  # the command would take longer than this test waits for it
        }
        outcome = run(tmp_path, "pause", **two_shards)

    assert "shard 1: the store cannot be reached" in the_error(outcome)
    assert (await queue.results.stats()).paused
