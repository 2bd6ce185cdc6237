"""The numbers of a deployment from those of its shards."""

from dataclasses import replace

import pytest

from overload_demo.errors import StoreUnavailableError
from overload_demo.queue.results import QueueStats
from overload_demo.queue.shards import SUMMED, summed

QUIET = QueueStats(
    queue_length=0,
    in_flight=0,
    oldest_age_s=0.0,
    estimated_wait_s=0.0,
    service_time_s=2.0,
    drain_rate_per_s=0.0,
    workers_alive=0,
    accepted=0,
    done=0,
    failed=0,
    dead=0,
    interrupted=0,
    cancelled=0,
    expired=0,
    paused=False,
    dead_letters=0,
    worker_rest_calls=0,
)
DOWN = StoreUnavailableError("the store cannot be reached")


def test_every_count_is_a_sum() -> None:
    first = replace(QUIET, **{name: number for number, name in enumerate(SUMMED)})
    second = replace(QUIET, **{name: 100 * number for number, name in enumerate(SUMMED)})

    total = summed([first, second])

    assert [getattr(total, name) for name in SUMMED] == [101 * number for number in range(len(SUMMED))]
    assert total.shards == (first, second)


def test_a_worker_of_several_shards_is_one_worker() -> None:
    first = replace(QUIET, queue_length=30, workers_alive=2, worker_ids=frozenset("ab"))
    second = replace(QUIET, queue_length=10, workers_alive=2, worker_ids=frozenset("bc"))

    total = summed([first, second])

    assert (total.workers_alive, total.worker_ids) == (3, frozenset("abc"))
    assert total.estimated_wait_s == pytest.approx(40 * 2.0 / 3, abs=0.001)


def test_the_service_time_is_weighted_and_the_oldest_job_and_a_pause_count() -> None:
    busy = replace(QUIET, service_time_s=1.0, drain_rate_per_s=3.0, oldest_age_s=5.0)
    slow = replace(QUIET, service_time_s=5.0, drain_rate_per_s=1.0, oldest_age_s=7.0, paused=True)

    total = summed([busy, slow])

    assert (total.service_time_s, total.oldest_age_s, total.paused) == (2.0, 7.0, True)
    assert summed([QUIET, replace(QUIET, service_time_s=4.0)]).service_time_s == 3.0


def test_a_shard_that_does_not_answer_is_named_and_not_counted() -> None:
    total = summed([DOWN, replace(QUIET, queue_length=5)])

    assert total.queue_length == 5
    assert total.unreachable == ["shard 0: the store cannot be reached"]


def test_without_any_answer_there_are_no_numbers() -> None:
    with pytest.raises(StoreUnavailableError):
        summed([DOWN, DOWN])
    with pytest.raises(ZeroDivisionError):  # a bug is not an unreachable shard
        summed([QUIET, ZeroDivisionError()])
