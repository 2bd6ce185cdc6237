"""``overload-demo``: the spike as one command, and the commands around it."""

import asyncio
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from overload_demo import __version__
from overload_demo.cli.queue_commands import queue
from overload_demo.config import load_settings
from overload_demo.console import one_line_errors
from overload_demo.course.level import Level
from overload_demo.errors import ConfigurationError
from overload_demo.lab import report
from overload_demo.lab.report import estimate
from overload_demo.lab.result import SpikeResult
from overload_demo.lab.spike_plan import MIN_DELAY_S, OnProgress, SpikePlan, sized_delay_s, spike_progress
from overload_demo.lab.spike_run import run_spike
from overload_demo.lab.stack import Stack
from overload_demo.load import Shape
from overload_demo.process import run_async
from overload_demo.rest.address import Address
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import EmbeddedStore

VIEWER_WITHIN_S = 30.0

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(queue, name="queue")


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"overload-demo {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """A queue-based API that survives the traffic spike which stops an API that works inline."""


@app.command(short_help="Fire a spike at the queue API and account for every request.")
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
        if upstash:
            _ask_before_upstash(console, requests, processing_delay, yes=yes)
        work = _spike(plan, processing_delay, upstash, output, live, console)
        result, folder = run_async(work, "all started processes have ended")
    console.print(report.table(result))
    for note in report.notes(result):
        console.print(f"  {note}", markup=False, highlight=False, style="dim")
    console.print(f"  written: {folder / 'result.json'}, {folder / 'figure.png'}", highlight=False, soft_wrap=True)
    raise typer.Exit(0 if result.verdict == "absorbed" else 1)


async def _spike(
    plan: SpikePlan, processing_delay: float, upstash: bool, output: Path, live: bool, console: Console
) -> tuple[SpikeResult, Path]:
    from overload_demo.lab import plots  # matplotlib takes half a second to load

    console.print(f"Starting store, API and worker; then {plan.requests:,} requests.", highlight=False)
    stack = await Stack.start(
        placement="process", processing_delay_s=processing_delay, upstash=upstash, runs=output, name="spike"
    )
    async with stack, AsyncExitStack() as views:
        view = await views.enter_async_context(_live_page(console)) if live else None
        with spike_progress(plan.requests, console) as bars:
            result = await run_spike(stack, plan, bars, live=view, out_dir=stack.folder)
        plots.spike(result).save(stack.folder / "figure.png")
    return result, stack.folder


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


def _ask_before_upstash(console: Console, requests: int, processing_delay_s: float, *, yes: bool) -> None:
    if not load_settings().uses_upstash:
        raise ConfigurationError("set UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN to run on Upstash")
    console.print(f"On Upstash: {estimate(requests, processing_delay_s).text}.", highlight=False, soft_wrap=True)
    if not yes and not typer.confirm("Continue?"):
        raise typer.Exit(1)


@app.command(short_help="Show the numbers of a running API in this terminal.")
def watch(url: Annotated[str, typer.Argument(help="URL of a running API.")] = "http://127.0.0.1:8000") -> None:
    """Show the numbers of a running API in this terminal, five times a second, until Ctrl-C."""
    with one_line_errors():
        try:
            asyncio.run(_watch(url))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


async def _watch(url: str) -> None:
    from overload_demo.live.feed import Feed
    from overload_demo.live.sources import ApiWatch, show_in_terminal

    feed = Feed(title="overload_demo", status=f"watching {url}")
    with closing(ApiWatch(url, feed)) as api:
        await api.check()
        async with asyncio.TaskGroup() as both:
            both.create_task(api.run())
            both.create_task(show_in_terminal(feed, Console()))


@app.command(short_help="Run notebooks again and report their exercises.")
def check(
    notebooks: Annotated[list[Path], typer.Argument(help="Notebooks to run, e.g. notebooks/*.ipynb.")],
    level: Annotated[Level, typer.Option(help="Load level.")] = Level.TEST,
    json: Annotated[Path | None, typer.Option(help="Write the findings to this file as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the findings to this file as CSV.")] = None,
) -> None:
    """Run notebooks again from an empty kernel and report their exercises and predictions.

    Exit code 0 only if every exercise is right and no cell failed. The notebooks' files are not changed.
    """
    from overload_demo.course import rerun  # needs the packages of an extra

    with one_line_errors():
        opened = [(rerun.read(path), path) for path in notebooks]  # all, before the first one runs for minutes
        found = [finding for notebook, path in opened for finding in rerun.rerun(notebook, path, level)]
        Console().print(rerun.table(found))
        if json:
            rerun.write(found, json, "json")
        if csv:
            rerun.write(found, csv, "csv")
    raise typer.Exit(1 if any(finding.is_open for finding in found) else 0)


@app.command(short_help="Empty the embedded store of OVERLOAD_DATA_DIR.")
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Empty the embedded store of OVERLOAD_DATA_DIR: delete all jobs, waiting or done."""
    with one_line_errors():
        settings = load_settings()
        folder = settings.overload_data_dir
        if not yes and not typer.confirm(f"Delete all jobs in {folder}?"):
            raise typer.Exit(1)
        if settings.overload_redis_url is not None:
            raise ConfigurationError("OVERLOAD_REDIS_URL is set: reset empties the embedded store only")
        with EmbeddedStore(folder, settings) as store:
            asyncio.run(_flush(store.acquire()))
    Console().print(f"{folder} is empty", highlight=False, soft_wrap=True)


async def _flush(address: Address) -> None:
    upstash = Upstash(address)
    try:
        await upstash.command("FLUSHDB", repeatable=True)
    finally:
        await upstash.aclose()


def main() -> None:
    """Run the ``overload-demo`` command."""
    app()
