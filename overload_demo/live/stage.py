"""The stage: a stack of its own in processes, and what an instructor does with it before a class."""

import asyncio
import contextlib
import os
import signal
from types import TracebackType
from typing import Self

from overload_demo.errors import OverloadDemoError
from overload_demo.lab.baseline import BaselineRun
from overload_demo.lab.naive_api import run_baseline
from overload_demo.lab.spike_plan import BASELINE_SPIKE_S, BASELINE_TIMEOUT_S, SpikePlan, SpikeProgress
from overload_demo.lab.spike_run import BASELINE_VARIANT, run_spike
from overload_demo.lab.stack import Stack
from overload_demo.live.feed import Feed
from overload_demo.live.follow import Follower
from overload_demo.live.page import Prediction
from overload_demo.live.sample import TRACKS
from overload_demo.live.samples import collapsed
from overload_demo.live.sizes import Sizes
from overload_demo.load import Shape

FREEZE_S = 3.0  # shorter than what the API waits for its store: clients wait too, and none is refused
BUTTONS = {
    "naive": "Naive spike",
    "spike": "Queue spike",
    "at_once": "All at once",
    "kill": "Kill worker",
    "restart": "Restart worker",
    "freeze": f"Freeze {FREEZE_S:g} s",
    "reset": "Reset",
}
TITLES = {
    "naive": "The spike, without a queue",
    "spike": "The spike, with a queue",
    "at_once": "All at once, with a queue",
}
STARTS = tuple(TITLES)
COMMAND = "python -m overload_demo.live --control"


class Stage:
    """Carries out orders on real processes and shows what comes of them on a feed; one act at a time.

    A context manager. The stack is the caller's; acts and a frozen store end with the stage.
    """

    buttons = BUTTONS

    def __init__(self, feed: Feed, sizes: Sizes, stack: Stack) -> None:
        self.loop = asyncio.get_running_loop()
        self._feed, self.sizes, self._stack = feed, sizes, stack
        self._act: asyncio.Task[None] | None = None
        self._frozen: tuple[int, asyncio.TimerHandle] | None = None  # whom, and when it is thawed
        self._is_resetting = False
        self._acts = 0
        self._seen: BaselineRun | None = None

    async def __aenter__(self) -> Self:
        self._feed.show(title=self.sizes.in_words, status="ready", controls=self._possible())
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._thaw()
        await self._end_act()

    async def act(self, order: str, prediction: Prediction) -> None:
        """Carry out one of :data:`BUTTONS`. Raises :class:`OverloadDemoError` with the reason if it cannot be now."""
        if order not in self._possible():
            raise OverloadDemoError(f"{BUTTONS[order]!r} is not possible now: {self._why_not(order)}")
        if order in STARTS:
            await self._restart()
            self._act = asyncio.create_task(self._play(order, prediction))
        else:
            await {"kill": self._kill, "restart": self._restart, "freeze": self._freeze, "reset": self._reset}[order]()
        self._feed.show(controls=self._possible())

    async def wait(self) -> None:
        """Return when the act under way, if any, has ended."""
        if self._act is not None:
            await asyncio.wait([self._act])

    def _possible(self) -> list[str]:
        """The orders that make sense now."""
        is_dead = "worker" in self._stack.held
        can = {
            **dict.fromkeys(STARTS, self._act is None),
            "kill": self._stack.is_running and not is_dead,
            "restart": is_dead,
            "freeze": self._stack.is_running and self._frozen is None,
            "reset": True,
        }
        return [order for order in BUTTONS if can[order] and not self._is_resetting]

    def _why_not(self, order: str) -> str:
        if self._is_resetting or not self._stack.is_running:
            return "the stack begins anew; that takes a few seconds"
        reasons = {"kill": "the worker is dead", "restart": "the worker lives", "freeze": "the store is frozen"}
        return reasons.get(order, "another act is under way; wait for its end, or reset")

    async def _play(self, order: str, told: Prediction) -> None:
        """One act from its title to its result; the next one can begin when it has ended, however it ends."""
        self._feed.show(title=TITLES[order], status="starting", result="", peak=told.peak, empty_s=told.empty_s)
        try:
            await (self._naive() if order == "naive" else self._spike(order))
        except OverloadDemoError as error:
            self._feed.show(result=f"It could not be played: {error}".splitlines()[0], status="over")
        finally:
            self._act = None
            self._feed.show(controls=self._possible())

    async def _spike(self, order: str) -> None:
        sizes, at_once = self.sizes, order == "at_once"
        plan = SpikePlan(
            requests=sizes.at_once if at_once else sizes.requests,
            rate_per_s=sizes.rate_per_s,
            shape=Shape.AT_ONCE if at_once else Shape.SPIKE,
            baseline="none",
            command=COMMAND,
        )
        self._acts += 1
        folder = self._stack.folder / f"act-{self._acts}-{order}"
        result = await run_spike(self._stack, plan, live=Follower(self._feed), out_dir=folder)
        self._feed.save_marks(folder)
        if self._seen is not None and not at_once:  # the same load, work and patience as this act had
            beside = {"baseline": self._seen, "baseline_source": "live", "baseline_note": "measured in an act before"}
            result.model_copy(update=beside).save(folder)

    async def _naive(self) -> None:
        follow = Follower(self._feed)
        run = await run_baseline(
            BASELINE_VARIANT,
            requests=self.sizes.requests,
            rate_per_s=self.sizes.rate_per_s,
            shape=Shape.SPIKE,
            delay_s=self.sizes.delay_s,
            timeout_s=BASELINE_TIMEOUT_S,
            max_duration_s=BASELINE_SPIKE_S,
            on_progress=lambda load: follow(SpikeProgress.of_baseline(load)),
        )
        self._seen = run
        self._feed.show(result=collapsed(run), status="over")

    async def _kill(self) -> None:
        self._stack.kill("worker", hold=True)
        self._feed.mark("killed")

    async def _restart(self) -> None:
        if "worker" not in self._stack.held:
            return
        self._stack.bring_back("worker")
        self._feed.mark("restarted")

    async def _freeze(self) -> None:
        pid = self._stack.process_ids().get("redis")
        if pid is None:
            raise OverloadDemoError("the store is not running")
        os.kill(pid, signal.SIGSTOP)
        self._frozen = pid, self.loop.call_later(FREEZE_S, self._thaw)
        self._feed.mark("frozen")

    def _thaw(self) -> None:
        """Harmless when nothing is frozen."""
        if self._frozen is None:
            return
        (pid, timer), self._frozen = self._frozen, None
        timer.cancel()
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            os.kill(pid, signal.SIGCONT)
        self._feed.mark("thawed")
        self._feed.show(controls=self._possible())

    async def _reset(self) -> None:
        """Back to zero: the act ends, curves and stack begin anew."""
        self._is_resetting = True
        try:
            self._feed.show(status="back to zero", controls=[])
            self._thaw()
            await self._end_act()
            self._feed.begin(*TRACKS)
            self._feed.show(title=self.sizes.in_words, result="", peak=None, empty_s=None)
            await self._stack.fresh()
            self._feed.show(status="ready")
        finally:
            self._is_resetting = False

    async def _end_act(self) -> None:
        if self._act is not None:
            self._act.cancel()
            await asyncio.wait([self._act])
            self._act = None  # one that had not begun yet could not say so itself
