"""A load process: sends its share of the plan by the clock and records what came of each request.

Started by :mod:`overload_demo.load.generator` as ``python -m overload_demo.load.sender``; the two speak JSON lines. It
reads its order, answers ``{"ready": true}``, reads ``{"start_at_mono": ...}``, reports progress five times a second,
and at last writes its arrays to a file and says ``{"finished": ...}``. It ignores SIGINT, which a terminal or notebook
sends to the whole process group, and ends at once when its stdin closes: nothing survives a parent that was killed.
"""

import asyncio
import contextlib
import errno
import gc
import json
import math
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import numpy as np
from yarl import URL

from overload_demo.config import load_settings
from overload_demo.load.limits import port_cap, raise_descriptor_limit, socket_cap, socket_factory
from overload_demo.load.measure import Kind, ProcessReport
from overload_demo.load.plan import LoadPlan
from overload_demo.load.recent import bin_of
from overload_demo.load.schedule import Shape

PROGRESS_S = 0.2
CONNECT_BEFORE_S = 0.25  # patience with a connection ends so long before the whole patience, or neither has a name
TICK_S = 0.001  # uvloop's timers have whole milliseconds; a shorter sleep would spin
YIELD_EVERY = 64
# A client lets go of an idle connection before its server does: a POST that meets that close cannot be repeated safely.
KEEPALIVE_S = 1.0
JOB_ID = re.compile(rb'"job_id"\s*:\s*"(job_[0-9a-f]+)"')

_KIND_BY_ERRNO = {
    errno.ECONNREFUSED: Kind.REFUSED,
    errno.ECONNRESET: Kind.RESET,
    errno.EPIPE: Kind.RESET,
    errno.ECONNABORTED: Kind.RESET,
    errno.ETIMEDOUT: Kind.CONNECT_TIMEOUT,
    errno.EADDRNOTAVAIL: Kind.ADDRESS_UNAVAILABLE,
    errno.EADDRINUSE: Kind.ADDRESS_UNAVAILABLE,
}


@dataclass(frozen=True)
class Order:
    """One load process's share: requests ``number``, ``number + processes``, ... of the plan."""

    plan: LoadPlan
    number: int
    processes: int
    source_addresses: list[str]
    arrays_path: str


def sample_body(index: int, expires_in_s: float | None = None) -> bytes:
    """Return the JSON body of request ``index``; its value is the index, its deadline, if any, in seconds."""
    deadline = b"" if expires_in_s is None else b',"expires_in_s":%r' % float(expires_in_s)
    text = b'{"name":"client-%d","value":%d,"message":"one of very many, all at the same moment"%b}'
    return text % (index, index, deadline)


def kind_of(error: BaseException) -> Kind:
    """Name what ended a request, from aiohttp's error and the errno it stems from."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Kind.CONNECT_TIMEOUT
    if isinstance(error, TimeoutError):
        return Kind.READ_TIMEOUT
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _KIND_BY_ERRNO:
            return _KIND_BY_ERRNO[cause.errno]
        if isinstance(cause, ConnectionResetError):  # aiohttp raises some without an errno
            return Kind.RESET
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return Kind.DISCONNECTED
    return Kind.OTHER


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


class Sender:
    """Sends the requests of one order and keeps one record a request; never more than ``cap`` in flight."""

    def __init__(self, order: Order, session: aiohttp.ClientSession, cap: int) -> None:
        plan = order.plan
        self._plan, self._order, self._session, self._cap = plan, order, session, cap
        self._target = URL(plan.target)
        self._start_mono = math.inf
        self.intended_s = self._share(np.zeros(plan.requests) if plan.is_closed else plan.schedule())
        planned = self.intended_s.size
        self.index = np.arange(planned) * order.processes + order.number
        self.sent_s = np.full(planned, np.nan)
        self.done_s = np.full(planned, np.nan)
        self.status = np.zeros(planned, dtype=np.int16)
        self.kind = np.zeros(planned, dtype=np.uint8)
        self.job_ids = [b""] * planned
        self.sent = self.accepted = self.dropped = self.in_flight = self.peak_in_flight = 0
        self.cpu_share = 0.0
        self._answered_in: Counter[int] = Counter()

    async def run(self, start_at_mono: float) -> None:
        """Wait for the common start, send everything, and return when every request has ended."""
        self._start_mono = start_at_mono
        await asyncio.sleep(start_at_mono - time.monotonic())
        await (self._run_closed() if self._plan.is_closed else self._run_open())

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the records by name; of a closed loop, only of those requests that were sent."""
        fired = self.sent if self._plan.is_closed else self.index.size
        job_ids = np.array(self.job_ids, dtype=np.bytes_)
        names = ("index", "intended_s", "sent_s", "done_s", "status", "kind")
        return {name: getattr(self, name)[:fired] for name in names} | {"job_ids": job_ids[:fired]}

    def say_progress(self) -> None:
        """Say the counts so far, and how long the answers took that came since the last time, by bin."""
        counts = {
            "sent": self.sent,
            "accepted": self.accepted,
            "failed": self.sent - self.accepted - self.in_flight,
            "dropped": self.dropped,
            "in_flight": self.in_flight,
        }
        _say({"progress": counts, "answered_in": self._answered_in})
        self._answered_in.clear()

    async def _run_open(self) -> None:
        """Walk the schedule: a task exists only while its request is in flight, so memory stays bounded.

        Behind its schedule it lets the answers in from time to time; not so when all are due at once, where every
        socket is to be open before the first answer is read.
        """
        at_once = self._plan.shape is Shape.AT_ONCE
        cpu_at_start_s = time.process_time()
        async with asyncio.TaskGroup() as requests:
            for position, due_s in enumerate(self.intended_s.tolist()):
                early_s = due_s - self._now()
                if early_s > 0:
                    await asyncio.sleep(max(early_s, TICK_S))
                elif position % YIELD_EVERY == 0 and not at_once:
                    await asyncio.sleep(0)
                if self.in_flight >= self._cap:
                    self.dropped += 1
                    continue
                self._count_sent()
                requests.create_task(self._fire(position))
            self._note_cpu(cpu_at_start_s)

    async def _run_closed(self) -> None:
        """So many clients, each waiting for its answer; its next request is due the moment it is sent."""
        cpu_at_start_s = time.process_time()
        clients = len(range(self._order.number, self._plan.connections or 1, self._order.processes))
        last_s = self._plan.max_duration_s or math.inf

        async def client() -> None:
            while self.sent < self.index.size and self._now() <= last_s:
                position = self.sent
                self._count_sent()
                self.intended_s[position] = self._now()
                await self._fire(position)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(clients, self._cap)):
                group.create_task(client())
        self._note_cpu(cpu_at_start_s)

    async def _fire(self, position: int) -> None:
        self.sent_s[position] = self._now()
        try:
            body = sample_body(int(self.index[position]), self._plan.expires_in_s)
            async with self._session.post(self._target, data=body, allow_redirects=False) as response:
                kind = self._record_answer(position, response.status, await response.read())
        except Exception as error:  # whatever it is, the request must be accounted for
            kind = kind_of(error)
        self.done_s[position] = self._now()
        self.kind[position] = kind
        self.in_flight -= 1
        if kind is Kind.ACCEPTED:
            self.accepted += 1
            self._answered_in[bin_of(self.done_s[position] - self.intended_s[position])] += 1

    def _record_answer(self, position: int, status: int, answer: bytes) -> Kind:
        self.status[position] = status
        if status != self._plan.success_status:
            return Kind.OTHER_STATUS
        found = JOB_ID.search(answer)
        if found is None:
            return Kind.OTHER
        self.job_ids[position] = found[1]
        return Kind.ACCEPTED

    def _count_sent(self) -> None:
        self.sent += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def _note_cpu(self, cpu_at_start_s: float) -> None:
        elapsed_s = max(self._now(), TICK_S)
        self.cpu_share = (time.process_time() - cpu_at_start_s) / elapsed_s

    def _share(self, whole: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        return whole[self._order.number :: self._order.processes].copy()

    def _now(self) -> float:
        return time.monotonic() - self._start_mono


def new_session(plan: LoadPlan, source_addresses: list[str]) -> aiohttp.ClientSession:
    """Make a session that adds no limit, no cookies, no look-up and no work of its own to what is measured.

    ``limit=0`` because aiohttp's default of 100 connections would look like a slow server. The connect time-out is a
    little below the total one, so that a connection that never came about is named as such. ``at-once`` stands for
    as many people, so each brings a connection of its own and closes it.
    """
    at_once = plan.shape is Shape.AT_ONCE and not plan.is_closed
    connector = aiohttp.TCPConnector(
        limit=0,
        force_close=at_once,
        keepalive_timeout=None if at_once else KEEPALIVE_S,
        socket_factory=socket_factory(source_addresses),
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=plan.timeout_s,
            sock_connect=plan.timeout_s - min(CONNECT_BEFORE_S, 0.1 * plan.timeout_s),
            ceil_threshold=math.inf,
        ),
        headers={"Content-Type": "application/json"} | _authorization(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        auto_decompress=False,
    )


def _authorization() -> dict[str, str]:
    """The key of OVERLOAD_API_KEY as a header; it never becomes part of a plan, which is written into results."""
    key = load_settings().overload_api_key
    return {} if key is None else {"Authorization": f"Bearer {key.get_secret_value()}"}


async def carry_out(order: Order) -> None:
    """Do one order from the handshake to the last line."""
    started: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    threading.Thread(target=_obey_parent, args=(asyncio.get_running_loop(), started), daemon=True).start()
    sources = order.source_addresses
    ports = port_cap(len(sources)) if sources else port_cap(1) // order.processes
    cap = max(1, min(socket_cap(raise_descriptor_limit()), ports))
    async with new_session(order.plan, sources) as session:
        sender = Sender(order, session, cap)
        gc.disable()  # its pauses would show as lag; requests leave no cycles behind (40,000 time-outs: none measured)
        _say({"ready": True})
        start_at_mono = await started
        reporter = asyncio.create_task(_report(sender))
        await sender.run(start_at_mono)
        reporter.cancel()
    np.savez(order.arrays_path, **sender.arrays())  # type: ignore[arg-type]
    report = ProcessReport(cpu_share=sender.cpu_share, peak_open_sockets=sender.peak_in_flight)
    sender.say_progress()
    _say({"finished": asdict(report)})


async def _report(sender: Sender) -> None:
    """Say how far we are; a parent too busy to read misses a line, but never holds up the load."""
    while True:
        await asyncio.sleep(PROGRESS_S)
        os.set_blocking(sys.stdout.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            sender.say_progress()
        os.set_blocking(sys.stdout.fileno(), True)


def _say(message: dict[str, Any]) -> None:
    # One write below PIPE_BUF: the line arrives whole or, with a full non-blocking pipe, not at all.
    os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


def _read_line() -> bytes:
    """Read a line from stdin without Python's buffer, whose lock a waiting thread would hold at the end."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(sys.stdin.fileno(), 65_536)
        if not piece:
            os._exit(0)
        line += piece
    return line


def _obey_parent(loop: asyncio.AbstractEventLoop, started: "asyncio.Future[float]") -> None:
    start_at_mono = json.loads(_read_line())["start_at_mono"]
    loop.call_soon_threadsafe(started.set_result, start_at_mono)
    _read_line()  # returns never: the parent says nothing more, and its end is ours


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:  # not on Windows
        asyncio.run(work)
    else:
        uvloop.run(work)


def main() -> None:
    """Read the order from stdin and carry it out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    order = json.loads(_read_line())
    plan = LoadPlan(**order.pop("plan"))
    _run(carry_out(Order(plan=plan, **order)))


if __name__ == "__main__":
    main()
