"""``python -m experiments.naive_sync``: run the baseline alone, with the server flags of the real API.

With ``--parent-pipe`` it prints its URL as a JSON line, ignores SIGINT, and exits when its stdin closes.
"""

import json
import os
import signal
import socket
import sys
import threading
from typing import Annotated

import typer
import uvicorn

from experiments.naive_sync.app import DEFAULT_DELAY_S, VARIANTS, create_app

BACKLOG = 4096


def main(
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="port to listen on; 0 takes a free one")] = 8001,
    variant: Annotated[str, typer.Option(help=f"one of {', '.join(VARIANTS)}", envvar="NAIVE_VARIANT")] = "def-slot",
    delay: Annotated[
        float, typer.Option(help="simulated work, seconds a job", envvar="WORKER_PROCESSING_DELAY", min=0)
    ] = float(DEFAULT_DELAY_S),
    parent_pipe: Annotated[bool, typer.Option("--parent-pipe", help="exit when stdin closes")] = False,
) -> None:
    """Serve the API that does its work inside the request."""
    try:
        app = create_app(variant, delay)
        listener = _listen(host, port)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    url = "http://{}:{}".format(*listener.getsockname()[:2])
    loop = {"http": "httptools", "loop": "uvloop", "backlog": BACKLOG, "timeout_graceful_shutdown": 1}
    server = uvicorn.Server(uvicorn.Config(app, access_log=False, log_level="warning", **loop))  # type: ignore[arg-type]
    if not parent_pipe:
        typer.echo(f"naive baseline ({variant}, {delay:g} s a job) on {url}")
        server.run(sockets=[listener])
        return
    typer.echo(json.dumps({"url": url}))
    # The server runs in a second thread, where uvicorn installs no signal handlers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)  # nothing to save, and the event loop may be blocked for long


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # asyncio reads it: TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    return listener


if __name__ == "__main__":
    typer.run(main)
