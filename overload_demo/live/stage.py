"""The stage: the acts of a class, played with real processes and sized for this machine; and their rehearsal."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ValidationError
from rich.table import Table

from overload_demo.errors import OverloadDemoError
from overload_demo.lab import theory
from overload_demo.lab.crashes import frozen
from overload_demo.lab.naive_api import run_baseline
from overload_demo.lab.result import BaselineRun, SpikeResult
from overload_demo.lab.spike_plan import BASELINE_SPIKE_S, BASELINE_TIMEOUT_S, OnProgress, SpikePlan, SpikeProgress
from overload_demo.lab.spike_run import BASELINE_VARIANT, run_spike
from overload_demo.lab.stack import Stack
from overload_demo.live.ballot import Ballot, VoteEntry
from overload_demo.live.feed import TRACKS, Feed
from overload_demo.live.page import ClassGuess
from overload_demo.live.sources import SpikeFeed, baseline_text
from overload_demo.live.storm_act import STORM_TITLE, WORK_S, StormScript, storm_plan
from overload_demo.load import LoadPlan, RetryBudget, Shape, calibrate
from overload_demo.load.machine import Environment

DELAY_S = 0.001  # chosen: the work of one job on a machine that accepts several times what it drains
STEEPNESS = 3.0  # chosen: with fewer arrivals per drained job, neither a queue nor a collapse would be seen
FIRES_S, EMPTY_WITHIN_S = 10.0, 45.0  # chosen: as long as a class stays attentive
AT_ONCE_AT_MOST = 20_000  # sockets; a machine with few descriptors spreads them over load processes
RATE_SHARE = 0.4  # of what the API accepts at its best: the browser that draws needs a share of the machine
FREEZE_S = 3.0  # shorter than the API waits for its store: clients wait, and no request is refused
MEASURE_DRAIN_S = 3.0
FILE = "rehearsal.json"
COMMAND = "python -m overload_demo.live --control"
TITLES = {
    "naive": "The spike, without a queue",
    "spike": "The spike, with a queue",
    "at_once": "All at once, with a queue",
    "storm": STORM_TITLE,
}
BUTTONS = {
    "naive": "Naive spike",
    "spike": "Queue spike",
    "at_once": "All at once",
    "storm": "Retry storm",
    "kill": "Kill worker",
    "restart": "Restart worker",
    "freeze": f"Freeze {FREEZE_S:g} s",
    "reset": "Reset",
}


@dataclass(frozen=True)
class Sizes:
    """The loads of the acts; sized by time on this machine, so that each is short enough for a class."""

    requests: int
    rate_per_s: float
    at_once: int
    delay_s: float
    drains_per_s: float

    @classmethod
    def of(cls, accepts_per_s: float, drains_per_s: float) -> Self:
        """Size for a machine that accepts and drains so many jobs a second, with jobs of :data:`DELAY_S`.

        Where it drains nearly as fast as it accepts, jobs get longer: 1 ÷ drain rate = delay + the rest of a job.
        """
        arrives_per_s = RATE_SHARE * accepts_per_s
        drains = min(drains_per_s, arrives_per_s / STEEPNESS)
        requests = max(100, round(0.9 * drains * EMPTY_WITHIN_S, -2))
        return cls(
            requests=int(requests),
            rate_per_s=float(max(10.0, round(min(arrives_per_s, requests / FIRES_S), -1))),
            at_once=int(min(requests, AT_ONCE_AT_MOST)),
            delay_s=round(DELAY_S + 1 / drains - 1 / drains_per_s, 5),
            drains_per_s=round(drains, 1),
        )

    @property
    def text(self) -> str:
        """The numbers that a class needs to predict."""
        return f"{self.requests:,} requests at {self.rate_per_s:,.0f}/s; a job takes {self.delay_s * 1000:g} ms"

    @property
    def fires_s(self) -> float:
        """The length of the spike, seconds."""
        return self.requests / self.rate_per_s

    @property
    def peak(self) -> float:
        """The highest depth by theory, jobs."""
        return theory.peak_depth(self.rate_per_s, self.drains_per_s, self.fires_s)

    @property
    def empty_s(self) -> float:
        """When the queue is empty by theory, seconds from the first request."""
        return theory.seconds_to_empty(self.rate_per_s, self.drains_per_s, self.fires_s)


class Stage:
    """Carries out orders on real processes and shows the effects on a feed; one act at a time.

    A context manager: leaving it ends the act and thaws a frozen store. The caller starts and stops the stack.
    """

    def __init__(self, feed: Feed, sizes: Sizes, stack: Stack) -> None:
        self.loop = asyncio.get_running_loop()
        self._feed, self.sizes, self._stack = feed, sizes, stack
        self.buttons = BUTTONS | ({"machine": "Kill a machine"} if stack.has_cluster else {})
        self._act: asyncio.Task[None] | None = None
        self._frozen: tuple[contextlib.ExitStack, asyncio.TimerHandle] | None = None  # and the timer that thaws it
        self._is_resetting, self._acts = False, 0
        self._naive_run: BaselineRun | None = None
        self._ballot = Ballot(feed, BUTTONS, stack.folder)
        self.questions = {name: one.title for name, one in self._ballot.questions.items()}

    async def __aenter__(self) -> Self:
        self._feed.show(title=self.sizes.text, status="ready")
        self._show_possible()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._thaw()
        await self._end_act()

    async def act(self, order: str, guess: ClassGuess) -> None:
        """Carry out one of ``buttons``. Raises :class:`OverloadDemoError` with the reason if it cannot be now."""
        if obstacle := self._obstacles()[order]:
            raise OverloadDemoError(f"{self.buttons[order]!r} is not possible now: {obstacle}")
        if order in TITLES:
            await self._restart()
            self._act = asyncio.create_task(self._play(order, guess))
        else:
            await getattr(self, f"_{order}")()
        self._show_possible()

    async def vote(self, step: str, entry: VoteEntry) -> None:
        """Carry out "ask" or a step of a vote. Raises the errors of :class:`Ballot`."""
        if step == "ask":
            self._ballot.ask(entry.question, self._feed.elapsed_s if self._act else 0.0)
        else:
            self._ballot.take(step, entry.counts)

    async def wait(self) -> None:
        """Return when the current act, if any, has ended."""
        if self._act is not None:
            await asyncio.wait([self._act])

    def _show_possible(self, _: SpikeProgress | None = None) -> None:
        self._feed.show(controls=[order for order, obstacle in self._obstacles().items() if not obstacle])

    def _obstacles(self) -> dict[str, str]:
        """Return why each order is not possible now; "" if it is."""
        restarting = "the stack is restarting; that takes a few seconds"
        if self._is_resetting:
            return dict.fromkeys(self.buttons, restarting)
        is_dead, down = "worker" in self._stack.held, "" if self._stack.is_running else restarting
        return {
            **dict.fromkeys(TITLES, "another act is running; wait for its end, or reset" if self._act else ""),
            "kill": down or ("the worker is dead" if is_dead else ""),
            "restart": "" if is_dead else down or "the worker is running",
            "freeze": down or ("the store is frozen" if self._frozen else ""),
            "reset": "",
            **dict.fromkeys(self.buttons.keys() - BUTTONS.keys(), down),
        }

    async def _play(self, order: str, guess: ClassGuess) -> None:
        """Play one act from its title to its result; the next one can begin however this one ends."""
        self._feed.show(title=TITLES[order], status="starting", result="", peak=guess.peak, empty_s=guess.empty_s)
        self._ballot.begin(order)
        try:
            await {"naive": self._play_naive, "storm": self._play_storm}.get(order, lambda: self._play_spike(order))()
        except (OverloadDemoError, OSError) as error:
            self._feed.show(result=f"The act failed: {error}".splitlines()[0], status="over")
        finally:
            self._act = None
            self._show_possible()

    async def _play_spike(self, order: str) -> None:
        sizes, at_once = self.sizes, order == "at_once"
        plan = SpikePlan(
            requests=sizes.at_once if at_once else sizes.requests,
            rate_per_s=sizes.rate_per_s,
            shape=Shape.AT_ONCE if at_once else Shape.SPIKE,
            baseline="none",
            command=COMMAND,
        )
        result = await self._run(order, plan, sizes.delay_s, SpikeFeed(self._feed))
        if self._naive_run is not None and not at_once:  # it had the same load, work and timeout
            note = "measured in an earlier act"
            naive = {"baseline": self._naive_run, "baseline_source": "live", "baseline_note": note}
            result = result.model_copy(update=naive)
        self._ballot.end(result)

    async def _play_storm(self) -> None:
        script = StormScript(SpikeFeed(self._feed), self._freeze_for, self._feed.mark)
        self._ballot.end(await self._run("storm", storm_plan(COMMAND), WORK_S, script.follow, script))

    async def _run(
        self, order: str, plan: SpikePlan, delay_s: float, live: OnProgress, budget: RetryBudget | None = None
    ) -> SpikeResult:
        """Run one act on a stack whose jobs take ``delay_s``; keep its result and marks in a folder of its own."""
        if self._stack.settings.worker_processing_delay != delay_s:
            await self._stack.fresh(delay_s)
        self._acts += 1
        folder = self._stack.folder / f"act-{self._acts}-{order}"
        result = await run_spike(self._stack, plan, self._show_possible, live=live, out_dir=folder, budget=budget)
        self._feed.save_marks(folder)
        return result

    async def _play_naive(self) -> None:
        spike_feed = SpikeFeed(self._feed)
        plan = LoadPlan("http://127.0.0.1", self.sizes.requests, self.sizes.rate_per_s)
        plan = replace(plan, timeout_s=BASELINE_TIMEOUT_S, max_duration_s=BASELINE_SPIKE_S)
        self._naive_run = await run_baseline(
            BASELINE_VARIANT, plan, self.sizes.delay_s, lambda load: spike_feed(SpikeProgress.of_baseline(load))
        )
        self._feed.show(result=baseline_text(self._naive_run), status="over")

    async def _kill(self) -> None:
        self._stack.kill("worker", hold=True)
        self._feed.mark("killed")

    async def _machine(self) -> None:
        self._stack.kill("primary")
        self._feed.mark("machine killed")

    async def _restart(self) -> None:
        if "worker" in self._stack.held:
            self._stack.held.discard("worker")
            self._feed.mark("restarted")

    async def _freeze(self) -> None:
        self._freeze_for(FREEZE_S)

    def _freeze_for(self, seconds: float) -> None:
        if self._frozen is None:
            freezing = contextlib.ExitStack()
            freezing.enter_context(frozen(self._stack, "primary" if self._stack.has_cluster else "redis"))
            self._frozen = freezing, self.loop.call_later(seconds, self._thaw)
            self._feed.mark("frozen")
            self._show_possible()

    def _thaw(self) -> None:
        """Let a frozen store go on; without one, do nothing."""
        if self._frozen is None:
            return
        (freezing, timer), self._frozen = self._frozen, None
        timer.cancel()
        freezing.close()
        self._feed.mark("thawed")
        self._show_possible()

    async def _reset(self) -> None:
        """End the act, clear the curves and restart the stack."""
        self._is_resetting = True
        try:
            self._feed.show(status="resetting", controls=[])
            self._thaw()
            await self._end_act()
            self._feed.begin(*TRACKS)
            self._feed.show(title=self.sizes.text, result="", peak=None, empty_s=None)
            await self._stack.fresh()
        finally:
            self._is_resetting = False
            self._feed.show(status="ready" if self._stack.is_running else "the reset failed: press Reset again")
            self._show_possible()

    async def _end_act(self) -> None:
        if self._act is not None:
            self._act.cancel()
            await asyncio.wait([self._act])
            self._act = None  # an act cancelled before its first step has not cleared it


class Rehearsal(BaseModel, frozen=True):
    """The sizes that a rehearsal has found, for a machine like ``environment`` and a store on ``nodes`` servers."""

    environment: Environment
    sizes: Sizes
    nodes: int = 1


async def measure(stack: Stack) -> Sizes:
    """Measure what the API accepts and the worker drains, in about seven seconds; leaves ``stack`` used.

    The drain rate is measured on the backlog of the calibration, while no requests are sent. Raises
    :class:`OverloadDemoError` when nothing is accepted or drained.
    """
    accepts_per_s = await calibrate(stack.url, api_key=stack.api_key)
    before, began = await asyncio.to_thread(stack.get, "/queue/stats"), time.monotonic()
    await asyncio.sleep(MEASURE_DRAIN_S)
    after, ended = await asyncio.to_thread(stack.get, "/queue/stats"), time.monotonic()
    drains_per_s = (after["done"] - before["done"]) / (ended - began)
    if not drains_per_s > 0:
        raise OverloadDemoError("cannot size the acts: the worker drained no job while its rate was measured")
    return Sizes.of(accepts_per_s, drains_per_s)


@contextlib.asynccontextmanager
async def open_stage(feed: Feed, runs: Path, sizes: Sizes | None, nodes: int = 1) -> AsyncIterator[Stage]:
    """Yield a stage with a stack of its own, in processes, on ``nodes`` servers; without ``sizes``, measure first.

    Raises the errors of :meth:`Stack.start` and :func:`measure`.
    """

    async def start(delay_s: float) -> Stack:
        return await Stack.start(placement="process", processing_delay_s=delay_s, runs=runs, name="stage", nodes=nodes)

    async with contextlib.AsyncExitStack() as cleanup:
        if sizes is None:
            sizes = await measure(await cleanup.enter_async_context(await start(DELAY_S)))
        stack = await cleanup.enter_async_context(await start(sizes.delay_s))
        yield await cleanup.enter_async_context(Stage(feed, sizes, stack))


def rehearsed(runs: Path, nodes: int = 1) -> Sizes | None:
    """Return the sizes of the last rehearsal, None without one on a machine like this with as many servers."""
    try:
        found = Rehearsal.model_validate_json((runs / FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return found.sizes if found.nodes == nodes and found.environment.is_like(Environment.here()) else None


async def rehearse(runs: Path, report: Callable[[str], None], nodes: int = 1) -> Table:
    """Measure this machine, play each act, keep the sizes in ``runs``, and return the results as a table.

    ``report`` gets the name of each step. Takes about four minutes.
    """
    report("measuring this machine")
    async with open_stage(feed := Feed(), runs, None, nodes) as stage:
        sizes = stage.sizes
        shown = Table("act", "lasts", "what the class will see", title_justify="left", show_edge=False)
        shown.title = f"{sizes.text}; drained at {sizes.drains_per_s:,.0f}/s"
        shown.caption = f"theory: peak {sizes.peak:,.0f} jobs, empty after {sizes.empty_s:,.0f} s"
        for order, title in TITLES.items():
            report(title)
            began = time.monotonic()
            await stage.act(order, ClassGuess())
            await stage.wait()
            shown.add_row(title, f"{time.monotonic() - began:,.0f} s", feed.state["result"])
    found = Rehearsal(environment=Environment.here(), sizes=sizes, nodes=nodes)
    (runs / FILE).write_text(found.model_dump_json(indent=1) + "\n")
    return shown
