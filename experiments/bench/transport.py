"""Time of an exchange with the store on this machine, by both transports: ``python -m experiments.bench.transport``.

Client, gateway and command are the same. Only the spelling of the host differs, so that the client
uses the transport for this machine or for another one.
"""

import asyncio
import statistics
import time
from pathlib import Path

import typer
import uvloop
from pydantic import SecretStr

from experiments.bench.record import Folder, Rounds, Row, recording
from experiments.bench.servers import folder_in, store_on_a_port
from overload_demo.rest import Address
from overload_demo.rest.client import Upstash

EXCHANGES = 1000
ELSEWHERE = "127.1"  # 127.0.0.1 to the operating system, but not a loopback name to the client


def main(pairs: Rounds = 5, folder: Folder = Path()) -> None:
    """Measure both in turn, and record the ratio."""
    with recording("transport", folder) as (rows, notes), folder_in(folder) as own, store_on_a_port(own) as near:
        far = near | {"url": near["url"].replace("127.0.0.1", ELSEWHERE)}
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            measured = [(runner.run(_p50_s(near)), runner.run(_p50_s(far))) for _ in range(pairs)]
        what = "an exchange with the store (PING), own transport ÷ httpx's"
        rows.append(Row.of_pairs(what, measured, factor=1000, unit="ms", less_is_better=True))
        notes["exchanges a measurement"] = EXCHANGES


async def _p50_s(store: dict[str, str]) -> float:
    """Return the median time of an exchange, seconds, one after the other."""
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
