"""One job: followed from outside as a client does, and read from the store with its times."""

import asyncio
import contextlib
import http.client
import json
import time
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError

from overload_demo.errors import OverloadDemoError
from overload_demo.jobs import JobState
from overload_demo.lab.json_connection import JsonConnection
from overload_demo.lab.stack import Stack
from overload_demo.rest.client import Upstash

LOOK_EVERY_S = 0.05
ENDED = (JobState.DONE, JobState.FAILED)


class JobLife(BaseModel, frozen=True):
    """The fields of one job in the store; times are UTC, to the millisecond, empty for what has not happened yet."""

    job_id: str
    status: JobState
    payload: dict[str, Any]
    result: dict[str, Any] | None = None
    created_at: str
    started_at: str = ""
    completed_at: str = ""

    def seconds(self) -> dict[str, float]:
        """Return seconds since acceptance by moment: accepted, started, completed; only what has happened."""
        moments = {"accepted": self.created_at, "started": self.started_at, "completed": self.completed_at}
        zero = datetime.fromisoformat(self.created_at)
        return {name: (datetime.fromisoformat(at) - zero).total_seconds() for name, at in moments.items() if at}


async def follow(stack: Stack, job_id: str, *, within_s: float = 60.0) -> list[tuple[float, str]]:
    """Poll the API for a job until it has ended; return each new status with the seconds since the first poll.

    Raises :class:`OverloadDemoError` for an unknown job, and for one that has not ended within ``within_s`` seconds.
    """
    began = time.monotonic()
    seen: list[tuple[float, str]] = []
    with contextlib.closing(JsonConnection(stack.url, 10.0, stack.headers)) as connection:
        while time.monotonic() - began < within_s:
            try:
                status = str((await asyncio.to_thread(connection.get, f"/jobs/{job_id}"))["status"])
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise OverloadDemoError(f"cannot follow {job_id}: {error}") from None
            if not seen or seen[-1][1] != status:
                seen.append((round(time.monotonic() - began, 3), status))
            if status in ENDED:
                return seen
            await asyncio.sleep(LOOK_EVERY_S)
    raise OverloadDemoError(f"{job_id} has not ended within {within_s:g} s")


async def read_life(stack: Stack, answer: object) -> JobLife | None:
    """Read the job in ``answer``, an id or a JSON object with a ``job_id``, from the store of ``stack``.

    Returns None for an unknown id and for any other answer, such as a student's wrong one.
    """
    job_id = answer.get("job_id") if isinstance(answer, dict) else answer
    if not isinstance(job_id, str):
        return None
    address, refresh = stack.store
    async with contextlib.aclosing(Upstash(address, refresh=refresh)) as upstash:
        key = f"{stack.settings.overload_key_prefix}job:{job_id}"
        pairs = await upstash.command("HGETALL", key, repeatable=True)
    fields: dict[str, Any] = dict(zip(pairs[::2], pairs[1::2], strict=True))
    for name in ("payload", "result"):
        fields[name] = json.loads(fields[name]) if fields.get(name) else None
    try:
        return JobLife.model_validate(fields)
    except ValidationError:
        return None
