"""What a command costs on its way through the gateway: ``python -m experiments.bench.gateway``.

Beside it the same command on the same server by the least that could be there instead: an ASGI endpoint without token,
limits or formats that uses the same client library (``bare_endpoint``), under uvicorn with the gateway's flags.
"""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import psutil
import typer
import uvloop
from pydantic import SecretStr

from experiments.bench.record import Benchmark, Place, Row
from experiments.bench.servers import folder_in, store_on_a_port, uvicorn
from overload_demo.console import one_line_errors
from overload_demo.rest.client import Address, Upstash

EXCHANGES = 8000
TOGETHER = 16
TURNS = 20
COMMAND = ("GET", "a-key-that-is-not-there")


class Endpoint(NamedTuple):
    """Where commands go, and the process that serves them."""

    upstash: Upstash
    process: psutil.Process


def main(
    pairs: Annotated[int, typer.Option(help="measurements of each", min=1)] = 5,
    folder: Annotated[Path, typer.Option(help="where the store's data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure both in turn, and record the ratios."""
    with (
        one_line_errors(),
        folder_in(folder) as own,
        store_on_a_port(own) as told,
        uvicorn("experiments.bench.bare_endpoint:app", own, "--no-date-header") as (bare_url, bare_pid),
    ):
        place = Place.here("experiments.bench.gateway", folder)
        addresses = [(told["url"], told["token"], told["pid"]), (bare_url, "none", bare_pid)]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seen = [runner.run(_costs(addresses)) for _ in range(pairs)]
        rows = [
            _row("p50, one after the other", [times for times, _ in seen]),
            _row(f"CPU time of its process, {TOGETHER} at a time", [cpu for _, cpu in seen]),
        ]
        notes = {"exchanges a measurement": EXCHANGES, "command": " ".join(COMMAND)}
        Benchmark(place=place, rows=rows, notes=notes).record("gateway")


def _row(how: str, pairs_ms: list[list[float]]) -> Row:
    return Row(
        what=f"a command through the gateway ÷ through a bare ASGI endpoint, {how}",
        unit="ms",
        ours=[ours for ours, _ in pairs_ms],
        theirs=[theirs for _, theirs in pairs_ms],
        at_least=1.5,
        less_is_better=True,
    )


async def _costs(addresses: list[tuple[str, str, int]]) -> tuple[list[float], list[float]]:
    """Of each endpoint the median time of an exchange, and the CPU time its process took for one, in ms."""
    endpoints = [
        Endpoint(Upstash(Address(url, SecretStr(token)), connections=TOGETHER), psutil.Process(pid))
        for url, token, pid in addresses
    ]
    try:
        for endpoint in endpoints:
            await asyncio.gather(*(_exchanges(endpoint, 10) for _ in range(TOGETHER)))  # all connections are open
        return await _p50s_ms(endpoints), await _cpu_ms(endpoints)
    finally:
        for endpoint in endpoints:
            await endpoint.upstash.aclose()


async def _p50s_ms(endpoints: list[Endpoint]) -> list[float]:
    """Exchange by exchange in turn, so that whatever else the machine does slows all alike."""
    times_s: list[list[float]] = [[] for _ in endpoints]
    for _ in range(EXCHANGES):
        for endpoint, its_times_s in zip(endpoints, times_s, strict=True):
            since = time.perf_counter()
            await endpoint.upstash.command(*COMMAND)
            its_times_s.append(time.perf_counter() - since)
    return [1000 * statistics.median(its_times_s) for its_times_s in times_s]


async def _cpu_ms(endpoints: list[Endpoint]) -> list[float]:
    """By turns for the same reason; a process takes no time while it is the other's turn."""
    before = [endpoint.process.cpu_times() for endpoint in endpoints]
    for _ in range(TURNS):
        for endpoint in endpoints:
            await asyncio.gather(*(_exchanges(endpoint, EXCHANGES // TURNS // TOGETHER) for _ in range(TOGETHER)))
    after = [endpoint.process.cpu_times() for endpoint in endpoints]
    spent_s = [new.user + new.system - old.user - old.system for new, old in zip(after, before, strict=True)]
    return [1000 * one / EXCHANGES for one in spent_s]


async def _exchanges(endpoint: Endpoint, count: int) -> None:
    for _ in range(count):
        await endpoint.upstash.command(*COMMAND)


if __name__ == "__main__":
    typer.run(main)
