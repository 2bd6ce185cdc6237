"""Latency and CPU time of a command through the gateway: ``python -m experiments.bench.gateway``.

Compared with the same command on the same server through a minimal endpoint: ``bare_endpoint`` of ``compared.py``,
under uvicorn with the gateway's flags.
"""

import asyncio
import statistics
import time
from pathlib import Path

import psutil
import typer
import uvloop
from pydantic import SecretStr

from experiments.bench.record import Folder, Rounds, Row, recording
from experiments.bench.servers import folder_in, store_on_a_port, uvicorn
from overload_demo.rest import Address
from overload_demo.rest.client import Upstash

EXCHANGES = 8000
CONCURRENCY = 16
TURNS = 20
COMMAND = ("GET", "a-key-that-is-not-there")
Pair = tuple[float, float]
Endpoint = tuple[Upstash, psutil.Process]  # a client, and the process that serves it


def main(pairs: Rounds = 5, folder: Folder = Path()) -> None:
    """Measure both in turn, and record the ratios."""
    with (
        recording("gateway", folder) as (rows, notes),
        folder_in(folder) as own,
        store_on_a_port(own) as store,
        uvicorn("experiments.bench.compared:bare_endpoint", own, "--no-date-header") as (bare_url, bare_pid),
    ):
        addresses = [(store["url"], store["token"], store["pid"]), (bare_url, "none", bare_pid)]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            seen = [runner.run(_costs(addresses)) for _ in range(pairs)]
        what = "a command through the gateway ÷ through a bare ASGI endpoint, "
        hows = ("p50, one after the other", f"CPU time of its process, {CONCURRENCY} at a time")
        rows += [
            Row.of_pairs(what + how, list(costs), factor=1000, unit="ms", at_least=1.5, less_is_better=True)
            for how, costs in zip(hows, zip(*seen, strict=True), strict=True)
        ]
        notes |= {"exchanges a measurement": EXCHANGES, "command": " ".join(COMMAND)}


async def _costs(addresses: list[tuple[str, str, int]]) -> tuple[Pair, Pair]:
    """Return the median time of an exchange and the CPU time its process took for one, seconds, of both endpoints."""
    ours, bare = (
        (Upstash(Address(url, SecretStr(token)), connections=CONCURRENCY), psutil.Process(pid))
        for url, token, pid in addresses
    )
    try:
        for endpoint in (ours, bare):
            await asyncio.gather(*(_exchanges(endpoint, 10) for _ in range(CONCURRENCY)))  # open all connections
        return await _p50s(ours, bare), await _cpu(ours, bare)
    finally:
        await asyncio.gather(ours[0].aclose(), bare[0].aclose())


async def _p50s(*endpoints: Endpoint) -> Pair:
    """Alternate exchange by exchange, so that other load on the machine slows both alike."""
    times_s: dict[Endpoint, list[float]] = {endpoint: [] for endpoint in endpoints}
    for _ in range(EXCHANGES):
        for endpoint in endpoints:
            since = time.perf_counter()
            await endpoint[0].command(*COMMAND)
            times_s[endpoint].append(time.perf_counter() - since)
    ours, bare = map(statistics.median, times_s.values())
    return ours, bare


async def _cpu(*endpoints: Endpoint) -> Pair:
    """Alternate in turns for the same reason; a process uses no CPU during the other's turn."""
    before = [sum(endpoint[1].cpu_times()[:2]) for endpoint in endpoints]
    for _ in range(TURNS):
        for endpoint in endpoints:
            share = EXCHANGES // TURNS // CONCURRENCY
            await asyncio.gather(*(_exchanges(endpoint, share) for _ in range(CONCURRENCY)))
    after = [sum(endpoint[1].cpu_times()[:2]) for endpoint in endpoints]
    ours, bare = ((new - old) / EXCHANGES for new, old in zip(after, before, strict=True))
    return ours, bare


async def _exchanges(endpoint: Endpoint, count: int) -> None:
    for _ in range(count):
        await endpoint[0].command(*COMMAND)


if __name__ == "__main__":
    typer.run(main)
