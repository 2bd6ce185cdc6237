"""What the gateway is compared with: an ASGI app that hands a command to the same client library, and checks nothing.

No token, no limits, no errors, no formats: the least that a JSON array over HTTP to Redis can cost in this language.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

from overload_demo.config import load_settings
from overload_demo.store.data_dir import SERVER_SOCKET
from overload_demo.store.gateway.resp import RedisConnection

_connection: RedisConnection | None = None


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Serve one request."""
    message = await receive()
    connection = _connection or await _connect()
    reply = await connection.ask(*json.loads(message["body"] or b'["PING"]'))
    body = json.dumps({"result": reply}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _connect() -> RedisConnection:
    """Connect to the server of OVERLOAD_DATA_DIR; from inside it, as a socket's path has at most 107 bytes."""
    global _connection
    os.chdir(load_settings().overload_data_dir)
    loop = asyncio.get_running_loop()
    _, _connection = await loop.create_unix_connection(RedisConnection, SERVER_SOCKET)
    return _connection
