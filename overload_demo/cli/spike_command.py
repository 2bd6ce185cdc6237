"""``overload-demo spike``: the main job as one command, also on a cluster that loses a primary in mid-spike."""

import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from overload_demo.config import load_settings
from overload_demo.console import one_line_errors
from overload_demo.errors import ConfigurationError
from overload_demo.lab import report
from overload_demo.lab.crashes import Kill, KillSeen, run_with_kills
from overload_demo.lab.report import estimate
from overload_demo.lab.result import SpikeResult
from overload_demo.lab.spike_plan import MIN_DELAY_S, OnProgress, SpikePlan, sized_delay_s, spike_progress
from overload_demo.lab.spike_run import run_spike
from overload_demo.lab.stack import Stack
from overload_demo.load import Shape
from overload_demo.process import run_async

VIEWER_WITHIN_S = 30.0
KILL_AFTER_SHARE = 0.4  # chosen: of the requests accepted; the load goes on for longer than a failover takes


def spike(
    requests: Annotated[int, typer.Option(help="Requests to fire.")] = SpikePlan.requests,
    rate: Annotated[
        float | None,
        typer.Option(help="Highest rate, requests a second.", show_default="60 % of a calibration, or 1,000"),
    ] = None,
    shape: Annotated[Shape, typer.Option(help="The schedule of the requests.")] = Shape.SPIKE,
    processes: Annotated[int | None, typer.Option(help="Load processes.", show_default="chosen from the load")] = None,
    processing_delay: Annotated[
        float | None, typer.Option(help="Work of one job, seconds.", show_default="2 ÷ rate, at least 0.0004")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Timeout of a client, seconds.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Seed of random shapes.")] = 0,
    baseline: Annotated[
        Literal["live", "recorded", "none"], typer.Option(help="The naive API: measured now, as recorded, or left out.")
    ] = "live",
    output: Annotated[Path, typer.Option(help="Folder for the run folder.")] = Path("runs"),
    live: Annotated[bool, typer.Option("--live", help="Show the spike on a page while it runs.")] = False,
    nodes: Annotated[
        int, typer.Option(help="Servers of the store; 6 or more: a cluster, and a 202 waits for one replica.")
    ] = 1,
    kill_primary: Annotated[
        bool, typer.Option("--kill-primary", help="kill -9 one of the cluster's primaries in mid-spike.")
    ] = False,
    upstash: Annotated[bool, typer.Option(help="Run on Upstash, after showing the cost.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before using Upstash.")] = False,
) -> None:
    """Fire a spike of real HTTP requests at the queue API, drain it, and account for every request.

    Exit code 0 only if all were accepted and none was lost. Writes result.json and figure.png into a new run folder.
    """
    console = Console()
    plan = SpikePlan(
        requests=requests,
        rate_per_s=rate,
        shape=shape,
        processes=processes,
        seed=seed,
        timeout_s=timeout,
        sizes_work=processing_delay is None,
        baseline=baseline,
        command=shlex.join(["overload-demo", *sys.argv[1:]]),
    )
    with one_line_errors():
        plan.load("http://127.0.0.1", 1.0 if rate is None else rate)  # report an invalid load before anything starts
        if live:
            from overload_demo.live import page  # noqa: F401  # report a missing extra before anything starts
        if processing_delay is None:
            processing_delay = sized_delay_s(rate) if rate is not None and not upstash else MIN_DELAY_S
        if kill_primary and nodes == 1:
            raise ConfigurationError("--kill-primary needs a cluster: --nodes 6")
        _check_settings(processing_delay, nodes, upstash=upstash)
        if upstash:
            _ask_before_upstash(console, requests, processing_delay, yes=yes)
        stack = {"processing_delay_s": processing_delay, "upstash": upstash, "nodes": nodes, "runs": output}
        work = _spike(plan, stack, [Kill("primary", KILL_AFTER_SHARE)] * kill_primary, live, console)
        result, kills, folder = run_async(work, "all started processes have ended")
    _show(console, result, kills, folder)
    raise typer.Exit(0 if result.verdict == "absorbed" else 1)


def _show(console: Console, result: SpikeResult, kills: list[KillSeen], folder: Path) -> None:
    console.print(report.table(result))
    for kill in kills:
        gap = "no 202 came after it" if kill.back_s is None else f"next 202 after {kill.back_s:.2f} s"
        console.print(f"  {kill.part} killed at {kill.at_s:.1f} s: {gap}", highlight=False, style="dim")
    for note in report.notes(result):
        console.print(f"  {note}", markup=False, highlight=False, style="dim")
    console.print(f"  written: {folder / 'result.json'}, {folder / 'figure.png'}", highlight=False, soft_wrap=True)


async def _spike(
    plan: SpikePlan, wanted: dict[str, Any], kills: list[Kill], live: bool, console: Console
) -> tuple[SpikeResult, list[KillSeen], Path]:
    from overload_demo.lab import plots  # matplotlib takes half a second to load

    console.print(f"Starting store, API and worker; then {plan.requests:,} requests.", highlight=False)
    stack, killed = await Stack.start(placement="process", name="spike", **wanted), list[KillSeen]()
    async with stack, AsyncExitStack() as views:
        view = await views.enter_async_context(_live_page(console)) if live else None
        with spike_progress(plan.requests, console) as bars:
            if kills:
                crash = await run_with_kills(stack, plan, kills, bars, live=view, out_dir=stack.folder)
                result, killed = crash.spike, crash.kills
                plots.recovery(crash).save(stack.folder / "recovery.png")
            else:
                result = await run_spike(stack, plan, bars, live=view, out_dir=stack.folder)
        plots.spike(result).save(stack.folder / "figure.png")
    return result, killed, stack.folder


@asynccontextmanager
async def _live_page(console: Console) -> AsyncIterator[OnProgress]:
    """Serve a page of the spike; yield its view once the first viewer has opened it, or 30 s later."""
    from overload_demo.live.feed import Feed
    from overload_demo.live.page import Page  # FastAPI and Bokeh are slow to load
    from overload_demo.live.sources import SpikeFeed

    feed = Feed(title="overload-demo spike", status="ready")
    with Page(feed) as page:
        hint = f"Open {page.address}  The spike begins when it is shown, or in {VIEWER_WITHIN_S:g} s."
        console.print(hint, highlight=False, soft_wrap=True)
        await page.first_viewer(VIEWER_WITHIN_S)
        yield SpikeFeed(feed)


def _check_settings(processing_delay_s: float, nodes: int, *, upstash: bool) -> None:
    """Raise :class:`ConfigurationError` for what the stack would refuse, before anything starts."""
    if upstash and nodes > 1:
        raise ConfigurationError("either --upstash or --nodes")
    embedded = {} if upstash else {"upstash_redis_rest_url": None, "upstash_redis_rest_token": None}
    load_settings(overload_nodes=nodes, worker_processing_delay=processing_delay_s, **embedded)


def _ask_before_upstash(console: Console, requests: int, processing_delay_s: float, *, yes: bool) -> None:
    if not load_settings().uses_upstash:
        raise ConfigurationError("set UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN to run on Upstash")
    console.print(f"On Upstash: {estimate(requests, processing_delay_s).text}.", highlight=False, soft_wrap=True)
    if not yes and not typer.confirm("Continue?"):
        raise typer.Exit(1)
