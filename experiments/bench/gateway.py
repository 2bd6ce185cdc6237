"""What a command costs on its way through the gateway: ``python -m experiments.bench.gateway``.

Beside it the same command on the same server by the least that could be there instead: an ASGI endpoint without token,
limits or formats that uses the same client library (``bare_endpoint``), under uvicorn with the gateway's flags.
"""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Annotated

import psutil
import typer
import uvloop
from pydantic import SecretStr

from experiments.bench.record import Benchmark, Place, Row
from experiments.bench.servers import folder_in, our_api, state, uvicorn
from overload_demo.doors import one_line_errors
from overload_demo.upstash import Address, Upstash

EXCHANGES = 2000
TOGETHER = 16
COMMAND = ("GET", "a-key-that-is-not-there")


def main(
    pairs: Annotated[int, typer.Option(help="measurements of each", min=1)] = 5,
    folder: Annotated[Path, typer.Option(help="where the store's data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure both in turn, and record the ratios."""
    with (
        one_line_errors(),
        folder_in(folder) as own,
        our_api(own),
        uvicorn("experiments.bench.bare_endpoint:app", own, "--no-date-header") as (bare_url, bare_pid),
    ):
        place, told = Place.here("experiments.bench.gateway", folder), state(own)
        gateway = Address(told["url"], SecretStr(told["token"]))
        bare = Address(bare_url, SecretStr("none"))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seen = [
                (runner.run(_costs(gateway, told["pid"])), runner.run(_costs(bare, bare_pid))) for _ in range(pairs)
            ]
        rows = [
            Row(
                what=f"a command through the gateway ÷ a bare ASGI endpoint, {what}",
                unit=unit,
                ours=[ours[index] for ours, _ in seen],
                theirs=[theirs[index] for _, theirs in seen],
                at_least=1.5,
                less_is_better=True,
            )
            for index, (what, unit) in enumerate(
                [("p50 one after the other", "ms"), (f"its CPU time, {TOGETHER} at a time", "ms")]
            )
        ]
        notes = {"exchanges a measurement": EXCHANGES, "command": " ".join(COMMAND)}
        Benchmark(place=place, rows=rows, notes=notes).record("gateway")


async def _costs(address: Address, pid: int) -> tuple[float, float]:
    """The median time of an exchange, and the CPU time that the process took for one, both in ms."""
    upstash, process = Upstash(address, connections=TOGETHER), psutil.Process(pid)

    async def exchanges(count: int) -> list[float]:
        times_s = []
        for _ in range(count):
            since = time.perf_counter()
            await upstash.command(*COMMAND)
            times_s.append(time.perf_counter() - since)
        return times_s

    try:
        await asyncio.gather(*(exchanges(10) for _ in range(TOGETHER)))  # all connections are open
        p50_s = statistics.median(await exchanges(EXCHANGES))
        before = process.cpu_times()
        await asyncio.gather(*(exchanges(EXCHANGES // 2) for _ in range(TOGETHER)))
        after = process.cpu_times()
    finally:
        await upstash.aclose()
    cpu_s = after.user + after.system - before.user - before.system
    return 1000 * p50_s, 1000 * cpu_s / (TOGETHER * EXCHANGES // 2)


if __name__ == "__main__":
    typer.run(main)
