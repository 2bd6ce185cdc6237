"""The policy of clients that retry, and the token bucket."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overload_demo.errors import ConfigurationError
from overload_demo.load import LoadPlan, RetryPolicy, TokenBucket
from overload_demo.load.plan import BackoffKind, Jitter, Until


def waits_s(**fields: object) -> list[float]:
    policy = RetryPolicy(base_s=0.1, **fields)  # type: ignore[arg-type]
    return [policy.backoff_s(repeat, random.Random(1)) for repeat in (1, 2, 3, 4)]


def test_the_backoff_grows_as_its_name_says() -> None:
    assert waits_s(backoff=BackoffKind.NONE) == [0.0] * 4
    assert waits_s(backoff=BackoffKind.FIXED, jitter=Jitter.NONE) == [0.1] * 4
    assert waits_s(jitter=Jitter.NONE) == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert waits_s(jitter=Jitter.NONE, cap_s=0.3) == pytest.approx([0.1, 0.2, 0.3, 0.3])


@given(st.integers(1, 100), st.integers())
def test_full_jitter_waits_a_part_of_the_backoff(repeat: int, seed: int) -> None:
    policy = RetryPolicy(base_s=0.1, cap_s=10.0)

    assert 0 <= policy.backoff_s(repeat, random.Random(seed)) <= min(10.0, math.ldexp(0.1, repeat - 1))


def test_the_readable_syntax_names_the_fields() -> None:
    policy = RetryPolicy.parse(
        "attempts=3, backoff=fixed, base=0.5, jitter=none, budget=0.1, retry_after=off, until=done"
    )

    assert policy == RetryPolicy(
        attempts=3,
        backoff=BackoffKind.FIXED,
        base_s=0.5,
        jitter=Jitter.NONE,
        budget=0.1,
        retry_after=False,
        until=Until.DONE,
    )


@pytest.mark.parametrize(
    "text",
    [
        "attempts=0",
        "attempts=-1",
        "attempts=inf",
        "attempts=1000000",
        "attempts=1.5",
        "attempts=many",
        "attempts",
        "base=nan",
        "base=-1",
        "cap=inf",
        "budget=nan",
        "budget=-0.1",
        "burst=0",
        "backoff=zigzag",
        "jitter=some",
        "patience=0",
        "retry_after=maybe",
        "until=never",
        "retries=3",
        "attempts=2,attempts=3",
        "attempts=2,",
        "",
    ],
)
def test_a_wrong_policy_is_one_line(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RetryPolicy.parse(text)

    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("attempts", [0, -1, math.inf, math.nan, None, "many", 101])
def test_a_wrong_number_of_attempts_is_one_line_in_a_notebook_too(attempts: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^attempts: .*$"):
        RetryPolicy(attempts=attempts)  # type: ignore[arg-type]


def test_a_misspelt_field_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^atempts: "):
        RetryPolicy(atempts=3)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=r"^RetryPolicy: "):
        LoadPlan("http://127.0.0.1:1", 1, retry=3)  # type: ignore[arg-type]


def test_the_bucket_starts_full_and_refills_by_requests() -> None:
    bucket = TokenBucket(0.5, burst=2)

    assert [bucket.take(10) for _ in range(3)] == [True, True, False]  # full: more requests add nothing
    assert [bucket.take(11), bucket.take(12), bucket.take(12)] == [False, True, False]


@given(st.floats(0, 1), st.floats(1, 20), st.lists(st.integers(0, 20), max_size=60))
def test_repeats_stay_within_burst_and_ratio(ratio: float, burst: float, steps: list[int]) -> None:
    bucket, requests, repeats = TokenBucket(ratio, burst), 0, 0
    for step in steps:
        requests += step
        repeats += bucket.take(requests)

        assert repeats <= burst + ratio * requests + 1e-6


def test_load_processes_divide_the_burst() -> None:
    bucket = RetryPolicy(budget=0.0, burst=8).new_budget(processes=4)

    assert bucket is not None
    assert [bucket.take(100) for _ in range(3)] == [True, True, False]
    assert RetryPolicy().new_budget() is None
