"""``python -m overload_demo.load URL``: run the load generator alone, with live progress and a table.

Exit status: 0 when every planned request was accepted, 1 when not, 2 for a mistake in the arguments, 130 or 143 when
interrupted or terminated.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from overload_demo.config import load_settings
from overload_demo.console import one_line_errors, run_command
from overload_demo.errors import ConfigurationError
from overload_demo.load.generator import LoadProgress, run_load
from overload_demo.load.load_result import LoadResult, LoadSummary
from overload_demo.load.outcomes import Ending, RetrySummary
from overload_demo.load.plan import LoadPlan, RetryPolicy, Shape, duration
from overload_demo.process import run_async

CONNECT_WITHIN_S = 3.0
RETRY = "repeat failed requests, e.g. attempts=4,backoff=exponential,base=0.1,jitter=full,budget=0.1"
RETRY += f"; names: {', '.join(RetryPolicy.names())}"


def main(
    url: Annotated[str, typer.Argument(help="base URL; requests go to URL/jobs, e.g. http://127.0.0.1:8000")],
    requests: Annotated[int, typer.Option(help="how many requests to send")] = 10_000,
    rate: Annotated[float, typer.Option(help="full arrival rate, requests a second")] = 1000.0,
    shape: Annotated[str, typer.Option(help=f"arrivals over time: {', '.join(Shape)}")] = Shape.SPIKE.value,
    seed: Annotated[int, typer.Option(help="seed of the poisson shape and of the jitter")] = 0,
    processes: Annotated[
        int | None, typer.Option(help="load processes", show_default="as many as rate and sockets need")
    ] = None,
    timeout: Annotated[float, typer.Option(help="timeout of one attempt, seconds from its send")] = 30.0,
    closed: Annotated[
        bool, typer.Option("--closed", help="closed loop: clients wait for each response (ignores rate and shape)")
    ] = False,
    connections: Annotated[int | None, typer.Option(help="clients of the closed loop", show_default="64")] = None,
    success_status: Annotated[int, typer.Option(help="status that counts as accepted")] = 202,
    max_duration: Annotated[
        float | None, typer.Option(help="stop sending after so many seconds", show_default="no limit")
    ] = None,
    expires_in: Annotated[
        float | None, typer.Option(help="seconds within which a job must start, else it fails", show_default="no limit")
    ] = None,
    retry: Annotated[str | None, typer.Option(help=RETRY, metavar="NAME=VALUE,…", show_default="no repeats")] = None,
    output: Annotated[
        Path | None, typer.Option(help="folder for load.npz and load.json", show_default="nowhere", file_okay=False)
    ] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="allow a target on another machine")] = False,
) -> None:
    """Send requests to an API by a fixed schedule and account for every one of them.

    The API key is read from the environment variable OVERLOAD_API_KEY.
    """
    with one_line_errors(2):
        load_settings()  # report an invalid key once, before every load process does
        if connections is not None and not closed:
            raise ConfigurationError("connections: only a closed loop has so many clients: add --closed")
        plan = LoadPlan(
            url=url,
            requests=requests,
            rate_per_s=rate,
            shape=shape,  # type: ignore[arg-type]  # the plan validates it
            seed=seed,
            timeout_s=timeout,
            processes=processes,
            connections=64 if closed and connections is None else connections,
            success_status=success_status,
            max_duration_s=max_duration,
            expires_in_s=expires_in,
            allow_remote=allow_remote,
            retry=None if retry is None else RetryPolicy.parse(retry),
        )
    console = Console()
    with one_line_errors():
        check_reachable(plan.url)
        (output or Path()).mkdir(parents=True, exist_ok=True)  # an error is reported before the load
        summary = run_async(_fire(plan, output, console), "the load processes have ended").summary()
    console.print(summary_table(summary))
    for remark in summary.remarks:
        console.print(f"note: {remark}", highlight=False)
    raise typer.Exit(0 if summary.all_accepted else 1)


def check_reachable(url: str) -> None:
    """Raise :class:`ConfigurationError` unless ``url`` accepts a connection."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), CONNECT_WITHIN_S).close()
    except OSError as error:
        raise ConfigurationError(f"{url} cannot be reached: {error.strerror or error}") from None


async def _fire(plan: LoadPlan, output: Path | None, console: Console) -> LoadResult:
    """Run the load with a progress bar."""
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        shown = bar.add_task("starting the load processes", total=plan.requests)

        def show(progress: LoadProgress) -> None:
            text = f"{progress.accepted:,} accepted, {progress.failed:,} failed, {progress.in_flight:,} in flight"
            bar.update(shown, completed=progress.accepted + progress.errors, description=text)

        return await run_load(plan, out_dir=output, on_progress=show)


def summary_table(summary: LoadSummary) -> Table:
    """Return the summary as a rich table of two columns."""
    table = Table(title=f"Load, {summary.mode}", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("value", justify="right")
    for name in ("planned", "sent", "dropped", "accepted"):
        table.add_row(name, f"{getattr(summary, name):,}")
    for name, count in summary.failures.items():
        table.add_row(name, f"{count:,}", style="red")
    if summary.not_fired:
        table.add_row("not sent (past the longest duration)", f"{summary.not_fired:,}")
    for row in retry_rows(summary.retry) if summary.retry else ():
        table.add_row(*row)
    table.add_row("duration", f"{summary.duration_s:.2f} s")
    table.add_row("sent / accepted a second", f"{summary.sent_per_s:,.0f} / {summary.accepted_per_s:,.0f}")
    for name, times in (("response time", summary.response_time), ("service time", summary.service_time)):
        shown = _times(times.p50_s, times.p99_s, times.p999_s, times.max_s) if times else "nothing was accepted"
        table.add_row(f"{name} p50 / p99 / p99.9 / max", shown)
    health = summary.health
    table.add_row("schedule lag p50 / p99 / max", _times(health.lag_p50_s, health.lag_p99_s, health.lag_max_s))
    table.add_row("CPU of the load processes", ", ".join(f"{100 * share:.0f} %" for share in health.cpu_share))
    table.add_row("most open sockets", f"{health.peak_open_sockets:,}")
    table.add_row("verdict", summary.verdict, style="bold")
    table.add_row("", summary.reason)
    return table


def retry_rows(retry: RetrySummary) -> Iterator[tuple[str, str]]:
    """Yield the rows on attempts: how many, how they ended, and why requests were given up."""
    yield "attempts (a request)", f"{retry.attempts:,} ({retry.attempts_per_request:.2f})"
    yield "outcomes of attempts", ", ".join(f"{count:,} {name}" for name, count in retry.attempt_outcomes.items())
    for ending in (Ending.EXHAUSTED, Ending.REFUSED_BY_BUDGET, Ending.OUT_OF_PATIENCE, Ending.NOT_REPEATABLE):
        yield f"given up: {ending.value.replace('_', ' ')}", f"{getattr(retry, ending):,}"
    yield "different jobs", f"{retry.jobs:,}"


def _times(*seconds: float) -> str:
    return " / ".join(map(duration, seconds))


if __name__ == "__main__":
    run_command(main, "python -m overload_demo.load")
