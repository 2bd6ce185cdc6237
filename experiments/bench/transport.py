"""What an exchange with the store on this machine takes, by both transports: ``python -m experiments.bench.transport``.

The same client, gateway and command; only the host is spelled differently, and so taken for this machine or not.
"""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from pydantic import SecretStr

from experiments.bench.record import Benchmark, Place, Row
from experiments.bench.servers import folder_in, store_on_a_port
from overload_demo.console import one_line_errors
from overload_demo.rest.address import Address
from overload_demo.rest.client import Upstash

EXCHANGES = 1000
ELSEWHERE = "127.1"  # 127.0.0.1 to the operating system, and no name of this machine to the client


def main(
    pairs: Annotated[int, typer.Option(help="measurements of each", min=1)] = 5,
    folder: Annotated[Path, typer.Option(help="where the store's data goes for the while; not on tmpfs")] = Path(),
) -> None:
    """Measure both in turn, and record the ratio."""
    with one_line_errors(), folder_in(folder) as own, store_on_a_port(own) as near:
        place = Place.here("experiments.bench.transport", folder)
        far = near | {"url": near["url"].replace("127.0.0.1", ELSEWHERE)}
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            measured = [(runner.run(_p50_s(near)), runner.run(_p50_s(far))) for _ in range(pairs)]
        row = Row(
            what="an exchange with the store (PING), own transport ÷ httpx's",
            unit="ms",
            ours=[1000 * one for one, _ in measured],
            theirs=[1000 * other for _, other in measured],
            less_is_better=True,
        )
        Benchmark(place=place, rows=[row], notes={"exchanges a measurement": EXCHANGES}).record("transport")


async def _p50_s(store: dict[str, str]) -> float:
    """The median time of an exchange, seconds, one after the other."""
    upstash, times_s = Upstash(Address(store["url"], SecretStr(store["token"]))), []
    try:
        for _ in range(EXCHANGES):
            since = time.perf_counter()
            await upstash.command("PING")
            times_s.append(time.perf_counter() - since)
    finally:
        await upstash.aclose()
    return statistics.median(times_s)


if __name__ == "__main__":
    typer.run(main)
