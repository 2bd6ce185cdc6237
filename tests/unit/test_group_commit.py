"""Group commit: many callers share few calls, and each gets its own reply."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from overload_demo.errors import (
    Outcome,
    OverloadDemoError,
    QueueFullError,
    StoreRefusedError,
    StoreUnavailableError,
)
from overload_demo.queue import group_commit
from overload_demo.queue.group_commit import GroupCommit

pytestmark = pytest.mark.anyio

Answer = str | OverloadDemoError


class Sink:
    """Receives batches; holds them until ``go_on`` is set."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.deadlines_s: list[float] = []
        self.pause_s = 0.0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def send(self, items: Sequence[str], deadline_s: float) -> list[Answer]:
        self.batches.append(list(items))
        self.deadlines_s.append(deadline_s)
        await self.go_on.wait()
        await asyncio.sleep(self.pause_s)
        if "raise" in items:
            raise StoreRefusedError("no")
        if "bug" in items:
            raise ZeroDivisionError
        return [QueueFullError("full", 1.0) if item == "refuse" else item.upper() for item in items]


@asynccontextmanager
async def group_over(sink: Sink, **options: Any) -> AsyncIterator[GroupCommit[str, str]]:
    group: GroupCommit[str, str] = GroupCommit(sink.send, **options)
    async with asyncio.timeout(30.0):  # a dead sender is a failure, not a test that never ends
        try:
            yield group
        finally:
            sink.go_on.set()
            await group.aclose()


async def started(sink: Sink, batches: int = 1) -> None:
    """Run the event loop until ``batches`` batches are under way."""
    async with asyncio.timeout(30.0):
        while len(sink.batches) < batches:
            await asyncio.sleep(0)


async def test_each_caller_gets_its_own_reply() -> None:
    async with group_over(Sink()) as group:
        answers = await asyncio.gather(*map(group.submit, "abcdef"))

    assert answers == list("ABCDEF")


async def test_an_idle_sender_sends_at_once() -> None:
    sink = Sink()
    async with group_over(sink) as group:
        for item in "abc":
            await group.submit(item)
    assert sink.batches == [["a"], ["b"], ["c"]]


async def test_items_that_gather_during_a_call_leave_together_in_order() -> None:
    sink = Sink()
    sink.go_on.clear()
    async with group_over(sink, calls_at_once=1) as group:
        first = asyncio.create_task(group.submit("first"))
        await started(sink)
        rest = [asyncio.create_task(group.submit(str(number))) for number in range(50)]
        await asyncio.sleep(0)
        sink.go_on.set()
        await asyncio.gather(first, *rest)

    assert sink.batches == [["first"], [str(number) for number in range(50)]]


async def test_a_batch_ends_at_its_bounds_and_has_at_least_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_CALL_BYTES", 5)
    sink = Sink()
    sink.go_on.clear()
    async with group_over(sink, calls_at_once=1, size_of=len, max_items=3) as group:
        first = asyncio.create_task(group.submit("first"))
        await started(sink)
        items = ["1", "2", "3", "4", "55555", "7777777", "8"]
        rest = [asyncio.create_task(group.submit(item)) for item in items]
        await asyncio.sleep(0)
        sink.go_on.set()
        await asyncio.gather(first, *rest)

    assert sink.batches[1:] == [["1", "2", "3"], ["4"], ["55555"], ["7777777"], ["8"]]


async def test_an_error_for_one_item_reaches_its_caller_only() -> None:
    async with group_over(Sink()) as group:
        answers = await asyncio.gather(*map(group.submit, ["a", "refuse", "b"]), return_exceptions=True)

    assert [answers[0], answers[2]] == ["A", "B"]
    assert isinstance(answers[1], QueueFullError)


async def test_an_error_of_a_call_reaches_all_its_callers_and_no_other() -> None:
    async with group_over(Sink(), calls_at_once=1) as group:
        answers = await asyncio.gather(*map(group.submit, ["a", "raise"]), return_exceptions=True)
        later = await group.submit("later")

    assert [type(answer) for answer in answers] == [StoreRefusedError] * 2
    assert later == "LATER"


async def test_a_bug_leaves_the_outcome_unknown_and_the_sender_alive() -> None:
    async with group_over(Sink(), calls_at_once=1) as group:
        for _ in range(3):
            with pytest.raises(StoreUnavailableError) as caught:
                await group.submit("bug")
            assert caught.value.outcome is Outcome.UNKNOWN
        assert await group.submit("a") == "A"


async def test_a_cancelled_caller_cancels_nothing() -> None:
    sink = Sink()
    sink.go_on.clear()
    async with group_over(sink, calls_at_once=1) as group:
        first = asyncio.create_task(group.submit("first"))
        await started(sink)
        gone, stays = asyncio.create_task(group.submit("gone")), asyncio.create_task(group.submit("stays"))
        await asyncio.sleep(0)
        gone.cancel()
        first.cancel()
        sink.go_on.set()

        assert await stays == "STAYS"
    assert sink.batches == [["first"], ["gone", "stays"]]


async def test_items_beyond_the_waiting_limits_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "MAX_WAITING", 3)
    monkeypatch.setattr(group_commit, "MAX_WAITING_BYTES", 10)
    sink = Sink()
    sink.go_on.clear()
    async with group_over(sink, calls_at_once=1, size_of=len) as group:
        tasks = [asyncio.create_task(group.submit("first"))]
        await started(sink)
        tasks += [asyncio.create_task(group.submit(item)) for item in ("a", "b")]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError) as too_large:
            await group.submit("x" * 9)
        tasks.append(asyncio.create_task(group.submit("c")))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError) as too_many:
            await group.submit("d")
        sink.go_on.set()
        await asyncio.gather(*tasks)
        assert await group.submit("x" * 9) == "X" * 9

    assert {too_large.value.outcome, too_many.value.outcome} == {Outcome.NOT_ENQUEUED}


@pytest.mark.parametrize("limits", [{"deadline_s": 0.1}, {"deadline_s": 60.0, "unsent_s": 0.1}])
async def test_an_item_that_is_not_sent_in_time_is_not_enqueued(limits: dict[str, float]) -> None:
    sink = Sink()
    sink.go_on.clear()
    async with group_over(sink, calls_at_once=1, **limits) as group:
        sent = asyncio.create_task(group.submit("sent"))
        await started(sink)

        with pytest.raises(StoreUnavailableError) as caught:
            await group.submit("unsent")
        sink.go_on.set()

        assert await sent == "SENT"
    assert caught.value.outcome is Outcome.NOT_ENQUEUED
    assert sink.batches == [["sent"]]


async def test_a_call_has_the_least_time_that_one_of_its_items_has_left() -> None:
    sink = Sink()
    async with group_over(sink, calls_at_once=1, deadline_s=60.0) as group:
        answered = asyncio.Event()
        fresh = asyncio.create_task(group.submit("fresh"))
        await asyncio.sleep(0)
        group.hand_in("older", lambda _: answered.set(), time.monotonic() + 30.0)
        await asyncio.gather(fresh, answered.wait())
        await group.submit("later")

    assert sink.batches == [["fresh", "older"], ["later"]]
    assert sink.deadlines_s[0] <= 30.0 < sink.deadlines_s[1] <= 60.0


async def test_items_wait_for_their_turn_while_calls_succeed() -> None:
    """A busy store is not a stuck one."""
    sink = Sink()
    sink.pause_s = 0.05
    async with group_over(sink, calls_at_once=1, max_items=1, deadline_s=60.0, unsent_s=1.0) as group:
        answers = await asyncio.gather(*(group.submit(str(number)) for number in range(30)))

    assert answers == [str(number) for number in range(30)]


async def test_an_item_that_comes_too_late_shortens_no_call() -> None:
    sink, answers = Sink(), list[Answer]()
    async with group_over(sink, calls_at_once=1, deadline_s=60.0) as group:
        group.hand_in("too late", answers.append, time.monotonic() + 0.01)
        assert await group.submit("in time") == "IN TIME"

    [error] = answers
    assert isinstance(error, StoreUnavailableError)
    assert error.outcome is Outcome.NOT_ENQUEUED
    assert sink.batches == [["in time"]]


async def test_under_more_than_the_store_can_take_calls_still_succeed_and_the_rest_is_not_enqueued() -> None:
    capacity = 2 * 4 / 0.1  # items a second: two calls of 0.1 s with four items each
    answers: list[Answer] = []

    async def send(items: Sequence[str], deadline_s: float) -> list[Answer]:
        await asyncio.sleep(min(0.1, deadline_s))
        if deadline_s < 0.1:
            raise StoreUnavailableError("the store did not answer in time", Outcome.UNKNOWN)
        return list(items)

    group: GroupCommit[str, str] = GroupCommit(send, max_items=4, deadline_s=1.0)
    async with asyncio.timeout(30.0):
        until = time.monotonic() + 3.0
        while time.monotonic() < until:
            group.hand_in("a", answers.append)
            await asyncio.sleep(0.5 / capacity)
        await group.aclose()

    outcomes = [one.outcome for one in answers if isinstance(one, OverloadDemoError)]
    assert set(outcomes) == {Outcome.NOT_ENQUEUED}
    assert answers[len(answers) // 2 :].count("a") > 0.2 * len(answers) / 2


async def test_items_that_waited_for_a_pause_of_the_store_are_sent_after_it() -> None:
    sink = Sink()
    async with group_over(sink, deadline_s=4.0) as group:
        await group.submit("before")
        sink.go_on.clear()
        tasks = [asyncio.create_task(group.submit("first"))]
        await started(sink, 2)
        tasks += [asyncio.create_task(group.submit(str(number))) for number in range(600)]
        await started(sink, 3)
        await asyncio.sleep(2.2)
        sink.go_on.set()

        await asyncio.gather(*tasks)


async def test_items_without_a_reply_lead_the_next_call() -> None:
    calls: list[list[str]] = []
    answers: list[Answer] = []

    async def send(items: Sequence[str], deadline_s: float) -> list[Answer]:
        calls.append(list(items))
        await asyncio.sleep(0)
        return [item.upper() for item in items[:2]]

    group: GroupCommit[str, str] = GroupCommit(send, calls_at_once=1, size_of=len)
    for item in "abcde":
        group.hand_in(item, answers.append)
    await group.aclose()

    assert calls == [["a", "b", "c", "d", "e"], ["c", "d", "e"], ["e"]]
    assert answers == list("ABCDE")


async def test_the_next_call_is_sent_before_callers_are_answered() -> None:
    """The store works while the answers are written."""
    sink, sent_at_answer = Sink(), list[int]()
    sink.go_on.clear()
    async with group_over(sink, calls_at_once=1) as group:
        group.hand_in("first", lambda _: sent_at_answer.append(len(sink.batches)))
        await started(sink)
        group.hand_in("next", lambda _: None)
        sink.go_on.set()

    assert sent_at_answer == [2]


async def test_calls_of_steady_callers_become_equally_large() -> None:
    sink = Sink()
    sink.pause_s = 0.005

    async def call_on(group: GroupCommit[str, str]) -> None:
        for _ in range(20):
            await group.submit("a")

    async with group_over(sink, calls_at_once=2) as group:
        few = [asyncio.create_task(call_on(group)) for _ in range(3)]
        await started(sink, 2)
        many = [asyncio.create_task(call_on(group)) for _ in range(57)]
        await asyncio.gather(*few, *many)

    assert {len(batch) for batch in sink.batches[10:30]} == {30}


async def test_a_call_starts_beside_others_once_it_is_worth_it_or_they_are_slow() -> None:
    sink = Sink()
    sink.go_on.clear()
    async with group_over(sink, calls_at_once=3, max_items=3, worth=3) as group:
        tasks = [asyncio.create_task(group.submit("slow"))]
        await started(sink)
        tasks += [asyncio.create_task(group.submit(item)) for item in "ab"]
        for _ in range(10):
            await asyncio.sleep(0)
        assert sink.batches == [["slow"]]
        tasks.append(asyncio.create_task(group.submit("c")))
        await started(sink, 2)
        tasks.append(asyncio.create_task(group.submit("d")))
        await started(sink, 3)
        sink.go_on.set()
        await asyncio.gather(*tasks)

    assert sink.batches == [["slow"], ["a", "b", "c"], ["d"]]


async def test_closing_sends_waiting_items_and_refuses_new_ones() -> None:
    sink = Sink()
    sink.go_on.clear()
    group: GroupCommit[str, str] = GroupCommit(sink.send, calls_at_once=2)
    tasks = [asyncio.create_task(group.submit(item)) for item in "abc"]
    await started(sink)
    closing = asyncio.create_task(group.aclose())
    await asyncio.sleep(0)

    with pytest.raises(StoreUnavailableError) as caught:
        await group.submit("late")
    sink.go_on.set()

    assert await asyncio.gather(*tasks) == list("ABC")
    await closing
    assert caught.value.outcome is Outcome.NOT_ENQUEUED
