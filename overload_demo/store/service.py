"""The store's own process: locks, server, gateway, and its end.

One runs per data directory, in two forms: started by its users and ending with the last of them (``until_unused``), or
standalone in a terminal. Either ends its server before it releases its locks.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from overload_demo.config import LOOPBACK_HOSTS, Settings
from overload_demo.errors import ConfigurationError
from overload_demo.http_server import SignalFreeServer, listen_tcp, url_of
from overload_demo.store import append_only
from overload_demo.store.data_dir import GATEWAY_SOCKET, DataDir, FileLock, State
from overload_demo.store.gateway.backing_server import BackingServer, ExternalServer
from overload_demo.store.gateway.endpoint import Gateway, Tokens
from overload_demo.store.gateway.http_protocol import HttpProtocol
from overload_demo.store.gateway.upstream import Upstream
from overload_demo.store.redis_server import EmbeddedServer, find_server

log = logging.getLogger(__name__)

UNUSED_POLL_S = 0.1
LOST_POLL_S = 0.5  # after a removal of the data directory jobs are still accepted for so long
LEAVING_TIMEOUT_S = 30.0  # longer than a store takes to end
GATEWAY_TIMEOUT_S = 1.0  # a process that checks for a gateway holds its lock for an instant
GRACEFUL_S = 3.0  # for requests under way at the end
BACKLOG = 2048
HTTP_OPTIONS: dict[str, Any] = {
    "http": HttpProtocol,
    "loop": "none",
    "lifespan": "off",
    "ws": "none",
    "log_config": None,
    "log_level": logging.WARNING,
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "date_header": False,
    "timeout_keep_alive": 600,  # a connection closed just when the client uses it again leaves an outcome unknown
}


@dataclass(frozen=True)
class StoreOptions:
    """How a store process is to run.

    Beside its socket in the data directory it listens on ``port``, unless that is None; 0 takes a free one. With
    ``repair`` the server is only started and ended, and damaged commands are dropped meanwhile.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    until_unused: bool = False
    repair: bool = False


def run_store(
    options: StoreOptions, settings: Settings, tokens: Tokens, announce: Callable[[State, str], None]
) -> None:
    """Run a store until SIGTERM, SIGINT or SIGHUP or, with ``until_unused``, until its last user has left.

    ``announce`` is called once it serves, with the URL of its port ("" without one). Changes the working directory to
    the data directory. Raises :class:`ConfigurationError` or :class:`StoreUnavailableError` when it cannot start, and
    the latter once its data directory was removed or replaced.
    """
    data_dir = DataDir(options.data_dir)
    data_dir.prepare()
    with contextlib.ExitStack() as stack:
        users_lock = stack.enter_context(_sole_gateway(data_dir, options.until_unused))
        listeners, url = [], ""
        if options.port is not None:
            listeners.append(stack.enter_context(listen_tcp(options.host, options.port, BACKLOG)))
            url = url_of(listeners)
            if options.host not in LOOPBACK_HOSTS and not options.host.startswith("127."):
                log.warning("listening on %s: every client with the token can use the store, unencrypted", options.host)
        if settings.overload_redis_url is not None:
            server: BackingServer = ExternalServer(settings.overload_redis_url.get_secret_value())
        else:
            binary = find_server(settings.overload_redis_server)
            server = EmbeddedServer(binary, data_dir, settings, drop_damage=options.repair)
        os.chdir(data_dir.path)  # paths of sockets are short from here
        listeners.append(stack.enter_context(_listen_in_data_dir()))
        store = _Store(data_dir, server, tokens, users_lock, options)
        import uvloop  # not on Windows, where the lock above was refused

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(store.run(listeners, lambda state: announce(state, url)))
        if options.until_unused and users_lock.is_held:  # held alone: the last user has left
            data_dir.remove_if_temporary()


@contextlib.contextmanager
def _sole_gateway(data_dir: DataDir, until_unused: bool) -> Iterator[FileLock]:
    """Hold the gateway lock, and the users' lock as a user; yields the latter. Both are released at the very end."""
    users_lock, gateway_lock = data_dir.lock("users"), data_dir.lock("gateway")
    # The process that starts a store until unused is its user; a standalone store is a user itself.
    if not until_unused and not users_lock.take(shared=True, timeout_s=LEAVING_TIMEOUT_S):
        raise ConfigurationError(
            f"the store on {data_dir.path} is shutting down, but has not ended in {LEAVING_TIMEOUT_S:g} s"
        )
    try:
        if not gateway_lock.take(timeout_s=GATEWAY_TIMEOUT_S):
            raise ConfigurationError(f"another store is already running on {data_dir.path}")
        data_dir.remember_inodes()
        data_dir.remove_state()  # of a store that was killed
        yield users_lock
    finally:
        gateway_lock.release()
        users_lock.release()


def _listen_in_data_dir() -> socket.socket:
    """Listen on a socket in the working directory, for processes of this user only."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(GATEWAY_SOCKET)
    Path(GATEWAY_SOCKET).chmod(0o600)
    listener.listen(BACKLOG)
    return listener


class _Store:
    """The part that runs in the event loop."""

    def __init__(
        self, data_dir: DataDir, server: BackingServer, tokens: Tokens, users_lock: FileLock, options: StoreOptions
    ) -> None:
        self._data_dir, self._server, self._tokens = data_dir, server, tokens
        self._users_lock, self._options = users_lock, options
        self._stop = asyncio.Event()

    async def run(self, listeners: list[socket.socket], announce: Callable[[State], None]) -> None:
        """Serve on ``listeners`` until a signal or the last user's end, then end the server."""
        loop, upstream = asyncio.get_running_loop(), Upstream(self._server)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                loop.add_signal_handler(number, self._stop.set)
        try:
            starting = asyncio.create_task(self._start(upstream))
            if not await self._unless_stopped(starting):
                starting.cancel()
                await asyncio.wait({starting})
                return
            state = State(self._tokens.standard, os.getpid(), starting.result(), "; ".join(self._server.notices))
            if self._options.repair:
                announce(state)
                return
            gateway = Gateway(upstream, self._tokens)
            http = SignalFreeServer(uvicorn.Config(gateway, **HTTP_OPTIONS))
            serving = asyncio.create_task(http.serve(sockets=listeners))
            self._data_dir.remember_inodes()
            self._data_dir.write_state(state)
            announce(state)
            ends = asyncio.create_task(self._become_unused()), asyncio.create_task(self._watch_files())
            await self._unless_stopped(serving, *ends)
            self._data_dir.remove_state()
            gateway.events.end()
            http.should_exit = True
            await asyncio.wait({serving}, timeout=GRACEFUL_S)
        finally:
            await upstream.aclose()  # requests still under way fail with an unknown outcome

    async def _start(self, upstream: Upstream) -> str:
        """Connect to the server; returns its durability."""
        await upstream.open()
        return await self._server.durability(await upstream.wait_for_connection())

    async def _unless_stopped(self, *tasks: "asyncio.Task[object]") -> bool:
        """Wait for the first of ``tasks``; False when a signal comes first. Raises a task's failure."""
        stopped = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in done:
            task.result()
        return bool(done & set(tasks))

    async def _become_unused(self) -> None:
        """Return once the last user has left, holding the users' lock alone: new users wait until this store ends."""
        if not self._options.until_unused:
            await asyncio.Event().wait()  # a standalone store ends only on a signal
        while not self._users_lock.take():  # noqa: ASYNC110 - the kernel does not notify that a lock became free
            await asyncio.sleep(UNUSED_POLL_S)

    async def _watch_files(self) -> None:
        """Raise :class:`StoreUnavailableError` once a lock or data file was removed: later jobs would be lost."""
        while True:
            await asyncio.sleep(LOST_POLL_S)
            self._data_dir.refuse_if_lost()
            append_only.refuse_if_missing(self._data_dir.path)
