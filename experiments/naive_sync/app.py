"""The API without a queue: same contract, same work, but done while the client waits.

``POST /jobs`` takes the same body as the queue API, does the job with :func:`overload_demo.work.process`, and answers
200 with the result. Job, slot and server flags are those of the queue API. Three common ways to write it:

``async-blocking``
    ``async def`` with a blocking call. The event loop does one job at a time; meanwhile it neither accepts connections
    nor times out nor answers ``/stats``.
``def-slot``
    plain ``def``, run in a pool of 40 threads that share the one slot. The loop stays free and accepts every request;
    all of them wait.
``def-no-slot``
    plain ``def`` without the slot: 40 jobs at a time. It wins where the work is *not* a scarce resource (sleeping,
    waiting for another service), up to 40 times the rate. It loses where the work needs one core, row lock or terminal.
"""

import secrets
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from overload_demo.work import Slot, process

VARIANTS = ("async-blocking", "def-slot", "def-no-slot")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class JobRequest(BaseModel):
    """What a client submits, as in the queue API."""

    name: str
    value: int | float
    message: str
    metadata: dict[str, Any] | None = None


class InFlight:
    """ASGI middleware that counts the job requests in the app; the server has not read requests in the kernel yet."""

    def __init__(self, app: App, counts: "Counts") -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; count a job request meanwhile."""
        if scope["type"] != "http" or scope["path"] != "/jobs":
            await self._app(scope, receive, send)
            return
        self._counts.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._counts.in_flight -= 1


class Counts:
    """Requests in flight and jobs completed, including jobs of clients that have disconnected."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.completed = 0
        self._lock = threading.Lock()

    def note_completed(self) -> None:
        """Count a job; many threads call this, and ``+=`` is not atomic."""
        with self._lock:
            self.completed += 1


def create_app(variant: str, delay_s: float) -> FastAPI:
    """Build the app; a job takes ``delay_s`` seconds. Raises ValueError for an unknown variant."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    slot = nullcontext() if variant == "def-no-slot" else Slot()
    counts = Counts()
    app = FastAPI(title=f"naive baseline: {variant}")
    app.add_middleware(InFlight, counts=counts)

    def do_job(job: JobRequest) -> dict[str, Any]:
        result = process(job.model_dump(), delay_s=delay_s, slot=slot)
        counts.note_completed()
        return {"status": "done", "job_id": f"job_{secrets.token_hex(12)}", "result": result}

    async def do_job_in_the_event_loop(job: JobRequest) -> dict[str, Any]:
        return do_job(job)

    app.post("/jobs")(do_job_in_the_event_loop if variant == "async-blocking" else do_job)

    @app.get("/stats")
    async def stats() -> dict[str, Any]:
        """Return requests in flight, completed jobs, and the capacity of the slot (null without a slot)."""
        capacity_per_s = round(slot.capacity_per_s, 1) if isinstance(slot, Slot) else None
        return {
            "in_flight": counts.in_flight,
            "completed": counts.completed,
            "slot_capacity_per_s": capacity_per_s,
            "variant": variant,
        }

    return app
