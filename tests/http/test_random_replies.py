"""Random replies in the place of those of a real store: the API answers 503, and the worker continues.

The store carries out each request, but its reply arrives as other bytes, other JSON, half of it, or with flipped bits.
No job is lost by that, and none is enqueued twice.
"""

import json
import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overload_demo.lab.parts import WorkerThread
from overload_demo.store.connect import Store
from tests.support.network import Network
from tests.support.running import JOB, make_settings, serving_api, working
from tests.support.waiting import wait_until

# The API and the worker are threads of this process and draw random numbers while hypothesis draws its own.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)

Falsify = Callable[[bytes], bytes]
Scene = tuple[Network, httpx.Client, WorkerThread]

short = settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
middle = settings(short, max_examples=30)
long = settings(short, max_examples=1_500, derandomize=False, print_blob=True)


def framed(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def answered(value: object) -> Falsify:
    """Random JSON, as the result of a command and of all commands of a pipeline."""
    one, all_ = ({"result": value}, [{"result": value}] * 2)
    return lambda answer: framed(json.dumps(all_ if b"\r\n\r\n[" in answer else one).encode())


def with_bits_turned(seed: int) -> Falsify:
    def falsify(answer: bytes) -> bytes:
        chance, spoilt = random.Random(seed), bytearray(answer)
        for _ in range(chance.randint(1, 4)):
            spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
        return bytes(spoilt)

    return falsify


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.sampled_from("+!f=0"),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
falsehoods = st.one_of(
    st.binary(max_size=100).map(lambda data: lambda _: data),
    st.binary(max_size=100).map(lambda data: lambda _: framed(data)),
    json_values.map(lambda value: lambda _: framed(json.dumps(value).encode())),
    json_values.map(answered),
    st.integers(0, 300).map(lambda size: lambda answer: answer[:size]),
    st.integers(0, 1 << 30).map(with_bits_turned),
)


@pytest.fixture
def scene(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """An API and a worker, with a network between them and their store."""
    monkeypatch.setattr("overload_demo.worker.loop.STORE_RETRY_FIRST_S", 0.01)
    # A lease of an accepted false reply returns when it expires.
    own = make_settings(tmp_path, overload_store_deadline_s=0.1, worker_lease_s=1.0)
    with (
        Network(store).serving() as network,
        serving_api(own, network.store) as client,
        working(own, network.store) as worker,
    ):
        yield network, client, worker


@pytest.mark.parametrize(
    "how",
    [
        short,
        pytest.param(middle, marks=pytest.mark.exhaustive),
        pytest.param(long, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)]),
    ],
    ids=["short", "middle", "long"],
)
def test_any_reply_of_the_store_is_survived_by_api_and_worker(scene: Scene, how: settings) -> None:
    network, client, worker = scene
    posted: list[httpx.Response] = []

    @how
    @given(falsify=falsehoods)
    def holds(falsify: Falsify) -> None:
        before = accepted(client)
        network.falsify = falsify
        try:
            posted.append(client.post("/jobs", json=JOB))
            answers = [
                posted[-1],
                client.get(f"/jobs/{before}"),
                client.get("/queue/stats"),
                client.get("/health/ready"),
            ]
        finally:
            network.falsify = None
        for answer in answers:
            assert answer.status_code in (200, 202, 404, 429, 503), answer.text
            json.loads(answer.text, parse_constant=pytest.fail)
            if answer.status_code == 503:
                assert answer.headers["content-type"] == "application/problem+json"
                assert int(answer.headers["retry-after"]) >= 1
        if posted[-1].status_code == 503:
            assert posted[-1].json()["outcome"] in ("not_enqueued", "unknown")
        wait_until("its payload was read, or could not be", lambda: is_finished(client, before))
        assert worker.pid is not None

    holds()

    wait_until("the store answers", lambda: client.get("/queue/stats").status_code == 200)
    enqueued = client.get("/queue/stats").json()["accepted"] - len(posted)  # as many came before each of them
    assert sum(answer.status_code == 202 for answer in posted) <= enqueued <= len(posted)


def accepted(client: httpx.Client) -> str:
    """The id of a job that is enqueued once; a busy machine may exceed the short deadline of the store."""
    answers: list[httpx.Response] = []

    def is_accepted() -> bool:
        answers.append(client.post("/jobs", json=JOB, headers={"Idempotency-Key": key}))
        return answers[-1].status_code == 202

    key = secrets.token_hex(8)
    wait_until("a job is accepted", is_accepted)
    return str(answers[-1].json()["job_id"])


def is_finished(client: httpx.Client, job_id: str) -> bool:
    answer = client.get(f"/jobs/{job_id}")
    job = answer.json()
    if answer.status_code != 200:
        return False
    return job["status"] == "done" or (job["status"] == "failed" and "unreadable" in job["error"])
