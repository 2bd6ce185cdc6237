"""What a run asked of its store: HTTP exchanges, and commands, counted both ways Upstash may bill them."""

import asyncio
from dataclasses import dataclass

from overload_demo.errors import StoreError
from overload_demo.lab.stack import Stack
from overload_demo.rest.client import Upstash


@dataclass(frozen=True)
class Cost:
    """Counts of a run, None where they are not known.

    ``calls``: HTTP exchanges of API and workers. ``scripts``: script calls. ``commands``: all commands, the scripts and
    those inside them.
    """

    calls: int | None = None
    scripts: int | None = None
    commands: int | None = None


async def read_cost(stack: Stack, upstash: Upstash, counting: dict[str, int]) -> Cost:
    """Read what a fresh stack has cost until now; ``counting`` are the process ids it began with, by role.

    A number that one of them kept is unknown once it was killed, rather than too small.
    """
    now = stack.process_ids()
    replaced = {role for role in counting | now if counting.get(role) != now.get(role)}
    calls = None if replaced - {"gateway", "redis"} else await asyncio.to_thread(stack.rest_calls)
    if "redis" in replaced:
        return Cost(calls)
    try:
        return Cost(calls, *count_commands(await upstash.command("INFO", "commandstats", repeatable=True)))
    except (StoreError, AttributeError, ValueError, LookupError):
        return Cost(calls)


def count_commands(commandstats: str) -> tuple[int, int]:
    """Script calls, and all commands, as the text of ``INFO commandstats`` tells them. Raises ValueError.

    INFO itself, with which only an observer asks, does not count.
    """
    run = {
        line.partition(":")[0].removeprefix("cmdstat_"): int(line.split("calls=")[1].split(",")[0])
        for line in commandstats.splitlines()
        if "calls=" in line
    }
    run.pop("info", None)
    return run.get("eval", 0) + run.get("evalsha", 0), sum(run.values())
