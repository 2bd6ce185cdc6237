"""``overload-demo``: the spike as one command, the commands around it, and the administration of the queue.

``overload-demo queue`` chooses the store as ``python -m overload_demo.api`` does: the embedded store of
OVERLOAD_DATA_DIR, with its own server or that of OVERLOAD_REDIS_URL, or Upstash.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from overload_demo import __version__
from overload_demo.cli.spike_command import spike
from overload_demo.config import Settings, load_settings
from overload_demo.console import fail, one_line_errors
from overload_demo.course import Level
from overload_demo.errors import ConfigurationError
from overload_demo.jobs import shard_of
from overload_demo.process import run_async
from overload_demo.queue.maintenance import DeadLetter, QueueAdmin
from overload_demo.store.connect import EmbeddedStore, Store, open_store, opened
from overload_demo.store.data_dir import DataDir

Value = TypeVar("Value")

SHARD_COMMAND_S = 2.5  # above the gateway's 2 s, after which it answers that nothing was done
WHY_NOT = {
    "no payload": "its payload is gone, there is nothing to run",
    "unknown": "no such job",
    "not dead": "it is no longer on the dead-letter list",
}
REPAIRS = {
    "queued": "waiting jobs that were not in the list: put at its tail",
    "leased": "running jobs without a lease: requeued unless a worker extends the lease",
    "freed": "leases without a running job: removed",
    "cancelled": "cancelled jobs that were not in the list: set to expire",
    "jobs:seq": "sequence number was behind the jobs: raised",
    "fence": "fence was behind the jobs: raised",
    "tombstones": "count of cancelled jobs in the list was wrong: corrected",
}

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
queue = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Pause, resume or repair the queue.")
dead = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Manage the dead-letter list: jobs that were interrupted too often or cannot be read.",
    short_help="List, show, requeue or purge dead jobs.",
)
app.add_typer(queue, name="queue")
queue.add_typer(dead, name="dead")


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


app.command(short_help="Fire a spike at the queue API and account for every request.")(spike)


@app.command(short_help="Show the numbers of a running API in this terminal.")
def watch(url: Annotated[str, typer.Argument(help="URL of a running API.")] = "http://127.0.0.1:8000") -> None:
    """Show the numbers of a running API in this terminal, five times a second, until Ctrl-C."""
    with one_line_errors():
        run_async(_watch(url), "the API keeps running")


async def _watch(url: str) -> None:
    from overload_demo.live.feed import Feed
    from overload_demo.live.sources import ApiWatch, show_in_terminal

    feed = Feed(title="overload_demo", status=f"watching {url}")
    with closing(ApiWatch(url, feed)) as api:
        await api.check()
        await asyncio.gather(api.run(), show_in_terminal(feed, Console()))


@app.command(short_help="Run notebooks again and report their exercises.")
def check(
    notebooks: Annotated[list[Path], typer.Argument(help="Notebooks to run; of a folder, only its inventory is read.")],
    level: Annotated[Level, typer.Option(help="Load level.")] = Level.TEST,
    json: Annotated[Path | None, typer.Option(help="Write the findings to this file as JSON.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the findings to this file as CSV.")] = None,
) -> None:
    """Run notebooks again from an empty kernel; report exercises, predictions, inventories and the gain of a class.

    Exit code 0 only if every exercise is right, no cell failed, and no inventory is unreadable. No file is changed.
    """
    from overload_demo.course import inventory, rerun  # needs the packages of an extra

    with one_line_errors():
        opened = [(rerun.read(path), path) for path in notebooks if not path.is_dir()]  # all, before one runs
        for path, form in (files := ((json, "json"), (csv, "csv"))):
            rerun.write([], path, form)  # report a file that cannot be written before the notebooks run
        found = [finding for notebook, path in opened for finding in rerun.rerun(notebook, path, level)]
        found += inventory.findings(notebooks)
        Console().print(rerun.table(found))
        for path, form in files:
            rerun.write(found, path, form)
    raise typer.Exit(1 if any(finding.is_open for finding in found) else 0)


@app.command(short_help="Empty the embedded store of OVERLOAD_DATA_DIR.")
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Empty the embedded store of OVERLOAD_DATA_DIR: delete all jobs, waiting or done."""
    with one_line_errors():
        settings = load_settings()
        folder = settings.overload_data_dir
        if not yes and not typer.confirm(f"Delete all jobs in {folder}?"):
            raise typer.Exit(1)
        with EmbeddedStore(folder, settings) as store:
            if (state := DataDir(folder).read_state()) and state.behind:
                raise ConfigurationError(f"the store uses {state.behind}: reset empties the embedded store only")
            asyncio.run(_flush((store.acquire(), None)))
    _print(f"{folder} is empty")


async def _flush(store: Store) -> None:
    async with opened(store) as clients:
        for upstash in clients:
            await upstash.command("FLUSHDB", repeatable=True)


@queue.command(short_help="Lease no more jobs to workers.")
def pause() -> None:
    """Lease no more jobs to workers; running jobs finish, and new jobs are still accepted."""
    _with_admin(lambda admin: admin.pause())
    _print("queue paused; overload-demo queue resume ends the pause")


@queue.command()
def resume() -> None:
    """Lease jobs to workers again."""
    _with_admin(lambda admin: admin.resume())
    _print("queue resumed")


@queue.command(short_help="Repair the queue after a failover that has lost some keys.")
def reconcile() -> None:
    """Repair the queue after a failover that has lost some keys; safe at any time, also under load."""
    repaired = _with_admin(lambda admin: admin.reconcile())
    for kind, count in sorted(repaired.items()):
        _print(f"{count}  {REPAIRS.get(kind, kind)}")
    if not repaired:
        _print("nothing to repair")


@dead.command("list")
def list_dead(limit: Annotated[int, typer.Option(help="Entries to show, oldest first.", min=1)] = 100) -> None:
    """Show dead jobs, one a line: id, time, reason."""
    letters = _with_admin(lambda admin: admin.dead_letters(limit))
    for letter in letters:
        _print(f"{letter.job_id or '-'}  {letter.at or '-'}  {letter.reason}")
    if not letters:
        _print("the dead-letter list is empty")


@dead.command("show")
def show_dead(job_id: Annotated[str, typer.Argument(help="A job's id.")]) -> None:
    """Show all stored fields of a job, as JSON."""
    fields: dict[str, Any] = dict(_with_admin(lambda admin: admin.job(job_id)))
    if not fields:
        fail(f"{job_id}: no such job")
    for name in ("payload", "result"):
        with suppress(KeyError, ValueError, RecursionError):
            fields[name] = json.loads(fields[name])
    _print(json.dumps(fields, indent=2))


@dead.command("requeue", short_help="Put dead jobs back into the queue.")
def requeue_dead(
    job_ids: Annotated[list[str] | None, typer.Argument(help="Ids of dead jobs.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead jobs.")] = False,
) -> None:
    """Put dead jobs back at the tail of the queue, with all their attempts. Exit code 1 if one was not requeued."""
    wanted = list(dict.fromkeys(job_ids or []))

    async def requeue(admin: QueueAdmin) -> dict[str, str]:
        letters = {letter.job_id: letter for letter in await admin.dead_letters() if letter.job_id}
        # An id that is not on the list may have been requeued by an earlier call: the script returns its state.
        unlisted = {one: DeadLetter(one, "", "", "", shard_of(one)) for one in wanted}
        chosen = letters if everything else unlisted | {one: letters[one] for one in wanted if one in letters}
        return dict(zip(chosen, await admin.requeue(list(chosen.values())), strict=True))

    with one_line_errors():
        if bool(wanted) == everything:
            raise ConfigurationError("give the ids of the jobs to requeue, or --all")
    outcomes = _with_admin(requeue)
    done = sum(outcome == "queued" for outcome in outcomes.values())
    if done or not outcomes:
        _print(f"{_counted(done, 'job')} requeued")
    left = [f"{one}: {WHY_NOT.get(why, f'it is {why}')}" for one, why in outcomes.items() if why != "queued"]
    if left:
        fail("not requeued: " + "; ".join(left[:5]) + (f"; and {len(left) - 5} more" if len(left) > 5 else ""))


@dead.command("purge", short_help="Empty the dead-letter list.")
def purge_dead(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Empty the dead-letter list; its jobs expire after QUEUE_RESULT_TTL seconds, like any other finished job."""

    async def purge(admin: QueueAdmin) -> int:
        letters = await admin.dead_letters()
        if letters and not yes and not typer.confirm(f"Purge {_counted(len(letters), 'dead job')}?"):
            raise typer.Exit(1)
        await admin.purge(letters)
        return len(letters)

    _print(f"{_counted(_with_admin(purge), 'dead job')} purged")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _with_admin(work: Callable[[QueueAdmin], Awaitable[Value]]) -> Value:
    """Run ``work`` on the configured store; report an error in one line."""

    async def run(settings: Settings) -> Value:
        deadline_s = settings.overload_store_deadline_s
        with open_store(settings) as store:
            # The check in open_store has waited for a dead one of several shards already.
            timeout_s = min(SHARD_COMMAND_S, deadline_s) if store[0].others else deadline_s
            async with opened(store, timeout_s=timeout_s) as clients:
                return await work(QueueAdmin(clients, settings))

    with one_line_errors():
        return run_async(run(load_settings()), "run the command again to finish its work")


def _print(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)


def main() -> None:
    """Run the ``overload-demo`` command."""
    app()
