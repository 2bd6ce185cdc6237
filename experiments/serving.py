"""Serve an app with the server flags of the real API: ``python -m experiments.serving MODULE:APP``, on a free port.

It prints its URL as a JSON line, ignores SIGINT, and exits when its stdin closes.
"""

import json
import os
import signal
import socket
import sys
import threading
from typing import Any

import typer
import uvicorn

BACKLOG = 4096


def server_of(app: Any) -> uvicorn.Server:
    """Return the server of an app, or of one given as ``module:app``."""
    flags: dict[str, Any] = {"http": "httptools", "loop": "uvloop", "backlog": BACKLOG, "timeout_graceful_shutdown": 1}
    return uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning", **flags))


def listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Return a listening socket and its URL."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio reads it: TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    return listener, "http://{}:{}".format(*listener.getsockname()[:2])


def serve_for_parent(app: Any, listener: socket.socket, url: str) -> None:
    """Print the URL, serve until stdin closes, then end this process."""
    typer.echo(json.dumps({"url": url}))
    # The server runs in a second thread, where uvicorn installs no signal handlers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=server_of(app).run, kwargs={"sockets": [listener]}, daemon=True).start()
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)  # nothing to save, and the event loop may be blocked for long


def main(app: str) -> None:
    """Serve the app given as ``module:app``."""
    serve_for_parent(app, *listen("127.0.0.1", 0))


if __name__ == "__main__":
    typer.run(main)
