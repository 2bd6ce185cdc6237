"""Clients that repeat a request that failed, by the plan's policy; each attempt is recorded."""

import asyncio
import contextlib
import json
import random
import re
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np

from overload_demo.load.clients import JOB_ID, TICK_S, Sender, kind_of, sample_body
from overload_demo.load.outcomes import ATTEMPT, Ending, Kind
from overload_demo.load.plan import LoadPlan
from overload_demo.load.retry_policy import WORTH_A_REPEAT, RetryBudget, RetryPolicy, Until

SECONDS = re.compile("[0-9]{1,9}")


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

    def __init__(
        self,
        plan: LoadPlan,
        number: int,
        processes: int,
        session: aiohttp.ClientSession,
        cap: int,
        policy: RetryPolicy,
        budget: RetryBudget | None,
    ) -> None:
        super().__init__(plan, number, processes, session, cap)
        self._policy = policy
        self._budget = policy.new_budget(processes) if budget is None else budget
        self._chance = random.Random(f"{plan.seed} {number}")
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
