"""The rows of the fault matrix: F1 to F34, and all of them together."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

import httpx
import psutil

from tests.history.checker import Verdict
from tests.history.cluster_rows import CLUSTER_ROWS
from tests.history.environments import (
    Clock,
    Pair,
    Versions,
    little_memory,
    primary_and_replica,
    shifted_clock,
    small_disk,
    two_versions,
)
from tests.history.injection import Tracing, append_only_file, full, send_and_hold, slow_fsync, store_stopped
from tests.history.machine import needs
from tests.history.matrix import LOSS_OF_WRITES, Fault, Row
from tests.history.scenario import Scenario

EVERYSEC = {"OVERLOAD_DURABILITY": "everysec"}


def wait(seconds: float) -> None:
    """Wait while the load goes on."""
    threading.Event().wait(seconds)


# ---- faults: one at a time


def kill_the_api(run: Scenario) -> None:
    run.kill(run.api)


def kill_a_worker(run: Scenario) -> None:
    run.kill(run.random.choice(run.workers))


def kill_redis(run: Scenario) -> bool:
    return run.kill_store("redis")


def kill_the_gateway(run: Scenario) -> bool:
    return run.kill_store("gateway")


def kill_something(run: Scenario) -> bool:
    kill: Fault = run.random.choice([kill_the_api, kill_a_worker, kill_a_worker, kill_redis, kill_the_gateway])
    return kill(run) is not False


def stop_a_worker_for_longer_than_its_lease(run: Scenario) -> None:
    worker = run.random.choice(run.workers)
    assert worker.pid is not None
    run.pause(worker.pid, 1.6)


def stop_the_store(which: str, for_s: float, run: Scenario) -> None:
    run.pause(run.store_pid(which), for_s)


def kill_redis_in_a_slow_fsync(run: Scenario) -> None:
    needs("strace")
    redis = run.store_pid("redis")
    with slow_fsync(run, 1.5), run.inject("fsync slow"):
        wait(run.random.uniform(1.2, 2.6))
        with run.inject("redis killed"):
            os.kill(redis, signal.SIGKILL)
    run.start()


def lose_power(run: Scenario) -> None:
    """Kill every process at once and cut the file to its durable part."""
    tracing = Tracing(run)
    wait(run.random.uniform(0.3, 1.2))
    file = append_only_file(run.folder)
    processes = [run.api.pid, *(worker.pid for worker in run.workers), *map(run.store_pid, ("gateway", "redis"))]
    with run.inject("power lost"):
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in filter(None, processes):
                os.kill(pid, number)
        for part in (run.api, *run.workers):
            part.kill()
        os.truncate(file, file.stat().st_size - tracing.not_durable())
        run.start(run.api, *run.workers)


def tear_the_file(run: Scenario) -> None:
    """Leave half a command at the end of the file, as a server killed in mid-write: it was not acknowledged."""
    with run.inject("killed in mid-write"), store_stopped(run):
        with append_only_file(run.folder).open("ab") as file:
            file.write(b"*5\r\n$4\r\nHSET\r\n$8\r\njob:torn\r\n$6\r\nstat")
    run.start()


def fill_the_memory(run: Scenario) -> None:
    with run.inject("no memory"):
        run.in_redis("CONFIG", "SET", "maxmemory", 1)
        wait(0.5)
        run.in_redis("CONFIG", "SET", "maxmemory", 0)


def fill_the_disk(run: Scenario) -> None:
    redis = run.store_pid("redis")
    with run.inject("no space"), full(run.folder):
        wait(3.0)
        assert not psutil.pid_exists(redis), "the server never met the full disk"
    run.start()


def write_garbage(run: Scenario) -> None:
    """Write entries that are no jobs into the queue, as another program would."""
    number = run.random.randrange(1 << 30)
    with run.inject("garbage"):
        run.in_redis("SET", f"job:text{number}", "no hash")
        run.in_redis("HSET", f"job:half{number}", "status", "queued", "payload", '{"name":')
        run.in_redis("HSET", f"job:bytes{number}", "status", "queued", "payload", "\x00\x01{", "seq", "x")
        run.in_redis("LPUSH", "jobs:queue", f"text{number}", f"half{number}", f"bytes{number}", f"gone{number}")


def jump_an_hour(run: Scenario) -> None:
    with run.inject("the clock jumps"):
        ahead_s = run.random.choice([-3600, 0, 3600])
        assert isinstance(run.environment, Clock)
        run.environment.set(ahead_s)
        shown = httpx.get(f"{run.url}/queue/stats", trust_env=False).json()["timestamp"]
        shift_s = (datetime.fromisoformat(shown) - datetime.now(UTC)).total_seconds()
        assert abs(shift_s - ahead_s) < 60, "the API's clock did not jump"


def fail_over(run: Scenario) -> None:
    assert isinstance(run.environment, Pair)
    run.environment.cut_off_the_replica()
    wait(run.random.uniform(0.2, 0.6))
    with run.inject("failed over"):
        run.environment.fail_over()


def replace_every_process(run: Scenario) -> None:
    """Let the parent replace the API processes; stop and start each worker."""
    assert run.api.pid is not None
    with run.inject("rolling restart"):
        os.kill(run.api.pid, signal.SIGHUP)
        for worker in run.workers:
            worker.stop()
            worker.start()


def change_version(run: Scenario) -> None:
    """Switch the API and a random worker to the older or this version, at random."""
    assert isinstance(run.environment, Versions)
    with run.inject("other version"):
        run.change_version(run.random.choice([None, run.environment.older]))


def send_bad_bodies(run: Scenario) -> None:
    bodies = [
        b'{"name": "n", "value": NaN, "message": "m"}',
        b'{"name": "n", "value": 1e999, "message": "m"}',
        b'{"name": "\\ud800", "value": 1, "message": "m"}',
        b'{"name": "n", "value": "1", "message": "m"}',
        b'{"name": "n", "value": 1, "message": "m", "metadata": ' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
        b"[" * 60_000,
        b'{"name": "' + b"x" * 200_000 + b'"}',
        b"",
        b"\xff\xfe",
    ]
    with run.inject("bad bodies"), httpx.Client(base_url=run.url, trust_env=False) as client:
        for body in bodies:
            answer = client.post("/jobs", content=body, headers={"Content-Type": "application/json"})
            assert 400 <= answer.status_code < 500, (body[:60], answer.status_code)


# ---- faults that last while the load runs


@contextmanager
def all_the_while(name: str, run: Scenario) -> Iterator[None]:
    with run.inject(name):
        yield


@contextmanager
def over_a_network(run: Scenario, **faults: float) -> Iterator[None]:
    with run.inject("network"):
        vars(run.network).update(faults)
        yield
        vars(run.network).update(dict.fromkeys(faults, 0.0))


BAD_REQUESTS = [
    b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\n{",
    b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50,
    b"GET /" + b"a" * 100_000,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"G",
    b"",
]


@contextmanager
def bad_connections(run: Scenario) -> Iterator[None]:
    links: list[socket.socket] = []
    with run.inject("bad connections"):
        try:
            for _ in range(50):
                links += send_and_hold(run.url, BAD_REQUESTS)
            yield
        finally:
            for link in links:
                link.close()


# ---- further checks of rows


def poison_is_dead(run: Scenario, verdict: Verdict) -> str:
    stats = httpx.get(f"{run.url}/queue/stats", trust_env=False).json()
    expected = verdict.counts["attempted"] // POISON_EVERY
    return "" if stats["dead"] == expected else f"{stats['dead']} jobs are dead, not {expected}"


def foreign_entries_are_dead(run: Scenario, _: Verdict) -> str:
    stats = httpx.get(f"{run.url}/queue/stats", trust_env=False).json()
    return "" if stats["dead"] else "the garbage is not in the dead-letter list"


POISON_EVERY = 100
BOUND, ALREADY_THERE, AT_ONCE = 100, 40, 1000


def race_for_the_last_places(run: Scenario) -> None:
    """Submit everything at once without a worker; then start one."""
    with run.inject("race"):
        run.fire(AT_ONCE, clients=AT_ONCE, rate_per_s=0.0)
    run.add_worker()


def exactly_the_bound(_: Scenario, verdict: Verdict) -> str:
    accepted = verdict.counts["acknowledged"]
    return "" if accepted == BOUND else f"{accepted} were accepted, not {BOUND}"


CROWD = 100_000


def a_crowd(run: Scenario) -> None:
    """Open all sockets at the same moment, from processes outside the control group."""
    with run.inject("crowd"):
        run.fire_at_once(CROWD)


def count_faults(run: Scenario) -> int:
    return run.network.faults


LOSSY = {"network": True}
KILL_9 = "SIGKILL, started again"
ROWS = [
    Row("F1", "API killed", KILL_9, kill_the_api, every_s=0.8, recovers_by="ok"),
    Row("F2", "worker killed in mid-job", KILL_9, kill_a_worker, every_s=0.6, recovers_by="start"),
    Row(
        "F3a",
        "worker dies with a lease in hand, nothing started",
        "ends itself after 3 % of its leases",
        lambda run: run.restart_ended_workers(),
        every_s=0.2,
        setup={"exits": "after_lease 0.03"},
        fired=lambda run: run.restarted,
        recovers_by="start",
    ),
    Row(
        "F3b",
        "worker dies between the effect of a job and its settling",
        "ends itself after 0.5 % of its jobs",
        lambda run: run.restart_ended_workers(),
        every_s=0.2,
        setup={"exits": "after_effect 0.005"},
        fired=lambda run: run.restarted,
        recovers_by="start",
    ),
    Row("F4", "gateway killed", "SIGKILL", kill_the_gateway, every_s=1.2, recovers_by="ok"),
    Row("F5a", "Redis killed, fsync always", "SIGKILL", kill_redis, every_s=0.8, recovers_by="ok"),
    Row(
        "F5b",
        "Redis killed, fsync each second",
        "SIGKILL",
        kill_redis,
        every_s=0.8,
        setup=EVERYSEC,
        recovers_by="ok",
        may=LOSS_OF_WRITES,
    ),
    Row(
        "F6a", "Redis killed during a slow fsync, always", "strace: fsync + 1.5 s; SIGKILL", kill_redis_in_a_slow_fsync
    ),
    Row(
        "F6b",
        "Redis killed during a slow fsync, each second",
        "strace: fsync + 1.5 s; SIGKILL",
        kill_redis_in_a_slow_fsync,
        setup=EVERYSEC,
        may=LOSS_OF_WRITES,
    ),
    Row(
        "F7a",
        "power lost, fsync always",
        "SIGKILL of all; file cut at its last completed fsync (strace)",
        lose_power,
        jobs=3000,
        recovers_by="ok",
    ),
    Row(
        "F7b",
        "power lost, fsync each second",
        "SIGKILL of all; file cut at its last completed fsync (strace)",
        lose_power,
        jobs=3000,
        setup=EVERYSEC,
        recovers_by="ok",
        may=LOSS_OF_WRITES,
    ),
    Row(
        "F8", "Redis killed in mid-write", "SIGKILL; half a command at the end of the file", tear_the_file, every_s=1.0
    ),
    Row(
        "F9",
        "answers of the store lost after the commit",
        "proxy resets 10 %",
        setup=LOSSY,
        around=partial(over_a_network, loses_answers=0.1),
        fired=count_faults,
        runs_once=True,
    ),
    Row(
        "F10",
        "requests to the store lost before the commit",
        "proxy resets 10 %",
        setup=LOSSY,
        around=partial(over_a_network, drops_requests=0.1),
        fired=count_faults,
        runs_once=True,
    ),
    Row(
        "F11a",
        "store slow",
        "proxy holds answers for 0.4 s",
        jobs=500,
        setup=LOSSY,
        around=partial(over_a_network, delay_s=0.4),
        fired=lambda run: len(run.network.sizes),
        runs_once=True,
        all_accepted=True,
    ),
    Row(
        "F11b",
        "Redis hangs for longer than every timeout",
        "SIGSTOP for 7 s",
        partial(stop_the_store, "redis", 7.0),
        every_s=3.0,
        jobs=3000,
    ),
    Row(
        "F12",
        "gateway accepts, and never answers",
        "SIGSTOP for 7 s",
        partial(stop_the_store, "gateway", 7.0),
        every_s=3.0,
        jobs=3000,
    ),
    Row(
        "F13",
        "garbage for an answer",
        "proxy replaces 5 %: HTML, cut JSON, wrong shape, a false length, no HTTP",
        setup=LOSSY,
        around=partial(over_a_network, spoils_answers=0.05),
        fired=count_faults,
        runs_once=True,
    ),
    Row("F14a", "Redis has no memory left", "maxmemory 1 for 0.5 s", fill_the_memory, every_s=1.0, runs_once=True),
    Row(
        "F14b",
        "disk full",
        "tmpfs filled for 3 s",
        fill_the_disk,
        every_s=1.5,
        jobs=3000,
        environment=partial(small_disk, megabytes=32),
    ),
    Row(
        "F15",
        "foreign and broken entries in the queue",
        "written at its head: wrong type, no data, half JSON, bytes",
        write_garbage,
        runs_once=True,
        all_accepted=True,
        foreign_entries=True,
        also=foreign_entries_are_dead,
    ),
    Row(
        "F16",
        "worker hangs for longer than its lease, another goes on",
        "SIGSTOP for 1.6 s, lease 1 s",
        stop_a_worker_for_longer_than_its_lease,
        every_s=0.3,
        jobs=3000,
        setup={"workers": 2},
    ),
    Row("F17", "one of two workers killed", KILL_9, kill_a_worker, every_s=0.4, setup={"workers": 2}),
    Row(
        "F18",
        "poison job: ends its worker",
        "1 % of the jobs",
        lambda run: run.restart_ended_workers(),
        every_s=0.2,
        jobs=800,
        setup={"load": {"poison_every": POISON_EVERY}},
        fired=lambda run: run.restarted,
        also=poison_is_dead,
    ),
    Row(
        "F19",
        "clock of API and worker jumps by an hour",
        "preloaded clock_gettime",
        jump_an_hour,
        setup=LOSSY,
        environment=shifted_clock,
        runs_once=True,
        all_accepted=True,
    ),
    Row(
        "F20",
        "failover to a replica that received nothing for a while",
        "replica SIGSTOP for 0.2 to 0.6 s, both SIGKILL, replica promoted",
        fail_over,
        every_s=1.5,
        jobs=3000,
        environment=primary_and_replica,
        recovers_by="ok",
        may=LOSS_OF_WRITES,
    ),
    Row(
        "F21",
        "API with 256 descriptors, 1,000 clients",
        "RLIMIT_NOFILE",
        jobs=4000,
        setup={"descriptors": 256, "load": {"clients": 1000, "rate_per_s": 0.0}},
        around=partial(all_the_while, "256 descriptors"),
        fired=lambda run: 1,
        runs_once=True,
        all_accepted=True,
    ),
    Row(
        "F22",
        "400 bad connections: silent, half, endless, smuggled requests",
        "raw sockets held open",
        around=bad_connections,
        fired=lambda run: 50 * len(BAD_REQUESTS),
        runs_once=True,
        all_accepted=True,
    ),
    Row(
        "F23",
        f"{CROWD:,} sockets at once, everything within 512 MB",
        "memory control group around API, worker, gateway and Redis",
        jobs=100,
        setup={"WORKER_LEASE_S": 5.0},
        environment=partial(little_memory, megabytes=512),
        afterwards=a_crowd,
        fired=lambda run: 1,
        runs_once=True,
        all_accepted=True,
    ),
    Row(
        "F24",
        "rolling restart of two API processes and two workers",
        "SIGHUP to the parent; workers stopped and started",
        replace_every_process,
        every_s=2.0,
        jobs=3000,
        setup={"api_processes": 2, "workers": 2},
        runs_once=True,
        all_accepted=True,
    ),
    Row(
        "F25",
        "bodies that are no jobs",
        "NaN, surrogates, depth, size, wrong types, bytes",
        send_bad_bodies,
        runs_once=True,
        all_accepted=True,
    ),
    Row(
        "F26",
        f"race of {AT_ONCE:,} for the last {BOUND - ALREADY_THERE} of {BOUND} places",
        f"{AT_ONCE:,} clients at once",
        jobs=ALREADY_THERE,
        setup={"workers": 0, "OVERLOAD_MAX_QUEUE_DEPTH": BOUND},
        afterwards=race_for_the_last_places,
        fired=lambda run: 1,
        runs_once=True,
        also=exactly_the_bound,
    ),
    Row(
        "F27",
        "the failover of F20, and a 202 waits for the replica",
        "replica SIGSTOP for 0.2 to 0.6 s, both SIGKILL, replica promoted; OVERLOAD_MIN_REPLICAS=1",
        fail_over,
        every_s=1.5,
        jobs=3000,
        environment=primary_and_replica,
        setup={"OVERLOAD_MIN_REPLICAS": 1},
        recovers_by="ok",
        may=LOSS_OF_WRITES - {"lost", "unknown id"},  # settlements do not wait for the replica
    ),
    *CLUSTER_ROWS,
    Row(
        "versions",
        "this version and the one before side by side, back and forth",
        "API and a worker stopped, started from the other package",
        change_version,
        every_s=1.2,
        jobs=2000,
        environment=two_versions,
        setup={"workers": 2},
        runs_once=True,
    ),
    Row(
        "all",
        "everything at random",
        "SIGKILL of API, worker, Redis, gateway",
        kill_something,
        every_s=2.0,
        jobs=100_000,
        setup={"load": {"job_s": 0.0002, "clients": 64, "rate_per_s": 1200.0}},
        recovers_by="ok",
    ),
]
BY_NAME = {row.name: row for row in ROWS}
