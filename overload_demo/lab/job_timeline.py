"""One job's life: followed from outside, as a client does, and read from the times the store keeps."""

import asyncio
import http.client
import json
import time
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from overload_demo.errors import OverloadDemoError
from overload_demo.jobs import JobState
from overload_demo.lab.stack import Stack
from overload_demo.rest.client import Upstash

LOOK_EVERY_S = 0.05
ENDED = (JobState.DONE, JobState.FAILED)


class JobLife(BaseModel):
    """What the store keeps of one job; times are UTC, to the millisecond, empty for what has not happened yet."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    status: JobState
    payload: dict[str, Any]
    result: dict[str, Any] | None = None
    created_at: str
    started_at: str = ""
    completed_at: str = ""

    def seconds(self) -> dict[str, float]:
        """Seconds since it was accepted, by moment: accepted, started, completed; what has not happened is left out."""
        moments = {"accepted": self.created_at, "started": self.started_at, "completed": self.completed_at}
        born = datetime.fromisoformat(self.created_at)
        return {name: (datetime.fromisoformat(at) - born).total_seconds() for name, at in moments.items() if at}


async def follow(stack: Stack, job_id: str, *, within_s: float = 60.0) -> list[tuple[float, str]]:
    """Ask the API for a job until it has ended: each new status with the seconds since the first look.

    Raises :class:`OverloadDemoError` when the API does not know the job, or it has not ended ``within_s`` seconds.
    """
    began = time.monotonic()
    seen: list[tuple[float, str]] = []
    while time.monotonic() - began < within_s:
        status = await asyncio.to_thread(_status, stack, job_id)
        if not seen or seen[-1][1] != status:
            seen.append((round(time.monotonic() - began, 3), status))
        if status in ENDED:
            return seen
        await asyncio.sleep(LOOK_EVERY_S)
    raise OverloadDemoError(f"{job_id} has not ended within {within_s:g} s")


async def read_life(stack: Stack, answer: object) -> JobLife | None:
    """What the store of ``stack`` keeps of the job in ``answer``: an id, or a JSON object with a ``job_id``.

    None for anything else and for an id it does not know, so that it takes whatever a student hands in.
    """
    job_id = answer.get("job_id") if isinstance(answer, dict) else answer
    if not isinstance(job_id, str):
        return None
    address, refresh = stack.store
    upstash = Upstash(address, refresh=refresh)
    try:
        key = f"{stack.settings.overload_key_prefix}job:{job_id}"
        pairs = await upstash.command("HGETALL", key, repeatable=True)
    finally:
        await upstash.aclose()
    fields: dict[str, Any] = dict(zip(pairs[::2], pairs[1::2], strict=True))
    for name in ("payload", "result"):
        fields[name] = json.loads(fields[name]) if fields.get(name) else None
    try:
        return JobLife.model_validate(fields)
    except ValidationError:
        return None


def _status(stack: Stack, job_id: str) -> str:
    """One look through the API; http.client, because it knows no proxy variables."""
    connection = http.client.HTTPConnection(urlsplit(stack.url).netloc, timeout=10.0)
    try:
        connection.request("GET", f"/jobs/{job_id}", headers=stack.headers)
        answer = connection.getresponse()
        body = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise OverloadDemoError(f"no answer for {job_id}: {error}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise OverloadDemoError(f"the API says {answer.status} for {job_id}: {body.get('detail', '')}")
    return str(body["status"])
