"""The plain recipe for a job queue on Upstash: one httpx call a request, LPUSH and RPOP, a hash a job, polling.

It has the API's contract, and its worker does the demo's work. It has no positions, no idempotency, and loses the job
of a killed worker. uvicorn runs the app, ``python -m experiments.bench.plain_recipe`` the worker.
"""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import typer
from fastapi import FastAPI, HTTPException, Response

from overload_demo.api.contract import ACCEPTED_MESSAGE
from overload_demo.jobs import JobRequest, new_job_id
from overload_demo.work import process, utc_now

RESULT_TTL_S = 3600
POLL_INTERVAL_S = 1.0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Share one httpx client, without a bound on its connections."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    async with httpx.AsyncClient(**_access(), limits=limits) as app.state.store:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/jobs", status_code=202)
async def post_job(job: JobRequest, response: Response) -> dict[str, str]:
    """Write the hash, push the id."""
    job_id = new_job_id()
    response.headers["Location"] = f"/jobs/{job_id}"
    fields = ("status", "queued", "payload", job.model_dump_json(), "created_at", utc_now())
    commands = [["HSET", f"job:{job_id}", *fields], ["LPUSH", "queue", job_id]]
    (await app.state.store.post("/pipeline", json=commands)).raise_for_status()
    return {"status": "accepted", "job_id": job_id, "message": ACCEPTED_MESSAGE}


@app.get("/jobs/{job_id}")
async def get_job(job_id: str) -> dict[str, Any]:
    """Read the hash."""
    answer = await app.state.store.post("/", json=["HGETALL", f"job:{job_id}"])
    flat = answer.raise_for_status().json()["result"]
    if not flat:
        raise HTTPException(404)
    return {"job_id": job_id} | dict(zip(flat[::2], flat[1::2], strict=True))


def worker(until_empty: Annotated[bool, typer.Option(help="exit when the queue is empty")] = False) -> None:
    """Take a job, mark it, do it, mark it; poll once a second while the queue is empty."""
    with httpx.Client(**_access()) as store:

        def run(path: str, *commands: Any) -> Any:
            return store.post(path, json=commands if path == "/pipeline" else commands[0]).raise_for_status().json()

        while True:
            job_id = run("/", ["RPOP", "queue"])["result"]
            if job_id is None:
                if until_empty:
                    return
                time.sleep(POLL_INTERVAL_S)
                continue
            key = f"job:{job_id}"
            run("/", ["HSET", key, "status", "processing", "started_at", utc_now()])
            payload = json.loads(run("/", ["HGET", key, "payload"])["result"])
            result = json.dumps(process(payload, delay_s=0.0))
            done = ["HSET", key, "status", "done", "result", result, "completed_at", utc_now()]
            run("/pipeline", done, ["EXPIRE", key, RESULT_TTL_S])


def _access() -> dict[str, Any]:
    url, token = os.environ["UPSTASH_REDIS_REST_URL"], os.environ["UPSTASH_REDIS_REST_TOKEN"]
    headers = {"Authorization": f"Bearer {token}"}
    return {"base_url": url, "headers": headers, "trust_env": False, "timeout": 30.0}


if __name__ == "__main__":
    typer.run(worker)
