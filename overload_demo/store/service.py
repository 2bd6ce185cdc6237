"""The store's own process: locks, server, gateway, and when to leave.

One of it runs per data directory, in two forms: started by its users and ending with the last of them
(``until_unused``), or standing alone in a terminal. Either ends its server before it lets go of its locks.
"""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from pydantic import SecretStr

from overload_demo.config import LOOPBACK_HOSTS, Settings
from overload_demo.errors import ConfigurationError
from overload_demo.http_server import SignalFreeServer
from overload_demo.store import append_only
from overload_demo.store.data_dir import GATEWAY_SOCKET, DataDir, State, Tokens, new_tokens
from overload_demo.store.gateway.endpoint import Gateway
from overload_demo.store.gateway.external_server import ExternalServer, inspect, parse_target
from overload_demo.store.gateway.http_protocol import HttpProtocol
from overload_demo.store.gateway.upstream import EmbeddedServer, Upstream
from overload_demo.store.locks import FileLock
from overload_demo.store.redis_server import RedisServer
from overload_demo.store.server_binary import find_server

log = logging.getLogger(__name__)

UNUSED_POLL_S = 0.1
LOST_POLL_S = 0.5  # after a removal of the data directory jobs are still accepted for so long
LEAVING_PATIENCE_S = 30.0  # longer than a store takes to leave
GATEWAY_PATIENCE_S = 1.0  # whoever asks whether the gateway lives holds its lock for an instant
GRACEFUL_S = 3.0  # requests under way get this long at the end
BACKLOG = 2048


@dataclass(frozen=True)
class StoreOptions:
    """How a store process is to run.

    Beside its socket in the data directory it listens on ``port``, unless that is None; 0 takes a free one. An empty
    token means a new one. With ``repair`` the server is started and ended, and damaged commands are dropped meanwhile.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int | None = None
    token: SecretStr = field(default_factory=lambda: SecretStr(""))
    read_only_token: SecretStr = field(default_factory=lambda: SecretStr(""))
    until_unused: bool = False
    repair: bool = False


def run_store(options: StoreOptions, settings: Settings, announce: Callable[[State, Tokens, str], None]) -> None:
    """Run a store until it is told to stop (SIGTERM, SIGINT, SIGHUP) or, if so asked, until nobody uses it.

    ``announce`` is called once it serves, with the URL of its port ("" without one). Changes the working directory to
    the data directory. Raises :class:`ConfigurationError` or :class:`StoreUnavailableError` when it cannot start, and
    the latter once its data directory was removed or replaced.
    """
    data_dir = DataDir(options.data_dir)
    data_dir.prepare()
    tokens = _tokens(options, new_tokens())
    with contextlib.ExitStack() as stack:
        users_lock = stack.enter_context(_sole_gateway(data_dir, options.until_unused))
        listeners, url = [], ""
        if options.port is not None:
            listeners.append(stack.enter_context(_listen(options.host, options.port)))
            url = _url(listeners[0], options.host)
        server = _choose_server(settings, data_dir, repair=options.repair)
        os.chdir(data_dir.path)  # paths of sockets are short from here
        listeners.append(stack.enter_context(_listen_in_data_dir()))
        store = _Store(data_dir, server, tokens, users_lock, options)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(store.run(listeners, lambda state: announce(state, tokens, url)))
        if options.until_unused and users_lock.is_held:  # held alone: the last user has left
            data_dir.remove_if_temporary()


def _tokens(options: StoreOptions, own: Tokens) -> Tokens:
    """The tokens to ask for; raises :class:`ConfigurationError` when one could not be told from the other."""
    chosen = Tokens(
        options.token.get_secret_value() or own.standard, options.read_only_token.get_secret_value() or own.read_only
    )
    if chosen.standard == chosen.read_only:
        raise ConfigurationError("the read-only token is the same as the token: they must differ")
    return chosen


@contextlib.contextmanager
def _sole_gateway(data_dir: DataDir, until_unused: bool) -> Iterator[FileLock]:
    """Hold the gateway lock, and the users' lock as a user; yields the latter. Both are let go at the very end."""
    users_lock, gateway_lock = data_dir.users_lock(), data_dir.gateway_lock()
    # A store that runs until unused is held by whoever started it; one that stands alone holds itself.
    if not until_unused and not users_lock.take(shared=True, timeout_s=LEAVING_PATIENCE_S):
        raise ConfigurationError(f"the store on {data_dir.path} is leaving, but does not end")
    if not gateway_lock.take(timeout_s=GATEWAY_PATIENCE_S):
        users_lock.release()
        raise ConfigurationError(f"another store is already running on {data_dir.path}")
    try:
        data_dir.remember()
        data_dir.remove_state()  # left behind by one that was killed
        yield users_lock
    finally:
        gateway_lock.release()
        users_lock.release()


def _choose_server(settings: Settings, data_dir: DataDir, *, repair: bool) -> EmbeddedServer | ExternalServer:
    if settings.overload_redis_url is not None:
        return ExternalServer(parse_target(settings.overload_redis_url.get_secret_value()))
    binary = find_server(settings.overload_redis_server)
    server = RedisServer(binary, data_dir, settings.overload_maxmemory, settings.overload_durability, repair=repair)
    return EmbeddedServer(server, settings.overload_durability)


def _listen_in_data_dir() -> socket.socket:
    """A socket in the working directory, for processes of this user only."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(GATEWAY_SOCKET)
    Path(GATEWAY_SOCKET).chmod(0o600)
    listener.listen(BACKLOG)
    return listener


def _listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; raises :class:`ConfigurationError` when the address cannot be had."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # IPPROTO_TCP spelled out: without it asyncio leaves Nagle's algorithm on for accepted connections.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            # Connections of a killed predecessor may linger in TIME_WAIT; a living one still keeps us out.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        reason = "the port is taken" if error.errno == errno.EADDRINUSE else error.strerror
        raise ConfigurationError(f"cannot listen on {host} port {port}: {reason}") from None
    return listener


def _url(listener: socket.socket, host: str) -> str:
    """Where the listener is reached from this machine."""
    if host not in LOOPBACK_HOSTS and not host.startswith("127."):
        log.warning("listening on %s: whoever reaches it and has the token can use the store, unencrypted", host)
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reachable}:{listener.getsockname()[1]}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32":
        return None
    import uvloop

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


class _Store:
    """The part that lives in the event loop."""

    def __init__(
        self,
        data_dir: DataDir,
        server: EmbeddedServer | ExternalServer,
        tokens: Tokens,
        users_lock: FileLock,
        options: StoreOptions,
    ) -> None:
        self._data_dir, self._server, self._tokens = data_dir, server, tokens
        self._users_lock, self._options = users_lock, options
        self._stop = asyncio.Event()

    async def run(self, listeners: list[socket.socket], announce: Callable[[State], None]) -> None:
        """Serve on ``listeners`` until told to stop, then end the server."""
        self._watch_signals()
        upstream = Upstream(self._server)
        try:
            starting = asyncio.create_task(self._start(upstream))
            if not await self._unless_stopped(starting):
                starting.cancel()
                await asyncio.wait({starting})
                return
            notices = self._server.notices if isinstance(self._server, EmbeddedServer) else []
            state = State(self._tokens.standard, os.getpid(), starting.result(), "; ".join(notices))
            if self._options.repair:
                announce(state)
                return
            gateway = Gateway(upstream, self._tokens)
            http = SignalFreeServer(_http_config(gateway))
            serving = asyncio.create_task(http.serve(sockets=listeners))
            self._data_dir.remember()
            self._data_dir.write_state(state)
            announce(state)
            is_unused, is_lost = asyncio.create_task(self._become_unused()), asyncio.create_task(self._lose_data())
            await self._unless_stopped(serving, is_unused, is_lost)
            self._data_dir.remove_state()
            gateway.end_events()
            http.should_exit = True
            await asyncio.wait({serving}, timeout=GRACEFUL_S)
        finally:
            await upstream.aclose()  # whatever is still under way loses its connection, and is told so

    async def _start(self, upstream: Upstream) -> str:
        """Open the link to the server; returns its durability."""
        await upstream.open()
        if isinstance(self._server, EmbeddedServer):
            return self._server.durability
        return await inspect(await upstream.wait_for_connection())

    async def _unless_stopped(self, *tasks: "asyncio.Task[object]") -> bool:
        """Wait for the first of ``tasks``; False when we are told to stop before. A failure of theirs is raised."""
        stopped = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in done:
            task.result()
        return bool(done & set(tasks))

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks
                loop.add_signal_handler(number, self._stop.set)

    async def _become_unused(self) -> None:
        """Return once nobody uses the store, holding the users' lock alone: newcomers wait until we are gone."""
        if not self._options.until_unused:
            await asyncio.Event().wait()  # nobody's leaving ends a store that stands alone
        while not self._users_lock.take():  # noqa: ASYNC110 - the kernel tells nobody that a lock became free
            await asyncio.sleep(UNUSED_POLL_S)

    async def _lose_data(self) -> None:
        """Raise :class:`StoreUnavailableError` once a lock or a data file has gone: what is accepted then is lost."""
        while True:
            await asyncio.sleep(LOST_POLL_S)
            self._data_dir.refuse_if_lost()
            append_only.refuse_if_missing(self._data_dir.path)


def _http_config(app: Gateway) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        loop="none",
        lifespan="off",
        ws="none",
        log_config=None,
        log_level=logging.WARNING,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        # An idle connection closed by us just when the client uses it again would leave the outcome unknown.
        timeout_keep_alive=600,
    )
