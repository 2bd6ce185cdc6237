"""``python -m overload_demo.api``: the ingress, until Ctrl-C or SIGTERM."""

import gc
import logging
from typing import Annotated

import typer

from overload_demo.api.app import create_app
from overload_demo.api.front_door import Server, inherited, listen, url_of
from overload_demo.children import watch_parent
from overload_demo.config import load_settings
from overload_demo.doors import fail, log_to_stderr, on_stop_signals, one_line_errors
from overload_demo.store.opening import open_store

log = logging.getLogger("overload_demo.api")


def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    fds: Annotated[str, typer.Option(hidden=True, help="Serve on these inherited listening sockets.")] = "",
    parent_pipe: Annotated[bool, typer.Option(hidden=True, help="Ignore SIGINT, stop when stdin ends.")] = False,
) -> None:
    """Accept jobs: 202 when the store has committed one, GET /jobs/{job_id} to poll. Prints its URL when it serves.

    All settings are environment variables: UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN (unset: the embedded
    store in OVERLOAD_DATA_DIR), OVERLOAD_MAX_BODY_BYTES (bytes, 65536), OVERLOAD_MAX_QUEUE_DEPTH (jobs, 0 = no bound),
    OVERLOAD_MAX_WAIT_S (seconds, 0 = no bound), OVERLOAD_STORE_DEADLINE_S (seconds, 5).
    """
    log_to_stderr()
    with one_line_errors():
        settings = load_settings()
        listeners = inherited([int(fd) for fd in fds.split(",")]) if fds else listen(host, port)
        with open_store(settings) as store:
            server = Server(create_app(settings, store), settings, drains=not fds)
            on_stop_signals(server.stop)
            if parent_pipe:
                watch_parent(server.stop)
            log.info("serving at %s, described at %s/openapi.json", url_of(listeners), url_of(listeners))
            gc.freeze()  # what was imported lives for ever: no collection need look at it
            server.run(sockets=listeners)
            if not server.started:
                fail("the API could not start; the lines above say why")


if __name__ == "__main__":
    typer.run(api)
