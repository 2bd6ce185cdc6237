"""The clients of a load: when each request is sent, what is repeated, and how each attempt and request ends."""

import asyncio
import contextlib
import errno
import itertools
import json
import math
import random
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
from pydantic import SecretStr
from yarl import URL

from overload_demo.load.generator import EDGES_S
from overload_demo.load.machine import bound_socket
from overload_demo.load.outcomes import ATTEMPT, RECORD, Ending, Kind
from overload_demo.load.plan import WORTH_A_REPEAT, LoadPlan, RetryBudget, RetryPolicy, Shape, Until

CONNECT_BEFORE_S = 0.25  # the connect timeout fires so long before the total one, so that the two can be distinguished
TICK_S = 0.001  # uvloop's timers have whole milliseconds; a shorter sleep would spin
YIELD_EVERY = 64
PROGRESS_S = 0.2
COUNTS = ("sent", "attempts", "accepted", "dropped", "in_flight")  # of a progress report
KEEPALIVE_S = 1.0  # shorter than any server's: a POST that meets the server's close cannot be repeated safely
JOB_ID = re.compile(rb'"job_id"\s*:\s*"(job_[0-9a-f]{1,60})"')
SECONDS = re.compile("[0-9]{1,9}")

_KIND_BY_ERRNO = {
    errno.ECONNREFUSED: Kind.REFUSED,
    errno.ECONNRESET: Kind.RESET,
    errno.EPIPE: Kind.RESET,
    errno.ECONNABORTED: Kind.RESET,
    errno.ETIMEDOUT: Kind.CONNECT_TIMEOUT,
    errno.EADDRNOTAVAIL: Kind.ADDRESS_UNAVAILABLE,
    errno.EADDRINUSE: Kind.ADDRESS_UNAVAILABLE,
}


def sample_body(index: int, expires_in_s: float | None = None) -> bytes:
    """Return the JSON body of request ``index``, with a deadline in seconds if there is one."""
    deadline = b"" if expires_in_s is None else b',"expires_in_s":%r' % float(expires_in_s)
    text = b'{"name":"client-%d","value":%d,"message":"one of very many, all at the same moment"%b}'
    return text % (index, index, deadline)


def kind_of(error: BaseException) -> Kind:
    """Classify a failed request by aiohttp's error and its errno."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Kind.CONNECT_TIMEOUT
    if isinstance(error, TimeoutError):
        return Kind.READ_TIMEOUT
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _KIND_BY_ERRNO:
            return _KIND_BY_ERRNO[cause.errno]
        if isinstance(cause, ConnectionResetError):  # aiohttp raises some without an errno
            return Kind.RESET
        cause = cause.__cause__
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return Kind.DISCONNECTED
    return Kind.OTHER


class Sender:
    """Sends requests ``number``, ``number + processes``, ... of the plan, at most ``cap`` of them at a time."""

    def __init__(self, plan: LoadPlan, number: int, processes: int, session: aiohttp.ClientSession, cap: int) -> None:
        self._plan, self._session, self._cap = plan, session, cap
        self._clients = len(range(number, plan.connections or 1, processes))
        self._target = URL(plan.target)
        self._start_mono = math.inf
        whole_s = np.zeros(plan.requests) if plan.is_closed else plan.schedule()
        self._index = range(number, whole_s.size, processes)
        self.records = np.zeros(len(self._index), RECORD)
        self.records["index"], self.records["intended_s"] = self._index, whole_s[number::processes]
        self.records["sent_s"] = self.records["done_s"] = np.nan
        self.sent = self.accepted = self.dropped = self.in_flight = self.peak_in_flight = 0
        self.cpu_share = 0.0
        self._answered_s: list[float] = []

    async def run(self, start_at_mono: float, report: Callable[[dict[str, Any]], None]) -> None:
        """Wait for the common start, send everything, and return when every request has ended.

        ``report`` gets the :meth:`progress` five times a second.
        """
        self._start_mono = start_at_mono
        reporter = asyncio.create_task(self._report_to(report))
        try:
            await asyncio.sleep(start_at_mono - time.monotonic())
            self._cpu_at_start_s = time.process_time()
            async with asyncio.TaskGroup() as group:
                await (self._run_closed(group) if self._plan.is_closed else self._run_open(group))
        finally:
            reporter.cancel()
        if self._plan.is_closed:  # no client got so far as to send these
            self.records = self.records[: self.sent]

    @property
    def attempts(self) -> int:
        """Requests sent so far, repeats included."""
        return self.sent

    def progress(self) -> dict[str, Any]:
        """Return the counts so far, and the response times since the last call, by bin."""
        counts = {name: getattr(self, name) for name in COUNTS}
        answered_in = np.histogram(self._answered_s, EDGES_S)[0].tolist()
        self._answered_s.clear()
        return {"counts": counts, "answered_in": answered_in}

    def arrays(self) -> dict[str, Any]:
        """Return what a load process hands over when every request has ended."""
        return {"records": self.records, "report": np.array([self.cpu_share, self.peak_in_flight])}

    async def _report_to(self, report: Callable[[dict[str, Any]], None]) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            report(self.progress())

    async def _run_open(self, group: asyncio.TaskGroup) -> None:
        """Follow the schedule; a task exists only while its request is in flight, so memory stays bounded.

        Behind its schedule it yields to the responses every ``YIELD_EVERY`` requests, except for ``at-once``: there
        every socket is opened before the first response is read.
        """
        at_once = self._plan.shape is Shape.AT_ONCE
        for position, due_s in enumerate(self.records["intended_s"].tolist()):
            early_s = due_s - self._now()
            if early_s <= 0 and position % YIELD_EVERY == 0 and not at_once:
                await asyncio.sleep(0)
            while early_s > 0:  # more than once: a timer fires up to a tick early
                await asyncio.sleep(max(early_s, TICK_S))
                early_s = due_s - self._now()
            if self.in_flight >= self._cap:
                self.dropped += 1
            else:
                self._count_sent()
                group.create_task(self._fire(position, due_s))
        self._note_cpu()

    async def _run_closed(self, group: asyncio.TaskGroup) -> None:
        """Run this process's share of the clients; the next request of a client is due when it is sent."""
        last_s, pace_s = self._plan.max_duration_s or math.inf, self._plan.pace_s

        async def client(next_s: float) -> None:
            while self.sent < len(self._index) and self._now() <= last_s:
                if (early_s := next_s - self._now()) > 0:
                    await asyncio.sleep(early_s)
                    continue
                position = self.sent
                self._count_sent()
                await self._fire(position, self._now())
                next_s = max(next_s + pace_s, self._now()) if pace_s else 0.0
            self._note_cpu()

        clients = min(self._clients, self._cap)
        for number in range(clients):  # paced clients begin one after the other, not all at once
            group.create_task(client(pace_s * number / clients))

    async def _fire(self, position: int, due_s: float) -> None:
        index, sent_s, status, job_id = self._index[position], self._now(), 0, b""
        try:
            body = sample_body(index, self._plan.expires_in_s)
            async with self._session.post(self._target, data=body, allow_redirects=False) as response:
                status, reply = response.status, await response.read()
            if status != self._plan.success_status:
                kind = Kind.OTHER_STATUS
            elif found := JOB_ID.search(reply):
                kind, job_id = Kind.ACCEPTED, found[1]
            else:
                kind = Kind.OTHER
        except Exception as error:  # every request is accounted for, however it fails
            kind = kind_of(error)
        done_s = self._now()
        self.records[position] = index, due_s, sent_s, done_s, status, kind, job_id
        self.in_flight -= 1
        if kind is Kind.ACCEPTED:
            self.accepted += 1
            self._answered_s.append(done_s - due_s)

    def _count_sent(self) -> None:
        self.sent += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def _note_cpu(self) -> None:
        self.cpu_share = (time.process_time() - self._cpu_at_start_s) / max(self._now(), TICK_S)

    def _now(self) -> float:
        return time.monotonic() - self._start_mono


@dataclass
class Attempt:
    """One attempt under way, and how it ended; ``asked_s`` is the response's ``Retry-After``, seconds."""

    status: int = 0
    kind: Kind = Kind.OTHER
    job_id: bytes = b""
    asked_s: float = 0.0

    @property
    def is_worth_a_repeat(self) -> bool:
        """Whether another attempt may end differently."""
        return self.kind not in (Kind.OTHER, Kind.OTHER_STATUS) or self.status in WORTH_A_REPEAT


class RetryingSender(Sender):
    """A sender whose requests end after one attempt or several; ``budget`` decides over each repeat.

    A request counts as in flight until its last attempt has ended, so also while its client waits.
    """

    def __init__(self, *arguments: Any, policy: RetryPolicy, budget: RetryBudget | None) -> None:
        super().__init__(*arguments)
        self._policy, self._budget = policy, budget
        self._chance = random.Random(f"{self._plan.seed} {self._index.start}")
        self._key = secrets.token_hex(8)  # other loads on the same store have other keys
        self._attempts: list[tuple[Any, ...]] = []
        self._started = self._polls = 0
        self._endings = Counter[Ending]()

    @property
    def attempts(self) -> int:
        """Attempts sent so far."""
        return self._started

    def arrays(self) -> dict[str, Any]:
        """Add each attempt, in the order of their ends, and the counts of the endings and polls."""
        counts = np.array([*(self._endings[ending] for ending in Ending), self._polls])
        return super().arrays() | {"attempts": np.array(self._attempts, ATTEMPT), "retries": counts}

    async def _fire(self, position: int, due_s: float) -> None:
        index, first_sent_s, patient_until_s = self._index[position], self._now(), due_s + self._policy.patience_s
        ending, number = None, 0
        while ending is None:
            sent_s, number = self._now(), number + 1
            attempt = await self._attempt(index, min(self._plan.timeout_s, patient_until_s - sent_s))
            done_s = self._now()
            self._attempts.append((index, sent_s, done_s, attempt.status, attempt.kind, attempt.job_id))
            wait_s = self._policy.backoff_s(number, self._chance) + attempt.asked_s
            ending = self._ending(attempt, number, is_too_late=done_s + wait_s >= patient_until_s)
            if ending is None:
                await asyncio.sleep(wait_s)
        self.records[position] = index, due_s, first_sent_s, done_s, attempt.status, attempt.kind, attempt.job_id
        self.in_flight -= 1
        self._endings[ending] += 1
        if ending is Ending.ACCEPTED:
            self.accepted += 1
            self._answered_s.append(done_s - due_s)

    def _ending(self, attempt: Attempt, number: int, *, is_too_late: bool) -> Ending | None:
        """Return why the request ends with this attempt; None: it is repeated, and the budget has paid for that."""
        if attempt.kind is Kind.ACCEPTED:
            return Ending.ACCEPTED
        if not attempt.is_worth_a_repeat:
            return Ending.NOT_REPEATABLE
        if number >= self._policy.attempts:
            return Ending.EXHAUSTED
        if is_too_late:
            return Ending.OUT_OF_PATIENCE
        if self._budget is not None and not self._budget.take(self.sent):
            return Ending.REFUSED_BY_BUDGET
        return None

    async def _attempt(self, index: int, timeout_s: float) -> Attempt:
        """Send the request once, and with ``until="done"`` wait for the result of its job."""
        self._started += 1
        attempt = Attempt()
        key = {"Idempotency-Key": f"{self._key}-{index}"} if self._policy.idempotency_key else {}
        try:
            async with asyncio.timeout(max(timeout_s, TICK_S)):
                await self._send(attempt, sample_body(index, self._plan.expires_in_s), key)
                if attempt.kind is Kind.ACCEPTED and self._policy.until is Until.DONE:
                    attempt.kind = Kind.NO_RESULT
                    attempt.kind = await self._result_of(attempt.job_id.decode())
        except Exception as error:  # every attempt is accounted for, however it fails
            if attempt.kind is not Kind.NO_RESULT:
                attempt.kind = kind_of(error)
        return attempt

    async def _send(self, attempt: Attempt, body: bytes, headers: dict[str, str]) -> None:
        async with self._session.post(self._target, data=body, headers=headers, allow_redirects=False) as response:
            attempt.status, reply = response.status, await response.read()
        asked = response.headers.get("Retry-After", "")
        if attempt.status != self._plan.success_status:
            attempt.kind = Kind.OTHER_STATUS
            if self._policy.retry_after and SECONDS.fullmatch(asked):
                attempt.asked_s = float(asked)
        elif found := JOB_ID.search(reply):
            attempt.kind, attempt.job_id = Kind.ACCEPTED, found[1]

    async def _result_of(self, job_id: str) -> Kind:
        """Poll until the job has ended. A poll that fails is repeated: the attempt's time-out ends the waiting."""
        while True:
            await asyncio.sleep(self._policy.poll_s)
            self._polls += 1
            with contextlib.suppress(aiohttp.ClientError, ValueError):
                async with self._session.get(self._target / job_id) as response:
                    state = json.loads(await response.read())["status"] if response.status == 200 else ""
                if state in ("done", "failed", "cancelled"):
                    return Kind.ACCEPTED if state == "done" else Kind.NO_RESULT


def new_session(plan: LoadPlan, sources: list[str], api_key: SecretStr | None) -> aiohttp.ClientSession:
    """Make a session that adds no limit, cookie, lookup or other work to what is measured.

    aiohttp's default of 100 connections would look like a slow server. ``at-once`` stands for separate clients: each
    request opens a connection of its own and closes it. Connections begin at the addresses ``sources`` in turn.
    """
    at_once, turns = plan.shape is Shape.AT_ONCE and not plan.is_closed, itertools.cycle(sources)
    connector = aiohttp.TCPConnector(
        limit=0,
        force_close=at_once,
        keepalive_timeout=None if at_once else KEEPALIVE_S,
        socket_factory=(lambda info: bound_socket(next(turns), *info[:3])) if sources else None,
    )
    authorization = {} if api_key is None else {"Authorization": f"Bearer {api_key.get_secret_value()}"}
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(
            total=plan.timeout_s,
            sock_connect=plan.timeout_s - min(CONNECT_BEFORE_S, 0.1 * plan.timeout_s),
            ceil_threshold=math.inf,
        ),
        headers={"Content-Type": "application/json"} | authorization,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
        auto_decompress=False,
    )
