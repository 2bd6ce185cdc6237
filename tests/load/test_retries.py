"""Clients that retry, against servers that answer 429 and 503, hang and reset: what is sent, and how it is counted."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overload_demo.errors import ConfigurationError
from overload_demo.load import Kind, LoadPlan, LoadResult, RetryBudget, RetryPolicy, TokenBucket, run_load
from overload_demo.load.plan import BackoffKind
from tests.load import scripted_server as scripted
from tests.load.scripted_server import Request, Script, answer, scripted_server
from tests.support.commands import run_module


def at_once(**fields: object) -> RetryPolicy:
    """Repeat without a wait."""
    return RetryPolicy(**{"backoff": BackoffKind.NONE} | fields)  # type: ignore[arg-type]


class Unlimited:
    """A budget of this process: with one, the load needs no process of its own."""

    def take(self, requests: int) -> bool:
        return True


def fire(
    url: str, policy: RetryPolicy, requests: int = 20, budget: RetryBudget | None = None, **fields: object
) -> LoadResult:
    if policy.budget is None and "processes" not in fields:
        budget = budget or Unlimited()
    plan = LoadPlan(url, requests, 500.0, retry=policy, **{"timeout_s": 5.0, "shape": "constant"} | fields)  # type: ignore[arg-type]
    return asyncio.run(run_load(plan, budget=budget))


def key_of(head: bytes) -> bytes:
    return head.split(b"Idempotency-Key: ")[1].split(b"\r\n")[0]


def first_fails(fail: Script) -> Script:
    """Fail the first attempt of each request, accept the others."""
    seen = set[bytes]()

    async def script(request: Request) -> None:
        is_first = request.body not in seen
        seen.add(request.body)
        await (fail(request) if is_first else scripted.accept(request))

    return script


async def refuse_with_429(request: Request) -> None:
    answer(request, status=429, body=b"{}", headers="Retry-After: 1\r\n")


@pytest.mark.parametrize(
    "fail",
    [refuse_with_429, scripted.refuse_with_503, scripted.reset, scripted.hang_up, scripted.truncate],
)
def test_a_failed_attempt_is_repeated_with_the_same_body_and_key(fail: Script) -> None:
    with scripted_server(first_fails(fail)) as server:
        summary = fire(server.url, at_once()).summary()

    assert summary.all_accepted
    assert summary.retry is not None
    assert (summary.retry.requests, summary.retry.attempts, summary.retry.attempts_per_request) == (20, 40, 2.0)
    assert set(Counter(server.values).values()) == {2}
    assert set(Counter(map(key_of, server.heads)).values()) == {2}


def test_a_server_that_hangs_costs_one_timeout_and_counts_from_the_intended_time() -> None:
    with scripted_server(first_fails(scripted.stay_silent)) as server:
        result = fire(server.url, at_once(), timeout_s=2.0)

    assert result.summary().all_accepted
    assert result.response_s.min() >= 1.99  # timers count whole milliseconds
    assert result.attempts is not None
    assert Counter(result.attempts.kind.tolist()) == {Kind.READ_TIMEOUT: 20, Kind.ACCEPTED: 20}
    assert (result.sent_s < result.attempts.sent_s.max()).all()  # a request's send is that of its first attempt


def gaps_s(result: LoadResult) -> list[float]:
    """The time from the end of the first attempt of each request to the send of its second one."""
    attempts = result.attempts
    assert attempts is not None
    pairs = (attempts.index == number for number in range(len(result.kind)))
    return [float(attempts.sent_s[pair][1] - attempts.done_s[pair][0]) for pair in pairs]


def test_a_retry_after_is_waited_unless_it_is_switched_off() -> None:
    with scripted_server(first_fails(refuse_with_429)) as server:
        obeys = fire(server.url, RetryPolicy(backoff=BackoffKind.FIXED, base_s=0.01))
    with scripted_server(first_fails(refuse_with_429)) as server:
        ignores = fire(server.url, RetryPolicy(backoff=BackoffKind.FIXED, base_s=0.01, retry_after=False))

    assert min(gaps_s(obeys)) >= 1.0
    assert min(gaps_s(ignores)) < 1.0


def test_each_reason_to_give_up_has_its_count() -> None:
    def ending(script: Script, **fields: object) -> dict[str, int]:
        with scripted_server(script) as server:
            result = fire(server.url, at_once(**fields))
        assert result.attempts is not None
        return {name: count for name, count in result.attempts.endings.items() if count}

    assert ending(scripted.refuse_with_503, attempts=3) == {"exhausted": 20}
    assert ending(scripted.refuse_with_503, attempts=1) == {"exhausted": 20}
    assert ending(scripted.refuse_with_503, attempts=100, budget=0.0) == {"refused_by_budget": 20}
    assert ending(refuse_with_422) == {"not_repeatable": 20}
    assert ending(refuse_with_429, patience_s=0.5) == {"out_of_patience": 20}


def test_no_attempt_outlasts_the_patience() -> None:
    with scripted_server(scripted.stay_silent) as server:
        result = fire(server.url, at_once(patience_s=1.0), timeout_s=60.0)

    assert result.response_s.max() < 60.0
    assert result.summary().read_timeout == 20


def test_without_a_key_each_accepted_attempt_is_a_job_of_its_own() -> None:
    with scripted_server(first_fails(scripted.refuse_with_503)) as server:
        fire(server.url, at_once(idempotency_key=False))

    assert not any(b"idempotency-key" in head.lower() for head in server.heads)


def jobs_that_end(state: Callable[[int], str]) -> Script:
    """Accept each POST, and answer polls with the state of the job, by the number in its id."""

    async def script(request: Request) -> None:
        path = request.head.split()[1]
        if path == b"/jobs":
            answer(request)
        else:
            body = {"status": state(int(path.rpartition(b"_")[2], 16))}
            answer(request, status=200, body=json.dumps(body).encode())

    return script


@pytest.mark.exhaustive
def test_a_client_that_waits_for_the_result_repeats_what_is_late_or_failed() -> None:
    states = {0: "queued", 1: "failed", 2: "done"}
    policy = at_once(until="done", attempts=2, poll_s=0.05)

    with scripted_server(jobs_that_end(lambda job: states[job % 3])) as server:
        result = fire(server.url, policy, requests=30, timeout_s=2.0)

    summary = result.summary()
    assert summary.retry is not None
    assert 10 <= summary.accepted < 30
    assert summary.accepted + summary.no_result == 30
    assert summary.retry.jobs == summary.retry.attempts == len(result.accepted_ids) > 30
    assert summary.retry.polls > 30


def test_the_series_shows_offered_attempts_and_goodput() -> None:
    with scripted_server(first_fails(scripted.refuse_with_503)) as server:
        series = fire(server.url, at_once(), requests=100).series()

    assert (sum(series.offered_per_s), sum(series.attempts_per_s), sum(series.accepted_per_s)) == (100, 200, 100)


def test_a_stored_result_keeps_its_attempts(tmp_path: Path) -> None:
    with scripted_server(first_fails(scripted.refuse_with_503)) as server:
        result = fire(server.url, at_once(), processes=2)
    result.write(tmp_path)

    assert LoadResult.load(tmp_path / "load.npz").summary() == result.summary()
    assert json.loads((tmp_path / "load.json").read_text())["summary"]["retry"]["attempts"] == 40


class NoMoreThan:
    """A budget as a student may write it."""

    def __init__(self, repeats: int) -> None:
        self.repeats, self.requests_seen = repeats, list[int]()

    def take(self, requests: int) -> bool:
        self.requests_seen.append(requests)
        self.repeats -= 1
        return self.repeats >= 0


def test_a_budget_of_ones_own_decides_in_this_process() -> None:
    budget, reports = NoMoreThan(7), list[int]()
    with scripted_server(scripted.refuse_with_503) as server:
        plan = LoadPlan(server.url, 20, 500.0, retry=at_once(attempts=100))
        result = asyncio.run(run_load(plan, budget=budget, on_progress=lambda load: reports.append(load.attempts)))

    assert len(server.bodies) == reports[-1] == 27
    assert result.summary().retry is not None
    assert budget.requests_seen == sorted(budget.requests_seen)
    assert budget.requests_seen[-1] == 20


def test_a_budget_that_fails_ends_the_load_with_its_own_error() -> None:
    class Broken:
        def take(self, requests: int) -> bool:
            raise ZeroDivisionError

    with scripted_server(scripted.refuse_with_503) as server, pytest.raises(ZeroDivisionError):
        fire(server.url, RetryPolicy(), budget=Broken())


def test_a_budget_without_a_policy_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match="retry policy"):
        asyncio.run(run_load(LoadPlan("http://127.0.0.1:1", 1), budget=TokenBucket(0.1)))


async def refuse_with_422(request: Request) -> None:
    answer(request, status=422, body=b"{}")


OUTCOMES: dict[str, Script] = {
    "accept": scripted.accept,
    "429": refuse_with_429,
    "503": scripted.refuse_with_503,
    "422": refuse_with_422,
    "reset": scripted.reset,
    "hang up": scripted.hang_up,
    "no id": scripted.accept_without_id,
    "slow": scripted.accept_after(0.3),
}


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=12), st.integers(1, 5), st.floats(0, 1))
def test_every_request_and_every_attempt_is_accounted_for(outcomes: list[str], attempts: int, ratio: float) -> None:
    async def by_turns(request: Request) -> None:
        await OUTCOMES[outcomes[request.number % len(outcomes)]](request)

    policy = RetryPolicy(attempts=attempts, base_s=0.001, retry_after=False)
    with scripted_server(by_turns) as server:
        result = fire(server.url, policy, 12, TokenBucket(ratio, 3), timeout_s=0.2)

    summary = result.summary()  # validates: attempts = requests + repeats, and each sum of outcomes and of endings
    assert summary.retry is not None
    assert summary.retry.requests == 12
    assert summary.retry.attempts >= len(server.bodies)  # a connection may break before the server has read
    assert summary.retry.repeats <= min(12 * (attempts - 1), 3 + ratio * 12)
    assert sum(result.series().attempts_per_s) == summary.retry.attempts


def test_the_command_tells_requests_and_attempts(tmp_path: Path) -> None:
    with scripted_server(first_fails(scripted.refuse_with_503)) as server:
        arguments = [server.url, "--requests", "20", "--rate", "500", "--retry", "attempts=2,base=0.01"]
        done = run_module("overload_demo.load", *arguments, "--output", str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert "40 (2.00)" in done.stdout
    assert json.loads((tmp_path / "load.json").read_text())["plan"]["retry"]["attempts"] == 2


@pytest.mark.parametrize("text", ["attempts=0", "attempts=inf", "base=nan", "backoff=zigzag", "tries=3"])
def test_a_wrong_policy_ends_the_command_with_two_and_one_line(text: str) -> None:
    done = run_module("overload_demo.load", "http://127.0.0.1:1", "--retry", text)

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
