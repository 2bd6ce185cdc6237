"""The API without a queue: same contract, same work, but done while the client waits.

``POST /jobs`` takes the same body as the queue-based API, does the job through :func:`overload_demo.work.process`, and
answers 200 with the result. It is no straw man: the job, the slot it needs and the server's flags are the same. The
variants are the three ways people write it:

``async-blocking``
    ``async def`` with a blocking call inside. The event loop does one job after the other and nothing in between: it
    neither accepts nor times out nor answers ``/stats`` while it works.
``def-slot``
    plain ``def``, run in a pool of 40 threads, all needing the one slot. The loop stays free, so it takes in every
    request there is, and lets all of them wait.
``def-no-slot``
    plain ``def`` without the slot: 40 jobs at a time. It wins, and rightly so: when the work is *not* a scarce resource
    (sleeping, waiting for a service that takes all comers), threads are all you need, up to 40 times the rate. It stops
    winning where the work needs something there is one of, a core, a row lock, a payment terminal, or beyond 40 times.
"""

import os
import secrets
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import nullcontext
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from overload_demo.work import Slot, process

VARIANTS = ("async-blocking", "def-slot", "def-no-slot")
DEFAULT_DELAY_S = "2.0"  # the worker's own default

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class JobRequest(BaseModel):
    """What a client submits, as in the queue-based API."""

    name: str
    value: int | float
    message: str
    metadata: dict[str, Any] | None = None


class InFlight:
    """ASGI middleware that counts the job requests the app has taken in and not answered; its queue, so to speak.

    Requests the server has not read yet, in the kernel or behind a blocked event loop, are not in it: only the clients
    know of those.
    """

    def __init__(self, app: App, counts: "Counts") -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it meanwhile if it is a job."""
        if scope["type"] != "http" or scope["path"] != "/jobs":
            await self._app(scope, receive, send)
            return
        self._counts.in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._counts.in_flight -= 1


class Counts:
    """Requests in flight and jobs completed; ``completed`` also counts jobs whose client has left."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.completed = 0
        self._lock = threading.Lock()

    def note_completed(self) -> None:
        """Count a job; called from many threads, and ``+=`` is not one step."""
        with self._lock:
            self.completed += 1


def create_app(variant: str | None = None, delay_s: float | None = None) -> FastAPI:
    """Build the app; what is not given comes from NAIVE_VARIANT and WORKER_PROCESSING_DELAY (seconds a job).

    Raises ValueError for an unknown variant or a delay that is no number.
    """
    variant = os.environ.get("NAIVE_VARIANT", "def-slot") if variant is None else variant
    delay_s = float(os.environ.get("WORKER_PROCESSING_DELAY", DEFAULT_DELAY_S)) if delay_s is None else delay_s
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
        """Say how many are waiting, how many are done, and what the slot allows (null without a slot)."""
        capacity_per_s = round(slot.capacity_per_s, 1) if isinstance(slot, Slot) else None
        return {
            "in_flight": counts.in_flight,
            "completed": counts.completed,
            "slot_capacity_per_s": capacity_per_s,
            "variant": variant,
        }

    return app
