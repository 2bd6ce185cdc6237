"""``overload-demo dead``, ``reconcile``, ``pause``, ``resume``: what an operator does to the queue.

All work on the store that the settings name, like ``python -m overload_demo.api``: the embedded one of
OVERLOAD_DATA_DIR, a server of one's own behind it, or Upstash.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from overload_demo.config import Settings, load_settings
from overload_demo.console import fail, one_line_errors
from overload_demo.errors import ConfigurationError
from overload_demo.queue.maintenance import DeadLetter, QueueAdmin, QueueRepair
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import open_store

Value = TypeVar("Value")

dead = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look after dead jobs: interrupted too often, or unreadable. They wait for a person.",
    short_help="List, show, requeue or give up dead jobs.",
)

WHY_NOT = {
    "no payload": "its payload is gone, there is nothing to run",
    "unknown": "no such job",
    "not dead": "it is not on the dead list any more",
}
REPAIRS = {
    "queued": "waiting jobs that were not in the list: at its tail now",
    "leased": "running jobs without a lease: they come back when nobody extends it",
    "freed": "leases without a running job: removed",
    "buried": "cancelled jobs that were not in the list: they expire now",
    "jobs:seq": "sequence number was behind the jobs: raised",
    "fence": "fence was behind the jobs: raised",
    "tombstones": "count of cancelled jobs in the list was wrong: counted again",
}


def install(app: typer.Typer) -> None:
    """Add the commands to ``overload-demo``."""
    app.add_typer(dead, name="dead")
    app.command(short_help="Repair the queue after a failover that has lost some keys.")(reconcile)
    app.command(short_help="Hand no more jobs to workers.")(pause)
    app.command()(resume)


@dead.command("list")
def dead_list(
    limit: Annotated[int, typer.Option(help="Entries to show, oldest first.", min=1)] = 100,
) -> None:
    """Show dead jobs, one a line: id, since when, why."""
    letters = _with_admin(lambda admin: admin.dead_letters(limit))
    for letter in letters:
        _say(f"{letter.job_id or '-'}  {letter.at or '-'}  {letter.reason}")
    if not letters:
        _say("the dead list is empty")


@dead.command("show")
def dead_show(job_id: Annotated[str, typer.Argument(help="A job's id.")]) -> None:
    """Show all that the store holds of a job, as JSON."""

    async def read(admin: QueueAdmin) -> dict[str, Any]:
        return dict(await admin.job(job_id))

    fields = _with_admin(read)
    if not fields:
        fail(f"{job_id}: no such job")
    for name in ("payload", "result"):
        with suppress(KeyError, ValueError, RecursionError):
            fields[name] = json.loads(fields[name])
    _say(json.dumps(fields, indent=2))


@dead.command("requeue", short_help="Let dead jobs wait again.")
def dead_requeue(
    job_ids: Annotated[list[str] | None, typer.Argument(help="Ids of dead jobs.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead jobs.")] = False,
) -> None:
    """Let dead jobs wait again: at the tail, with all their attempts. Exit code 1 if one could not."""
    wanted = list(dict.fromkeys(job_ids or []))

    async def requeue(admin: QueueAdmin) -> dict[str, str]:
        letters = {letter.job_id: letter for letter in await admin.dead_letters() if letter.job_id}
        # One that is not on the list may have been requeued by an earlier call: the script says where it stands.
        chosen = list(letters.values()) if everything else [letters.get(one, _absent(one)) for one in wanted]
        return dict(zip([one.job_id for one in chosen], await admin.requeue(chosen), strict=True))

    with one_line_errors():
        if bool(wanted) == everything:
            raise ConfigurationError("name the jobs to requeue, or say --all")
    verdicts = _with_admin(requeue)
    done = sum(verdict == "queued" for verdict in verdicts.values())
    if done or not verdicts:
        _say(f"{done} {_jobs(done)} waiting again")
    left = [f"{one}: {WHY_NOT.get(why, f'it is {why}')}" for one, why in verdicts.items() if why != "queued"]
    if left:
        fail("not requeued: " + "; ".join(left[:5]) + (f"; and {len(left) - 5} more" if len(left) > 5 else ""))


@dead.command("purge", short_help="Empty the dead list.")
def dead_purge(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Empty the dead list; its jobs are kept QUEUE_RESULT_TTL seconds from now, like any other finished job."""

    async def purge(admin: QueueAdmin) -> int:
        letters = await admin.dead_letters()
        if letters and not yes and not typer.confirm(f"Give up {len(letters)} dead {_jobs(len(letters))}?"):
            raise typer.Exit(1)
        await admin.purge(letters)
        return len(letters)

    purged = _with_admin(purge)
    _say(f"{purged} dead {_jobs(purged)} given up")


def reconcile() -> None:
    """Repair the queue after a failover that has lost some keys; safe at any time, also while everything runs."""
    mended = _with_store(lambda upstash, settings: QueueRepair(upstash, settings).run())
    for kind, count in sorted(mended.items()):
        _say(f"{count}  {REPAIRS.get(kind, kind)}")
    if not mended:
        _say("nothing to repair")


def pause() -> None:
    """Hand no more jobs to workers; running ones are finished, and new ones are still accepted."""
    _with_admin(lambda admin: admin.pause())
    _say("the queue is paused; overload-demo resume lets it go on")


def resume() -> None:
    """Hand jobs to workers again."""
    _with_admin(lambda admin: admin.resume())
    _say("the queue goes on")


def _absent(job_id: str) -> DeadLetter:
    return DeadLetter(job_id, "", "", "")


def _jobs(count: int) -> str:
    return "job" if count == 1 else "jobs"


def _with_admin(work: Callable[[QueueAdmin], Awaitable[Value]]) -> Value:
    return _with_store(lambda upstash, settings: work(QueueAdmin(upstash, settings)))


def _with_store(work: Callable[[Upstash, Settings], Awaitable[Value]]) -> Value:
    """Do something with the store of the settings; what goes wrong is one line."""

    async def run(settings: Settings) -> Value:
        with open_store(settings) as (address, refresh):
            upstash = Upstash(address, timeout_s=settings.overload_store_deadline_s, refresh=refresh)
            try:
                return await work(upstash, settings)
            finally:
                await upstash.aclose()

    with one_line_errors():
        try:
            return asyncio.run(run(load_settings()))
        except KeyboardInterrupt:
            fail("interrupted", 130)


def _say(text: str) -> None:
    Console(highlight=False, soft_wrap=True).print(text, markup=False)
