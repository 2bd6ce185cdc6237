"""The load of a history: clients that submit and poll, and record the responses."""

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Iterator
from typing import Any

import aiohttp

from overload_demo.lab.history import Final, Outcome
from tests.history.record import Recorder

TIMEOUT_S = 15.0
FIRST_KEYED = 20_000_000  # the smallest value of a job with an Idempotency-Key
REPEAT_AFTER_S, REPEATED_FOR_S = 0.2, 20.0
POLLED_FOR_S = 5.0  # after the last submission
POLL_EVERY_S = 0.1
EVERY_NTH_IS_POLLED = 10
MOST_POLLED = 100  # at a time


class Clients:
    """``clients`` of the API at ``url``, together ``rate_per_s`` submissions a second at most (0: no limit).

    Values count up, so each submission is unique; a job takes ``job_s`` seconds. With ``poison_every``, every so
    many-th job is a poison job: it ends its worker. ``keyed`` of the clients send each job with an Idempotency-Key, and
    again while its outcome is unknown; their values begin at ``FIRST_KEYED``.
    """

    def __init__(
        self,
        url: str,
        recorder: Recorder,
        *,
        job_s: float,
        clients: int,
        rate_per_s: float,
        values: "itertools.count[int]",
        poison_every: int = 0,
        keyed: int = 0,
    ) -> None:
        self._url, self._recorder, self._values = url, recorder, values
        self._job_s, self._clients, self._poison_every = job_s, clients, poison_every
        self._keyed, self._keyed_values = keyed, map(FIRST_KEYED.__add__, values)
        self._pause_s = clients / rate_per_s if rate_per_s else 0.0
        self._polling: set[asyncio.Task[None]] = set()
        self._left = 0

    @property
    def are_submitting(self) -> bool:
        """Whether there are still jobs to submit."""
        return self._left > 0

    async def run(self, jobs: int) -> None:
        """Submit so many jobs; poll some until they are done, or until a while after the last submission."""
        self._left = jobs
        timeout, connector = aiohttp.ClientTimeout(TIMEOUT_S), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._url, timeout=timeout, connector=connector) as session:
            ways = [self._keyed_values] * self._keyed + [self._values] * (self._clients - self._keyed)
            await asyncio.gather(*(self._submit(session, values) for values in ways))
            if polling := self._polling.copy():
                _, unfinished = await asyncio.wait(polling, timeout=POLLED_FOR_S)
                for task in unfinished:
                    task.cancel()
                await asyncio.gather(*unfinished, return_exceptions=True)

    async def _submit(self, session: aiohttp.ClientSession, values: Iterator[int]) -> None:
        while self._left > 0:
            self._left -= 1
            value = next(values)
            self._recorder.write("invoke", value=value)
            outcome, status, job_id = await self._post(session, value)
            give_up_at = time.monotonic() + REPEATED_FOR_S
            while value >= FIRST_KEYED and outcome == "info" and time.monotonic() < give_up_at:
                await asyncio.sleep(REPEAT_AFTER_S)
                again = await self._post(session, value)
                if again[0] == "ok":  # a refusal says nothing about the earlier attempt
                    outcome, status, job_id = again
            self._recorder.write(outcome, value=value, status=status, job_id=job_id)
            if job_id and value % EVERY_NTH_IS_POLLED == 0 and len(self._polling) < MOST_POLLED:
                task = asyncio.create_task(self._poll(session, job_id, is_accepted=outcome == "ok"))
                self._polling.add(task)
                task.add_done_callback(self._polling.discard)
            await asyncio.sleep(self._pause_s * random.uniform(0, 2))

    async def _post(self, session: aiohttp.ClientSession, value: int) -> tuple[Outcome, int | None, str | None]:
        poison = bool(self._poison_every) and value % self._poison_every == self._poison_every - 1
        job = {"name": "poison" if poison else "n", "value": value, "message": str(self._job_s)}
        headers = {"Idempotency-Key": f"key-{value}"} if value >= FIRST_KEYED else {}
        try:
            async with session.post("/jobs", json=job, headers=headers) as answer:
                reply = await answer.json(content_type=None)
        except aiohttp.ClientConnectorError:
            return "fail", None, None
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return "info", None, None
        if answer.status == 202:
            return "ok", 202, reply["job_id"]
        definite = answer.status < 500 or reply.get("outcome") == "not_enqueued"
        return "fail" if definite else "info", answer.status, None if definite else reply.get("job_id")

    async def _poll(self, session: aiohttp.ClientSession, job_id: str, *, is_accepted: bool) -> None:
        """Poll until the job has ended. A job of unknown outcome may not be enqueued: a 404 is then right."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
                async with session.get(f"/jobs/{job_id}") as answer:
                    reply: dict[str, Any] = await answer.json(content_type=None)
                if answer.status == 404 and not is_accepted:
                    pass
                elif answer.status != 200:
                    self._recorder.write("no answer", job_id=job_id, status=answer.status)
                else:
                    seen = {"position": reply.get("queue_position"), "result": reply.get("result")}
                    self._recorder.write("poll", job_id=job_id, status=reply["status"], **seen)
                    if reply["status"] in {"done", "failed"}:
                        return
            await asyncio.sleep(POLL_EVERY_S)


async def final_states(url: str, ids: set[str]) -> dict[str, Final]:
    """Return the state of each job by the API; unknown jobs are left out."""
    found: dict[str, Final] = {}

    async def fetch(session: aiohttp.ClientSession, left: Iterator[str]) -> None:
        for job_id in left:
            async with session.get(f"/jobs/{job_id}") as answer:
                if answer.status == 200:
                    reply = await answer.json()
                    found[job_id] = Final(reply["status"], reply.get("result"))

    left = iter(ids)
    async with aiohttp.ClientSession(url) as session:
        await asyncio.gather(*(fetch(session, left) for _ in range(32)))
    return found
