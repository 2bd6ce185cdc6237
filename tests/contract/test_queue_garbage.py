"""Random bytes in every key of the queue: no process fails, and every intact job is done.

Another program has written into the store: a client, another version, a failover that kept one key and lost another.
Garbage *in* a key of the queue costs at most the job it is in. With a key of another type the queue cannot work:
clients get 503 until the key is removed.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from overload_demo.config import Settings
from overload_demo.jobs import JobRequest
from overload_demo.queue.protocol import Protocol
from overload_demo.store.connect import Store
from tests.support.running import JOB, events, make_settings, serving_api, submit, wait_for, working
from tests.support.stores import Rest
from tests.support.waiting import wait_until

# The API and the worker are threads of this process and draw random numbers while hypothesis draws its own.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)

Command = Sequence[bytes]

ODD = (
    [b"", b"nan", b"-nan", b"inf", b"-inf", b"1e400", b"0x10", b"-1", b"1.5", b"1e5", b" 7", b"9" * 30, b"\xff\xfe"],
    [b"null", b"{}", b"[]", b'{"job_id":5}', b"queued", b"processing", b"done", b"failed", b"\0", b"1 w 1", b"5 a b 1"],
)
odd_bytes = st.binary(max_size=30) | st.sampled_from([*ODD[0], *ODD[1]])
# Three jobs: one that stays intact, one waiting, one whose worker is dead.
ids = st.sampled_from([b"<good>", b"<waiting>", b"<held>"]) | odd_bytes
touched = st.sampled_from([b"job:<waiting>", b"job:<held>"])
JOB_FIELDS = b"job_id payload status created_at seq idem attempts fence started_at completed_at result error"
COUNTERS = b"accepted done failed dead interrupted fence recent_jobs recent_busy_s recent_at"
job_fields, counters = st.sampled_from(JOB_FIELDS.split()), st.sampled_from(COUNTERS.split())
scores = st.sampled_from([b"0", b"-inf", b"+inf", b"1e300", b"1.5"])


def command(*parts: bytes | st.SearchStrategy[bytes]) -> st.SearchStrategy[Command]:
    return st.tuples(*(st.just(part) if isinstance(part, bytes) else part for part in parts))


garbage = st.one_of(
    command(b"HSET", touched, job_fields, odd_bytes),
    command(b"SET", touched, odd_bytes),
    command(b"DEL", touched),
    command(b"RPUSH", b"jobs:queue", ids),
    command(b"LPUSH", b"jobs:queue", ids),
    command(b"ZADD", b"jobs:leases", scores, ids),
    command(b"HSET", b"jobs:owners", ids, odd_bytes),
    command(b"RPUSH", b"jobs:dead", odd_bytes),
    command(b"HSET", b"jobs:stats", counters, odd_bytes),
    command(b"SET", b"jobs:seq", odd_bytes),
    command(b"HSET", b"jobs:workers", odd_bytes, odd_bytes),
    command(b"SET", b"idem:<record>", odd_bytes),
    command(b"HSET", b"idem:<record>", odd_bytes, odd_bytes),
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
almost_jobs = st.fixed_dictionaries(
    {"name": st.text(max_size=5) | json_values, "value": st.integers() | st.floats() | json_values},
    optional={"message": st.text(max_size=5) | json_values, "metadata": json_values},
).map(lambda value: json.dumps(value).encode())

short = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
long = settings(short, max_examples=2_000, derandomize=False, print_blob=True)


class Place:
    """A queue with an API, and a way to write bytes directly into the store."""

    def __init__(self, settings: Settings, store: Store, client: httpx.Client) -> None:
        self.settings, self.store, self.client = settings, store, client
        self.prefix = settings.overload_key_prefix
        self._rest = Rest.to(store)

    def write(self, commands: Sequence[Command], names: dict[bytes, str]) -> None:
        """Run commands of bytes, with names filled in; commands that Redis refuses are skipped."""
        lines = []
        for name, key, *arguments in commands:
            for short_name, full in names.items():
                key, *arguments = [part.replace(short_name, full.encode()) for part in (key, *arguments)]
            texts = [_lua(part) for part in (name, self.prefix.encode() + key, *arguments)]
            lines.append(f"redis.pcall({', '.join(texts)})")
        self._rest.run("EVAL", "\n".join(lines), 0)

    def sweep(self) -> None:
        script = "for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do redis.call('DEL', key) end"
        self._rest.run("EVAL", script, 0, self.prefix)

    def run(self, *command: Any) -> Any:
        return self._rest.run(*command)

    def leave_a_job_with_a_dead_worker(self) -> str:
        """The id of a job with an expired lease."""
        [job_id] = submit(self.client)
        key = Protocol(self.prefix).key
        owner = f"{self.run('HINCRBY', key('stats'), 'fence', 1)} dead token 1"
        self.run("RPOP", key("queue"))
        self.run("HSET", f"{self.prefix}job:{job_id}", "status", "processing", "attempts", 1, "started_at", "x")
        self.run("HSET", key("owners"), job_id, owner)
        self.run("ZADD", key("leases"), 1, job_id)
        return job_id


@pytest.fixture
def place(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr("overload_demo.queue.consumer.MAX_DEAD_ENTRIES", 2)
    monkeypatch.setattr("overload_demo.worker.loop.STORE_RETRY_FIRST_S", 0.01)
    own = make_settings(tmp_path, overload_store_deadline_s=30.0)
    with serving_api(own, store) as client:
        one = Place(own, store, client)
        yield one
        one.sweep()


@pytest.mark.parametrize("how", [short, pytest.param(long, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])])
def test_garbage_in_the_store_costs_only_the_job_it_is_in(tmp_path: Path, place: Place, how: settings) -> None:
    @how
    @given(commands=st.lists(garbage, min_size=1, max_size=6))
    def holds(commands: list[Command]) -> None:
        place.sweep()
        held = place.leave_a_job_with_a_dead_worker()
        waiting, *good = submit(place.client, 3)
        record = hashlib.sha256(b"key").hexdigest()
        place.write(commands, {b"<good>": good[0], b"<waiting>": waiting, b"<held>": held, b"<record>": record})

        read_everything(place.client, [*good, waiting, held])
        good += submit(place.client, 2)
        with_key = place.client.post("/jobs", json=JOB, headers={"Idempotency-Key": "key"})
        assert with_key.status_code in (202, 422)
        with working(place.settings, place.store) as worker:
            wait_for(place.client, good)
            assert worker.pid is not None
        read_everything(place.client, [*good, waiting, held])
        started = [job_id for what, job_id, _ in events(tmp_path) if what == "start"]
        assert [started.count(one) for one in good] == [1] * len(good)

    holds()


@pytest.mark.parametrize("how", [short, pytest.param(long, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])])
def test_any_bytes_as_a_payload_are_a_job_or_a_dead_letter_with_a_reason(place: Place, how: settings) -> None:
    with working(place.settings, place.store) as worker:

        @how
        @given(payloads=st.lists(almost_jobs | st.binary(max_size=200), min_size=1, max_size=8))
        def holds(payloads: list[bytes]) -> None:
            bad = [f"job_{number:032x}" for number in range(len(payloads))]
            commands: list[Command] = [(b"DEL", b"job:" + job_id.encode()) for job_id in bad]
            for job_id, payload in zip(bad, payloads, strict=True):
                fields = (b"job_id", job_id.encode(), b"payload", payload, b"status", b"queued", b"seq", b"1")
                commands += [(b"HSET", b"job:" + job_id.encode(), *fields), (b"RPUSH", b"jobs:queue", job_id.encode())]
            place.write(commands, {})
            wait_for(place.client, submit(place.client))

            for job_id, payload in zip(bad, payloads, strict=True):
                answer = place.client.get(f"/jobs/{job_id}").json()
                if is_a_job(payload):
                    assert answer["status"] == "done", answer
                else:
                    assert answer["status"] == "failed", answer
                    assert answer["error"].startswith("unreadable: ")
            assert worker.pid is not None

        holds()


def is_a_job(payload: bytes) -> bool:
    try:
        JobRequest.model_validate(json.loads(payload.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        return False
    return True


SHARED = ["queue", "leases", "owners", "dead", "stats", "workers", "seq"]


@pytest.mark.parametrize("name", SHARED)
def test_a_key_of_another_type_stops_the_queue_only_while_it_exists(
    place: Place, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """While it exists, clients get 503 and the worker retries; afterwards every accepted job is done."""
    ids = [place.leave_a_job_with_a_dead_worker(), *submit(place.client, 3)]
    key, saved = Protocol(place.prefix).key(name), Protocol(place.prefix).key("saved")
    there = place.run("EXISTS", key)
    if there:
        place.run("RENAME", key, saved)
    place.run(*(("SET", key, "x") if name != "seq" else ("RPUSH", key, "x")))
    with working(place.settings, place.store) as worker:
        answers = [place.client.post("/jobs", json=JOB), place.client.get("/queue/stats")]
        answers += [place.client.get(f"/jobs/{job_id}") for job_id in ids]
        assert {answer.status_code for answer in answers} <= {200, 202, 503}
        ids += [answer.json()["job_id"] for answer in answers[:1] if answer.status_code == 202]

        if name != "seq":  # used by the producer only
            wait_until("the worker logs the failure", lambda: "store request failed, retrying" in caplog.text)
        if there:
            place.run("RENAME", saved, key)
        else:
            place.run("DEL", key)

        wait_for(place.client, ids)
        assert worker.pid is not None


def read_everything(client: httpx.Client, job_ids: list[str]) -> None:
    """Every read gets a reply, whatever the store contains."""
    for job_id in job_ids:
        answer = client.get(f"/jobs/{job_id}")
        assert answer.status_code in (200, 404), answer.text
        json.loads(answer.text, parse_constant=pytest.fail)
    answer = client.get("/queue/stats")
    assert answer.status_code == 200, answer.text
    json.loads(answer.text, parse_constant=pytest.fail)


def _lua(data: bytes) -> str:
    """A Lua string literal of any bytes."""
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'
