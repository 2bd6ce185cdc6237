"""``python -m overload_demo.api``: the ingress, until Ctrl-C or SIGTERM."""

import gc
import logging
import signal
import socket
from typing import Annotated

import typer

from overload_demo.api.front_door.parent import Parent
from overload_demo.api.request_context import with_request_id
from overload_demo.config import Settings, load_settings
from overload_demo.console import fail, log_to_stderr, one_line_errors, run_command
from overload_demo.errors import ConfigurationError
from overload_demo.http_server import listen, url_of
from overload_demo.process import on_stop_signals, watch_parent
from overload_demo.store.connect import open_store

log = logging.getLogger("overload_demo.api")

# Allocations until the garbage collector looks. It walks all live connections, which took a fifth of the CPU time of a
# crowd at Python's 700; requests leave no cycles for it.
GARBAGE_THRESHOLD = 50_000


def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    processes: Annotated[
        int | None,
        typer.Option(
            help="Serve with this number of child processes: a dead one is restarted, SIGHUP replaces all, one by one.",
            show_default="this process serves alone",
            min=1,
            max=64,
        ),
    ] = None,
    fds: Annotated[str, typer.Option(hidden=True, help="Serve on these inherited listening sockets.")] = "",
    ready_fd: Annotated[int | None, typer.Option(hidden=True, help="Write a byte here when ready.")] = None,
    metrics_fd: Annotated[int, typer.Option(hidden=True, help="Count in this inherited memory.")] = -1,
    metrics_row: Annotated[int, typer.Option(hidden=True, help="Count in this row of it.")] = 0,
    parent_pipe: Annotated[bool, typer.Option(hidden=True, help="Ignore SIGINT, stop when stdin ends.")] = False,
) -> None:
    """Accept jobs: 202 when the store has committed one, GET /jobs/{job_id} to poll. Prints its URL when ready.

    All settings are environment variables: UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN (unset: the embedded
    store in OVERLOAD_DATA_DIR), OVERLOAD_MAX_BODY_BYTES (bytes, 65536), OVERLOAD_MAX_QUEUE_DEPTH (jobs, 0 = no bound),
    OVERLOAD_MAX_WAIT_S (seconds, 0 = no bound), OVERLOAD_STORE_DEADLINE_S (seconds, 5), OVERLOAD_API_KEYS (unset: no
    key is needed), OVERLOAD_ALLOWED_HOSTS (unset: on loopback, loopback names only), OVERLOAD_DOCS (true: a page
    at /docs), OVERLOAD_LOG_FORMAT (text or json).
    """
    with one_line_errors():
        settings = load_settings()
        log_to_stderr(settings.overload_log_format, note=with_request_id)
        listeners = _inherited(fds) if fds else listen(host, port)
        if processes is not None:
            _supervise(settings, listeners, processes, parent_pipe=parent_pipe)
            return
        # Imported here: the parent of several processes needs none of it, which keeps its memory small.
        from overload_demo.api.api_metrics import ApiMetrics
        from overload_demo.api.app import create_app
        from overload_demo.api.front_door.gate import Server

        with open_store(settings) as store:
            app = create_app(settings, store, ApiMetrics(metrics_fd, metrics_row))
            server = Server(app, settings, ready_fd=ready_fd)
            # A parent has inherited listeners too: after a SIGTERM, other children accept the waiting connections.
            on_stop_signals(server.stop if fds else server.stop_for_good)
            if parent_pipe:
                watch_parent(server.stop_for_good)
            log.info("serving at %s, described at %s/openapi.json", url_of(listeners), url_of(listeners))
            gc.freeze()  # imported objects stay until the end: no collection needs to visit them
            gc.set_threshold(GARBAGE_THRESHOLD)
            server.run(sockets=listeners)
            if not server.started:
                fail("the API could not start; see the log lines above")


def _inherited(fds: str) -> list[socket.socket]:
    """The sockets that the parent process has bound; they and their queues survive a killed API."""
    try:
        return [socket.socket(fileno=int(fd)) for fd in fds.split(",")]
    except OSError as error:
        raise ConfigurationError(f"an inherited descriptor is no socket: {error.strerror}") from None


def _supervise(settings: Settings, listeners: list[socket.socket], processes: int, *, parent_pipe: bool) -> None:
    """Serve with child processes."""
    with open_store(settings):  # the parent holds the store too, so that it outlives any child
        parent = Parent(listeners, processes, settings.overload_grace_s)
        on_stop_signals(parent.stop)
        signal.signal(signal.SIGHUP, lambda *_: parent.replace())
        if parent_pipe:
            watch_parent(parent.stop)
        parent.run()


if __name__ == "__main__":
    run_command(api, "python -m overload_demo.api")
