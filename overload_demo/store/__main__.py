"""``python -m overload_demo.store``: the store's own process, which holds the locks and runs server and gateway.

One runs per data directory: standalone in a terminal, or started by its users and ending with the last of them
(``--until-unused``). Either ends its server before it releases its locks.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from overload_demo.config import LOOPBACK_HOSTS, Settings, load_settings
from overload_demo.console import log_to_stderr, run_command
from overload_demo.errors import ConfigurationError, OverloadDemoError, StoreUnavailableError
from overload_demo.http_server import SignalFreeServer, listen_tcp, url_of
from overload_demo.process import raise_descriptor_limit
from overload_demo.store import append_only
from overload_demo.store.data_dir import GATEWAY_SOCKET, DataDir, FileLock, State, hash_tag, without_secrets
from overload_demo.store.embedded_cluster import EmbeddedCluster
from overload_demo.store.gateway.backing_server import BackingServer, ExternalServer
from overload_demo.store.gateway.endpoint import Gateway, HttpProtocol, ShardedGateway, Tokens
from overload_demo.store.gateway.upstream import Upstream
from overload_demo.store.redis_server import EmbeddedServer

log = logging.getLogger("overload_demo.store")

UNUSED_POLL_S = 0.1
LOST_POLL_S = 0.5  # after a removal of the data directory jobs are still accepted for so long
GATEWAY_TIMEOUT_S = 1.0  # a process that checks for a gateway holds its lock for an instant
GRACEFUL_S = 3.0  # for requests under way at the end
BACKLOG = 2048
KEEP_ALIVE_S = 600  # a connection closed just when the client uses it again leaves an outcome unknown
WEAKEST_FIRST = ["none", "unknown", "everysec", "always"]  # durabilities
HTTP_OPTIONS = {"lifespan": "off", "ws": "none", "proxy_headers": False, "server_header": False, "date_header": False}


def main(
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="TCP port for clients that need a URL; 0 takes a free one.", show_default="none"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address of the port; any other than loopback exposes the store.")
    ] = "127.0.0.1",
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that each request must carry.", show_default="a new token")
    ] = None,
    read_only_token_file: Annotated[
        Path | None, typer.Option(help="File with the token for read commands only.", show_default="a new token")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Directory of the store's files.", show_default="OVERLOAD_DATA_DIR, else per user"),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            help="Servers: 1, or 6 to 12 for a cluster, half of them replicas.", show_default="OVERLOAD_NODES, else 1"
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop damaged commands from the data, keep a copy, report the loss, exit.")
    ] = False,
    until_unused: Annotated[
        bool, typer.Option("--until-unused", hidden=True, help="End with the last user instead of on a signal.")
    ] = False,
) -> None:
    """Run a real Redis behind a gateway that speaks the Upstash REST protocol, on this machine.

    Runs until Ctrl-C or SIGTERM and then ends its server; the data stays. A write is on disk before it is acknowledged.
    """
    # A terminal shows warnings only; the log of a store that its users have started holds everything.
    try:
        # An Upstash endpoint in the environment does not concern this store.
        chosen = {} if nodes is None else {"overload_nodes": nodes}
        settings = load_settings(upstash_redis_rest_url=None, upstash_redis_rest_token=None, **chosen)
        log_to_stderr(settings.overload_log_format, logging.INFO if until_unused else logging.WARNING)
        tokens = Tokens(_token("--token-file", token_file), _token("--read-only-token-file", read_only_token_file))
        if (repair or chosen) and settings.overload_redis_url is not None:
            option = "--repair" if repair else "--nodes"
            raise ConfigurationError(f"OVERLOAD_REDIS_URL is set: {option} is for the embedded store only")
        _run(_Options(data_dir or settings.overload_data_dir, host, port, until_unused, repair), settings, tokens)
    except OverloadDemoError as error:
        typer.echo(f"error: {error}", err=True)  # without colours, even if forced: clients read it in the log
        raise typer.Exit(1) from None


def _token(option: str, file: Path | None) -> str:
    """The token in a file, or an empty one; not an argument itself, which every user of the machine could read."""
    if file is None:
        return ""
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{option}: cannot read {file}: {getattr(error, 'strerror', 'no text')}") from None
    if not token or not (token.isascii() and token.isprintable() and " " not in token):
        raise ConfigurationError(f"{option}: {file} must hold one word of printable ASCII")
    return token


@dataclass(frozen=True)
class _Options:
    data_dir: Path
    host: str
    port: int | None
    until_unused: bool
    repair: bool  # only start and end the server, dropping damaged commands


class ShardSet:
    """The servers that the settings name, from :meth:`open` to :meth:`aclose`.

    Embedded ones are those of ``data_dir``, which must be the working directory then. Raises
    :class:`ConfigurationError` for settings that do not fit each other or the data.
    """

    def __init__(self, data_dir: DataDir, settings: Settings, *, drop_damage: bool) -> None:
        self._cluster: EmbeddedCluster | None = None
        self._servers: Sequence[BackingServer]
        url, nodes, replicas = settings.overload_redis_url, settings.overload_nodes, settings.overload_min_replicas
        self.behind = without_secrets(url)
        if url is None:
            data_dir.refuse_other_nodes(nodes)
            if replicas > int(nodes > 1):  # a cluster has one of each primary
                raise ConfigurationError(
                    f"OVERLOAD_MIN_REPLICAS: the embedded store with OVERLOAD_NODES={nodes} has "
                    f"{int(nodes > 1)} replicas of a job, not {replicas}"
                )
            if nodes > 1:
                self._cluster = EmbeddedCluster(data_dir, settings, drop_damage=drop_damage)
                url = self._cluster.url
        if url is None:
            self._servers = [EmbeddedServer(data_dir, settings, drop_damage=drop_damage)]
        elif "+" not in url.get_secret_value().partition("://")[0]:
            self._servers = [ExternalServer(url.get_secret_value())]
        else:
            from overload_demo.store.gateway.topology import followed_servers  # its library costs 0.2 s

            self._servers = followed_servers(url.get_secret_value())
        self.upstreams = [Upstream(server, replicas) for server in self._servers]
        self.directories = [data_dir, *(self._cluster.directories if self._cluster else [])]

    @property
    def shards(self) -> int:
        """The number of shards of a cluster; 0 for one server."""
        return len(self._servers) if self._servers[0].is_in_cluster else 0

    @property
    def durability(self) -> str:
        """The weakest of the servers that are connected at present."""
        return min((server.durability for server in self._servers), key=WEAKEST_FIRST.index)

    @property
    def notice(self) -> str:
        """What to know about the data, each once in a line."""
        found = [*(self._cluster.notices if self._cluster else [])]
        return "\n".join(dict.fromkeys(sum((server.notices for server in self._servers), found)))

    async def open(self) -> None:
        """Connect to all shards at once. A shard without a primary is tried again.

        Raises what the first one raises, if no shard has a primary or jobs are not safe on one.
        """
        if self._cluster:
            await self._cluster.open()
        results = await asyncio.gather(*(one.open() for one in self.upstreams), return_exceptions=True)
        problems = [result for result in results if isinstance(result, BaseException)]
        fatal = [problem for problem in problems if not isinstance(problem, StoreUnavailableError)]
        if fatal or len(problems) == len(results):
            raise (fatal or problems)[0]
        for upstream, result in zip(self.upstreams, results, strict=True):
            if isinstance(result, StoreUnavailableError):
                log.error("starting without a shard: %s", result)
                upstream.start()

    async def aclose(self) -> None:
        """Close the connections, and end the servers that were started here."""
        await asyncio.gather(*(upstream.aclose() for upstream in self.upstreams))
        if self._cluster:
            await self._cluster.aclose()


def _run(options: _Options, settings: Settings, tokens: Tokens) -> None:
    """Run the store until a signal or the last user's end. Changes the working directory to the data directory.

    Raises :class:`ConfigurationError` or :class:`StoreUnavailableError` when it cannot start, and the latter once its
    data directory was removed or replaced.
    """
    data_dir = DataDir(options.data_dir)
    data_dir.prepare()
    users_lock, gateway_lock = data_dir.lock("users"), data_dir.lock("gateway")
    with contextlib.ExitStack() as stack:
        # A standalone store is a user itself; one until unused has the process that starts it as its user.
        stack.callback(users_lock.release)
        if not options.until_unused:
            users_lock.share()
        stack.callback(gateway_lock.release)
        gateway_lock.require("another store is already running on", timeout_s=GATEWAY_TIMEOUT_S)
        raise_descriptor_limit()  # for further users and listeners
        data_dir.remember_inodes()
        data_dir.remove_state()  # of a store that was killed
        listeners = []
        if options.port is not None:
            listeners.append(stack.enter_context(listen_tcp(options.host, options.port, BACKLOG)))
            if options.host not in LOOPBACK_HOSTS and not options.host.startswith("127."):
                log.warning("listening on %s: every client with the token can use the store, unencrypted", options.host)
        shards = ShardSet(data_dir, settings, drop_damage=options.repair)
        os.chdir(data_dir.path)  # paths of sockets are short from here
        listeners.append(stack.enter_context(_listen_in_data_dir()))
        import uvloop  # not on Windows, where no data directory can be used

        serving = _serve(options, data_dir, shards, tokens, users_lock, listeners)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(serving, shards))
        if options.until_unused and users_lock.is_held:  # held alone: the last user has left
            data_dir.remove_if_temporary()


def _listen_in_data_dir() -> socket.socket:
    """Listen on a socket in the working directory, for processes of this user only."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(GATEWAY_SOCKET)
    Path(GATEWAY_SOCKET).chmod(0o600)
    listener.listen(BACKLOG)
    return listener


async def _until_stopped(coroutine: Coroutine[Any, Any, None], shards: ShardSet) -> None:
    """Run ``coroutine`` to its end or until a signal cancels it, then end the servers."""
    loop, serving = asyncio.get_running_loop(), asyncio.create_task(coroutine)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP
            # Only the first signal: a second one must not cut off the requests under way.
            loop.add_signal_handler(number, lambda: serving.cancelling() or serving.cancel())
    try:
        await asyncio.wait({serving})
        if not serving.cancelled():
            serving.result()
    finally:
        await shards.aclose()  # requests still under way fail with an unknown outcome


async def _serve(
    options: _Options,
    data_dir: DataDir,
    shards: ShardSet,
    tokens: Tokens,
    users_lock: FileLock,
    listeners: list[socket.socket],
) -> None:
    """Serve on ``listeners`` until it is cancelled, the last user has left, or the data is lost."""
    await shards.open()
    state = State(tokens.standard, os.getpid(), shards.durability, shards.notice, shards.shards, shards.behind)
    if options.repair:
        _report_repair(data_dir, state.notice)
        return
    each = [tokens.of_shard(shard) for shard in range(shards.shards)] or [tokens]
    gateways = [Gateway(*pair) for pair in zip(shards.upstreams, each, strict=True)]
    app = ShardedGateway(gateways) if shards.shards else gateways[0]
    http = SignalFreeServer(app, http=HttpProtocol, timeout_keep_alive=KEEP_ALIVE_S, **HTTP_OPTIONS)
    answering = asyncio.create_task(http.serve(sockets=listeners))
    ends = [answering, asyncio.create_task(_watch(data_dir, shards, state))]
    data_dir.remember_inodes()
    data_dir.write_state(state)
    if options.until_unused:
        ends.append(asyncio.create_task(_take_alone(users_lock, data_dir)))
    else:
        _introduce(options, state.durability, each, listeners)
    with contextlib.suppress(asyncio.CancelledError):  # by a signal
        await next(asyncio.as_completed(ends))  # raises if the data is lost: what is there now is another store's
    ends[1].cancel()  # it would miss the socket and publish the state
    data_dir.remove_state()
    for gateway in gateways:
        gateway.events.end()
    http.should_exit = True
    await asyncio.wait({answering}, timeout=GRACEFUL_S)


async def _take_alone(users_lock: FileLock, data_dir: DataDir) -> None:
    """Return once the last user has left, holding the users' lock alone: new users wait until this store ends."""
    while True:
        data_dir.refuse_if_lost()  # of a lock file that was removed, a new one would be created and locked
        with contextlib.suppress(ConfigurationError):  # no descriptor is free at present
            if users_lock.take():
                return
        await asyncio.sleep(UNUSED_POLL_S)  # the kernel does not notify that a lock became free


async def _watch(data_dir: DataDir, shards: ShardSet, state: State) -> None:
    """Publish a changed durability; raise :class:`StoreUnavailableError` once a lock, data file or socket is gone."""
    listening = DataDir(data_dir.path)
    listening.remember_inodes([GATEWAY_SOCKET])
    while True:
        await asyncio.sleep(LOST_POLL_S)
        for one in shards.directories:
            one.refuse_if_lost()
            append_only.refuse_if_missing(one.path)  # later jobs would be lost
        listening.refuse_if_lost()
        if (present := replace(state, durability=shards.durability)) != state:
            with contextlib.suppress(OSError):  # the disk is full, or no descriptor is free: tried again
                data_dir.write_state(present)
                state = present


def _report_repair(data_dir: DataDir, notice: str) -> None:
    typer.echo(notice or f"The data in {data_dir.path} loads: nothing is dropped.")
    if "damaged commands" in notice:
        typer.echo("Then repair what the queue lost with them: overload-demo queue reconcile")


def _introduce(options: _Options, durability: str, tokens: list[Tokens], listeners: list[socket.socket]) -> None:
    """Print how to use the store. Tokens are shown here and nowhere else."""
    typer.echo(f"Store in {options.data_dir}, durability {durability}; API and worker find it by OVERLOAD_DATA_DIR.")
    if options.port is not None:
        for shard, one in enumerate(tokens):
            what = f"shard {shard}, whose keys begin with {hash_tag(shard)}," if len(tokens) > 1 else "it"
            typer.echo(f"Other clients use {what} with:\n\n  export UPSTASH_REDIS_REST_URL={url_of(listeners)}")
            typer.echo(f"  export UPSTASH_REDIS_REST_TOKEN={one.standard}\n")
            typer.echo(f"A token for read commands only: {one.read_only}")
    else:
        typer.echo("API and worker with this OVERLOAD_DATA_DIR use it; for other clients, --port opens a URL.")
    typer.echo("Ctrl-C ends it; the data stays.")


if __name__ == "__main__":
    run_command(main, "python -m overload_demo.store")
