"""An instructor's orders act on real processes, and none of them stays killed, stopped or running."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import psutil
import pytest

from overload_demo.errors import OverloadDemoError
from overload_demo.lab import result
from overload_demo.lab.stack import Stack
from overload_demo.live.ballot import QUESTIONS, VOTES_FILE, VoteEntry
from overload_demo.live.feed import Feed
from overload_demo.live.page import ClassGuess
from overload_demo.live.stage import BUTTONS, TITLES, Stage
from tests.support.stages import SIZES
from tests.support.waiting import wait_until

pytestmark = pytest.mark.anyio
NOTHING = ClassGuess()


@asynccontextmanager
async def a_stage(folder: Path) -> AsyncIterator[tuple[Stage, Feed, Stack]]:
    """A stage with a running stack."""
    feed = Feed()
    stack = await Stack.start(placement="process", processing_delay_s=SIZES.delay_s, runs=folder)
    async with stack, Stage(feed, SIZES, stack) as stage:
        yield stage, feed, stack


async def until(description: str, predicate: Callable[[], object]) -> None:
    """Wait without stopping the loop, on which stage and stack run."""
    await anyio.to_thread.run_sync(wait_until, description, predicate, 30.0)


async def refusal(stage: Stage, order: str) -> str:
    """Why an order is refused."""
    with pytest.raises(OverloadDemoError) as caught:
        await stage.act(order, NOTHING)
    [line] = str(caught.value).splitlines()
    return line


def redis(stack: Stack) -> psutil.Process:
    return psutil.Process(stack.process_ids()["redis"])


def is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def marks(feed: Feed) -> list[str]:
    [snapshot] = feed.since(-1)
    return [mark["text"].strip() for mark in snapshot.data["marks"]]


async def test_a_killed_worker_stays_dead_until_it_is_restarted_as_another_process(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, stack):
        worker = psutil.Process(stack.process_ids()["worker"])

        await stage.act("kill", NOTHING)
        assert not worker.is_running()
        assert "the worker is dead" in await refusal(stage, "kill")
        assert ("kill" in feed.state["controls"], "restart" in feed.state["controls"]) == (False, True)

        await stage.act("restart", NOTHING)
        await until("another worker runs", lambda: "worker" in stack.process_ids())
        assert stack.process_ids()["worker"] != worker.pid
        assert "the worker is running" in await refusal(stage, "restart")
        assert marks(feed) == ["killed", "restarted"]


@pytest.mark.exhaustive
async def test_an_act_begins_with_a_worker_although_it_was_killed_before(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, _):
        await stage.act("kill", NOTHING)

        await stage.act("at_once", NOTHING)
        await stage.wait()

        assert f"Absorbed: {SIZES.at_once} of {SIZES.at_once} accepted, 0 lost." in feed.state["result"]
        assert "kill" in feed.state["controls"]


@pytest.mark.exhaustive
async def test_a_frozen_store_thaws_after_its_time(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, stack):
        store = redis(stack)

        await stage.act("freeze", NOTHING)
        await until("it stands still", lambda: is_stopped(store))
        assert "the store is frozen" in await refusal(stage, "freeze")

        await until("it goes on", lambda: not is_stopped(store))
        await until("it is marked", lambda: marks(feed) == ["frozen", "thawed"])
        await until("it can be frozen again", lambda: "freeze" in feed.state["controls"])
        assert redis(stack).pid == store.pid


@pytest.mark.exhaustive
async def test_a_stage_that_is_left_in_mid_freeze_leaves_no_stopped_store(tmp_path: Path) -> None:
    feed = Feed()
    async with await Stack.start(placement="process", processing_delay_s=SIZES.delay_s, runs=tmp_path) as stack:
        async with Stage(feed, SIZES, stack) as stage:
            await stage.act("freeze", NOTHING)
            store = redis(stack)
            await until("it stands still", lambda: is_stopped(store))

        assert not is_stopped(store)
    assert not store.is_running()


@pytest.mark.exhaustive
async def test_an_act_that_is_ended_before_it_has_begun_leaves_the_stage_free(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, _):
        await stage.act("spike", NOTHING)

        await stage.act("reset", NOTHING)

        assert feed.state["controls"] == [order for order in BUTTONS if order != "restart"]


@pytest.mark.exhaustive
async def test_a_store_that_dies_while_it_is_frozen_breaks_nothing(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, stack):
        await stage.act("freeze", NOTHING)
        dead = redis(stack)
        stack.kill("redis")

        await until("it is over", lambda: marks(feed) == ["frozen", "thawed"])
        await until("another store serves", lambda: redis(stack).pid != dead.pid)


@pytest.mark.exhaustive
async def test_a_second_act_is_refused_before_the_first_one_plays(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, _):
        await stage.act("spike", NOTHING)

        for order in TITLES:
            assert "another act is running; wait for its end, or reset" in await refusal(stage, order)
        await until("it plays", lambda: feed.state["title"] == TITLES["spike"])


async def test_a_reset_ends_act_freeze_and_backlog_and_refuses_orders_until_done(tmp_path: Path) -> None:
    others = set(psutil.Process().children(recursive=True))
    async with a_stage(tmp_path) as (stage, feed, stack):
        before = set(stack.process_ids().values())
        await stage.act("spike", NOTHING)
        await until("it runs", lambda: len(feed.samples()) > 3)
        for order in TITLES:
            assert "another act is running; wait for its end, or reset" in await refusal(stage, order)
        await stage.act("kill", NOTHING)
        await stage.act("freeze", NOTHING)

        reset = asyncio.create_task(stage.act("reset", NOTHING))
        await until("it has begun", lambda: feed.state["status"] == "resetting")
        for order in BUTTONS:
            assert "the stack is restarting" in await refusal(stage, order)
        await reset

        assert (feed.state["status"], feed.state["result"], feed.samples(), marks(feed)) == ("ready", "", (), [])
        assert feed.state["controls"] == [order for order in BUTTONS if order != "restart"]
        assert set(stack.process_ids()) == {"api", "worker", "gateway", "redis"}
        assert not before & set(stack.process_ids().values())
        children = set(psutil.Process().children(recursive=True)) - others
        assert not [child for child in children if "overload_demo.load.sender" in child.cmdline()]

        await stage.act("at_once", NOTHING)
        await stage.wait()
        assert "Absorbed" in feed.state["result"], "the next class can begin"


@pytest.mark.exhaustive
async def test_a_stage_that_is_left_in_mid_act_leaves_no_load(tmp_path: Path) -> None:
    others = set(psutil.Process().children(recursive=True))
    async with a_stage(tmp_path) as (stage, feed, _):
        await stage.act("spike", NOTHING)
        await until("it runs", lambda: len(feed.samples()) > 3)
        children = set(psutil.Process().children(recursive=True)) - others

    assert len(children) >= 4
    await until("nothing of it is left", lambda: not [child for child in children if is_alive(child)])


@pytest.mark.exhaustive
async def test_both_counts_are_stored_with_the_run_also_those_taken_after_its_end(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, stack):
        await stage.vote("ask", VoteEntry(question="at_once"))
        await stage.vote("first", VoteEntry(counts=["9", "5", "2", ""]))
        await stage.act("at_once", NOTHING)
        await stage.wait()
        assert not feed.state["vote"]["open"], "the curves are shown"
        [path] = tmp_path.rglob("result.json")
        assert [vote.counts for vote in result.SpikeResult.read(path).votes] == [{"first": [9, 5, 2, 0]}]

        await stage.vote("second", VoteEntry(counts=["1", "2", "13", ""]))
        await stage.vote("answer", VoteEntry())
        await stage.vote("ask", VoteEntry(question="kill"))
        await stage.vote("first", VoteEntry(counts=["1", "1", "1", "1"]))

        [vote] = result.SpikeResult.read(path).votes
        assert vote.counts == {"first": [9, 5, 2, 0], "second": [1, 2, 13, 0]}
        assert vote.change == "Right answers: 12 %, then 81 %."
        assert len(json.loads((stack.folder / VOTES_FILE).read_text())) == 2, "the class's file has all of them"


@pytest.mark.course
async def test_votes_before_an_act_and_during_it_are_those_of_its_run(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, _):
        await stage.vote("ask", VoteEntry(question="spike"))
        await stage.act("spike", NOTHING)
        await until("it runs", lambda: len(feed.samples()) > 3)
        await stage.vote("ask", VoteEntry(question="kill"))
        await stage.wait()
        [path] = tmp_path.rglob("result.json")
        before, during = result.SpikeResult.read(path).votes
        assert (before.question, during.question) == (QUESTIONS["spike"], QUESTIONS["kill"])
        assert before.asked_at_s == 0.0 < during.asked_at_s

        await stage.act("at_once", NOTHING)
        await stage.wait()
        assert feed.state["vote"] is None, "a vote on another act is not shown beside this one"
        [other] = tmp_path.rglob("act-2-at_once/result.json")
        assert result.SpikeResult.read(other).votes == []


@pytest.mark.exhaustive
async def test_an_act_that_fails_shows_the_reason_and_the_next_one_can_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result.overload_demo, "__file__", str(tmp_path / "overload_demo" / "__init__.py"))
    async with a_stage(tmp_path) as (stage, feed, _):
        await stage.act("naive", NOTHING)
        await stage.wait()

        assert feed.state["result"].startswith("The act failed: the naive baseline needs a checkout")
        assert "spike" in feed.state["controls"]


@pytest.mark.exhaustive
async def test_after_a_failed_restart_every_button_is_back_and_the_next_reset_works(tmp_path: Path) -> None:
    async with a_stage(tmp_path) as (stage, feed, stack):
        for number in (2, 3):  # the folders of the next two restarts
            (stack.folder / f"run-{number}").touch()

        await stage.act("storm", NOTHING)  # its jobs take another time, so it restarts the stack
        await stage.wait()
        assert feed.state["result"].startswith("The act failed: ") and "run-2" in feed.state["result"]
        with pytest.raises(OSError, match="run-3"):
            await stage.act("reset", NOTHING)

        assert feed.state["status"] == "the reset failed: press Reset again"
        assert {"reset", *TITLES} <= set(feed.state["controls"])
        await stage.act("reset", NOTHING)
        assert feed.state["status"] == "ready"
        assert feed.state["controls"] == [order for order in BUTTONS if order != "restart"]


@pytest.mark.exhaustive
async def test_buttons_are_back_in_an_act_that_restarted_the_stack_in_a_freeze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overload_demo.live.stage.FREEZE_S", 0.2)
    async with a_stage(tmp_path) as (stage, feed, _):
        await stage.act("freeze", NOTHING)
        await stage.act("storm", NOTHING)

        await until("it runs", lambda: len(feed.samples()) > 3)

        assert {"kill", "freeze"} <= set(feed.state["controls"])
        assert "another act is running" in await refusal(stage, "spike")
