"""A load process: sends its share of the plan by the clock and records the outcome of each request.

:mod:`overload_demo.load.generator` starts it as ``python -m overload_demo.load.sender``; the two exchange JSON lines.
It reads its order, writes ``{}`` when it is ready, reads ``{"start_at_mono": ...}``, reports progress five times a
second, writes its records to a file, and exits with 0. It ignores SIGINT, which a terminal or notebook sends to the
whole process group. When its stdin closes, it removes the parent's temporary folder and exits.
"""

import asyncio
import contextlib
import gc
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import numpy as np
import uvloop
from pydantic import SecretStr

from overload_demo.config import load_settings
from overload_demo.load.clients import RetryingSender, Sender, new_session
from overload_demo.load.machine import port_cap, socket_cap, source_addresses
from overload_demo.load.plan import LoadPlan, RetryBudget
from overload_demo.process import raise_descriptor_limit, watch_parent


@contextlib.asynccontextmanager
async def open_sender(
    plan: LoadPlan, number: int, processes: int, api_key: SecretStr | None, budget: RetryBudget | None = None
) -> AsyncIterator[Sender]:
    """Yield the clients of load process ``number``, with their connections; ``budget`` replaces the plan's."""
    sources = source_addresses(number) if urlsplit(plan.url).hostname == "127.0.0.1" else []
    ports = port_cap(len(sources)) if sources else port_cap(1) // processes
    cap = max(1, min(socket_cap(raise_descriptor_limit()), ports))
    async with new_session(plan, sources, api_key) as session:
        arguments = plan, number, processes, session, cap
        if plan.retry is None:
            yield Sender(*arguments)
        else:
            budget = plan.retry.new_budget(processes) if budget is None else budget
            yield RetryingSender(*arguments, policy=plan.retry, budget=budget)


async def carry_out(plan: LoadPlan, number: int, processes: int, records_path: str) -> None:
    """Carry out one order, from the handshake to the file of arrays."""
    api_key = load_settings().overload_api_key  # never part of a plan, which is written into results
    async with open_sender(plan, number, processes, api_key) as sender:
        gc.disable()  # its pauses would show as lag; requests leave no cycles (40,000 timeouts: none measured)
        _write_message({})
        start = await asyncio.to_thread(_read_line)
        if not start:
            _give_up(records_path)
        watch_parent(lambda: _give_up(records_path))
        os.set_blocking(sys.stdout.fileno(), False)  # a parent that is too busy to read misses a report
        await sender.run(json.loads(start)["start_at_mono"], _report)
        os.set_blocking(sys.stdout.fileno(), True)
    np.savez(records_path, **sender.arrays())
    _write_message(sender.progress())


def _report(progress: dict[str, Any]) -> None:
    with contextlib.suppress(BlockingIOError):
        _write_message(progress)


def _write_message(message: dict[str, Any]) -> None:
    # One write below PIPE_BUF: the line arrives whole or, with a full non-blocking pipe, not at all.
    os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def _read_line() -> bytes:
    """Read a line from stdin, empty at its end; unbuffered: a waiting thread would hold the buffer's lock."""
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(sys.stdin.fileno(), 65_536)):
        line += piece
    return line


def _give_up(records_path: str) -> NoReturn:
    """Remove the folder of a parent that has died, and exit."""
    shutil.rmtree(Path(records_path).parent, ignore_errors=True)
    os._exit(0)


def main() -> None:
    """Read the order from stdin and carry it out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if line := _read_line():
        order = json.loads(line)
        uvloop.run(carry_out(LoadPlan(**order.pop("plan")), **order))


if __name__ == "__main__":
    main()
