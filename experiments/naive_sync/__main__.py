"""``python -m experiments.naive_sync``: run the baseline by itself, with the same server flags as the real API.

With ``--parent-pipe`` it is somebody's child: it says its URL on stdout as a JSON line, leaves SIGINT to its parent,
and ends when its stdin closes.
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
    parent_pipe: Annotated[bool, typer.Option("--parent-pipe", help="end when stdin closes")] = False,
) -> None:
    """Serve the API that does its work inside the request."""
    try:
        app = create_app(variant, delay)
        listener = _listen(host, port)
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    url = "http://{}:{}".format(*listener.getsockname()[:2])
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        backlog=BACKLOG,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    if not parent_pipe:
        typer.echo(f"naive baseline ({variant}, {delay:g} s a job) on {url}")
        server.run(sockets=[listener])
        return
    typer.echo(json.dumps({"url": url}))
    _serve_until_stdin_closes(server, listener)


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(BACKLOG)
    return listener


def _serve_until_stdin_closes(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve in a second thread, where uvicorn leaves the signals alone, and wait for the parent in this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)  # there is nothing to save, and its event loop may be blocked for long


if __name__ == "__main__":
    typer.run(main)
