"""ASGI apps that benchmarks compare with: ``storing_nothing`` with the API, ``bare_endpoint`` with the gateway.

``bare_endpoint`` passes a command to the gateway's client library, without token, limits, errors or formats: the least
that a JSON array over HTTP to Redis costs in this language.
"""

import asyncio
import json
import os
from typing import Any

from fastapi import FastAPI, Response

from experiments.bench.peers.route import Accepted, accepted
from overload_demo.config import load_settings
from overload_demo.jobs import JobRequest, new_job_id
from overload_demo.store.data_dir import SERVER_SOCKET
from overload_demo.store.gateway.resp import RedisConnection

storing_nothing = FastAPI()
_connection: RedisConnection | None = None


@storing_nothing.post("/jobs", status_code=202, response_model=Accepted)
async def post_job(job: JobRequest, response: Response) -> Accepted:
    """Validate the job and answer."""
    return accepted(response, new_job_id())


async def bare_endpoint(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve one request."""
    message = await receive()
    connection = _connection or await _connect()
    reply = await connection.ask(*json.loads(message["body"] or b'["PING"]'))
    body = json.dumps({"result": reply}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _connect() -> RedisConnection:
    """Connect to the server of OVERLOAD_DATA_DIR, from inside that directory: a socket's path has at most 107 bytes."""
    global _connection
    os.chdir(load_settings().overload_data_dir)
    loop = asyncio.get_running_loop()
    _, _connection = await loop.create_unix_connection(RedisConnection, SERVER_SOCKET)
    return _connection
