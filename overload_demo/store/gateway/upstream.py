"""The gateway's connections to its server: reopened when lost, closed when they stall.

When the oldest request on a shared connection makes no progress, the gateway probes the server over another one:

- the server answers there: the shared connection is at fault (it blocks, or is dead) and is closed;
- it answers ``BUSY``: a script exceeds the server's time limit, and is killed;
- it does not answer: it is at work, or out of reach. Requests under way stay, further ones are held until it answers.
  When even a connection is not accepted, the shared ones are closed.

Requests pay nothing for this. An external server that is not followed is asked for its role twice a second on the main
connection; nothing else but requests is sent on the shared ones.

A server that is followed is left when its role has moved: the topology says so (checked every 0.5 s, or 0.2 s while it
is silent), or it refuses a command for that reason. What it has refused is sent again to the new one.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.store.gateway.backing_server import BackingServer
from overload_demo.store.gateway.commands import LONGEST_WAIT_MS, RedisCommand
from overload_demo.store.gateway.resp import LOST, RedisConnection, ReplyBudget, ReplyError, error_in

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 2.0  # how long a request waits for the connection to come back
RETRY_FIRST_S, RESEND_S, ERROR_PAUSE_S = 0.25, 0.05, 2.0
LOST_ROLE = {b"-MOVED", b"-READONLY", b"-MASTERDOWN"}  # other refusals pass
LOOK_S, REPLICA_CHECK_S = 0.2, 0.5
IDLE_LOOKS = 2  # without progress, before the server is probed: shorter waits are usual
PROBE_S, LONGEST_PROBE_S = 0.5, 2.0  # the longer a stall, the longer a far server may take to answer
WRITING_SCRIPT_GRACE_S = 3.0  # past the time limit: a script that has written cannot be killed, only undone
MAX_LENT = 64  # chosen: an API process takes three at a time
LONGEST_LOAN_S = LONGEST_WAIT_MS / 1000 + 5.0
LONGEST_IDLE_S = 60.0  # chosen: below the time after which a firewall forgets a connection


class Upstream:
    """The main connection, open from :meth:`open` to :meth:`aclose`, and others on demand.

    All methods that return a connection raise :class:`StoreUnavailableError`: nothing was sent.
    """

    def __init__(self, server: BackingServer, min_replicas: int = 0) -> None:
        self._server, self._min_replicas = server, min_replicas
        self.lent = LentConnections(self)
        self._connection: RedisConnection | None = None
        self._connected = asyncio.Event()
        self._is_held = False  # the server does not answer
        self._stalled_since: float | None = None
        self._busy_since: float | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._for_readers: RedisConnection | None = None
        self._opening = asyncio.Lock()
        self._refusal = b""  # of a server that is followed
        self.on_leave: Callable[[], object] = lambda: None

    @property
    def live(self) -> RedisConnection | None:
        """The main connection, if it can be used at once."""
        connection = self._connection
        return connection if connection is not None and connection.is_open and not self._is_held else None

    async def wait_for_connection(self) -> RedisConnection:
        """The main connection, waiting up to ``REQUEST_TIMEOUT_S``."""
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                while (connection := self.live) is None:
                    self._connected.clear()
                    await self._connected.wait()
        except TimeoutError:
            state = "does not answer" if self._is_held else "is down or starting"
            raise StoreUnavailableError(f"the store {state}") from None
        return connection

    async def shared(self, read_only: bool) -> RedisConnection:
        """The connection that requests of one token share; the read-only token can delay only its own requests."""
        if not read_only or self._is_held:
            main = await self.wait_for_connection()
            if not read_only:
                return main
        async with self._opening:
            if self._for_readers is None or not self._for_readers.is_open:
                self._for_readers = await self.another()
            return self._for_readers

    async def another(self) -> RedisConnection:
        """Open a connection that the caller closes."""
        await self.wait_for_connection()
        return await self._server.connect_again()

    async def run(
        self,
        commands: Sequence[RedisCommand],
        read_only: bool,
        budget: ReplyBudget | None = None,
        lent: RedisConnection | None = None,
    ) -> list[bytes]:
        """Send commands and return their replies; send again what a shard refuses, for up to ``REQUEST_TIMEOUT_S``.

        Raises :class:`StoreUnavailableError` without a connection, or when it has refused all until then, or at once on
        a ``lent`` connection.
        """
        connection = lent or (None if read_only else self.live) or await self.shared(read_only)
        replies = await connection.send(b"".join([one.packed for one in commands]), len(commands), budget)
        if not self._server.refusals:
            return replies
        give_up_at = 0.0 if lent else time.monotonic() + REQUEST_TIMEOUT_S
        while (first := self._first_refused(commands, replies)) is not None:
            rest = commands[first:]
            try:
                await self._handle_refusal(replies[first], connection, give_up_at)
                connection = await self.shared(read_only)
                sent = connection.send(b"".join([one.packed for one in rest]), len(rest), budget)
            except StoreUnavailableError:
                if first:  # the others are done: each of these has its own error
                    return replies
                raise
            replies[first:] = await sent
        if self._refusal:
            log.warning("the server %s accepts commands again", self._server.name)
            self._refusal = b""
        return replies

    def _first_refused(self, commands: Sequence[RedisCommand], replies: Sequence[bytes]) -> int | None:
        """The first command to send again: it was refused, and so were all after it, so that their order is kept."""
        is_refused = [reply.startswith(self._server.refusals) for reply in replies]
        if True not in is_refused:
            return None
        first = is_refused.index(True)
        if commands[0].name == "MULTI":  # all or none
            return None if error_in(replies[-1]) is None or error_in(replies[0]) is not None else 0
        following = zip(commands[first:], is_refused[first:], strict=True)
        return first if all(refused or command.name.upper() == "WAIT" for command, refused in following) else None

    async def _handle_refusal(self, refusal: bytes, connection: RedisConnection, give_up_at: float) -> None:
        """Leave a server that has lost its role, else pause; raises ``StoreUnavailableError`` after ``give_up_at``."""
        problem, kind = f"the server {self._server.name} refuses commands: {error_in(refusal)}", refusal.split()[0]
        if kind not in LOST_ROLE:
            if kind != self._refusal:
                log.warning("%s", problem)
            self._refusal = kind
            await asyncio.sleep(RESEND_S)
        elif connection.is_open:  # the first request to notice
            self._server.expire()
            self._leave(str(error_in(refusal)))
        if time.monotonic() >= give_up_at:
            raise StoreUnavailableError(problem)

    def _leave(self, reason: str) -> None:
        """Let requests wait for a connection to the next server; those under way may still be answered."""
        log.warning("leaving the server %s: %s", self._server.name, reason)
        self._retire(self._shared())
        self.on_leave()

    def _retire(self, connections: Iterable[RedisConnection]) -> None:
        for connection in [*connections]:
            connection.retire()
            if self._is_held:  # a silent server answers no request under way
                connection.close()

    async def open(self) -> None:
        """Connect and stay connected; raises as :class:`BackingServer` does."""
        self._connection = await self._server.connect()
        self.start()
        await self._server.report_replicas(self._connection, self._min_replicas)

    def start(self) -> None:
        """Stay connected, also if :meth:`open` could not connect."""
        work = (self._keep_connected, self._close_stalled, self._leave_replica)
        self._tasks = [asyncio.create_task(self._repeat(one)) for one in work]

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task again after an error that it does not expect: without it the server would be lost for good."""
        while True:
            try:
                await work()
            except Exception:
                log.exception("unexpected error at the server %s, retrying in %g s", self._server.name, ERROR_PAUSE_S)
            await asyncio.sleep(ERROR_PAUSE_S)

    async def aclose(self) -> None:
        """Close the connections, and end a server that the gateway started."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for connection in [*self._shared(), *self.lent.opened]:
            connection.close()
        await self._server.aclose()

    def _shared(self) -> list[RedisConnection]:
        """The open connections that requests share, the main one first."""
        return [one for one in (self._connection, self._for_readers) if one is not None and one.is_open]

    def _hold(self, is_held: bool) -> None:
        """Let further requests wait, as while there is no connection; or serve them again."""
        if is_held != self._is_held:
            state = "does not answer: requests wait" if is_held else "answers again"
            log.warning("the server %s %s", self._server.name, state)
            self._is_held = is_held
            self._connected.set()

    async def _keep_connected(self) -> None:
        retry_s, tried_at, problem = RETRY_FIRST_S, 0.0, ""
        while True:
            if self._connection is not None:
                await asyncio.shield(self._connection.closed)
            self._retire(self.lent.opened)  # they may lead to a server that has lost its role
            if not problem and not (self._connection and self._connection.is_retired):
                log.warning("the connection to the server %s was lost", self._server.name)
            # At once after a long run; never in a tight loop, even if each new server ends on its first write.
            await asyncio.sleep(tried_at + retry_s - time.monotonic())
            tried_at = time.monotonic()
            try:
                self._connection = await self._server.connect()
                self._hold(False)
                self._connected.set()
                retry_s, problem = RETRY_FIRST_S, ""
            except (StoreUnavailableError, ConfigurationError, ReplyError, OSError) as error:
                if str(error) != problem:
                    log.error("cannot connect to the server, retrying: %s", error)
                problem = str(error) or "no reason"
                retry_s = min(2 * retry_s, self._server.retry_longest_s)
            else:
                log.warning("connected to the server %s", self._server.name)
                await self._server.report_replicas(self._connection, self._min_replicas)

    async def _leave_replica(self) -> None:
        """Leave a primary that has become a replica."""
        while True:
            interval_s = LOOK_S if self._is_held else REPLICA_CHECK_S
            await asyncio.sleep(interval_s - time.monotonic() % interval_s)  # all shards at once: one answer serves all
            with contextlib.suppress(ReplyError, StoreUnavailableError):  # BUSY passes; a lost connection is reopened
                connection = self._connection
                if connection and connection.is_open and (reason := await self._server.why_leave(connection)):
                    self._leave(reason)

    async def _close_stalled(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            if stalled := [one for one in self._shared() if one.count_idle_looks() >= IDLE_LOOKS]:
                await self._probe(stalled)
            else:
                self._stalled_since = self._busy_since = None
                self._hold(False)

    async def _probe(self, stalled: list[RedisConnection]) -> None:
        now = time.monotonic()
        self._stalled_since = self._stalled_since or now
        probe_s = min(max(PROBE_S, now - self._stalled_since), LONGEST_PROBE_S)
        try:
            async with asyncio.timeout(probe_s):
                with contextlib.closing(await self._server.connect_aside()) as aside:
                    try:
                        await aside.ask("PING")
                    except ReplyError as error:
                        if str(error).startswith("BUSY"):
                            await self._end_script(aside)
                        return
        except OSError:  # TimeoutError is one
            if not any(one.is_open for one in stalled):  # left meanwhile
                return
            self._hold(True)
            if await self._server.is_reachable():
                return
        except (StoreUnavailableError, ReplyError) as error:
            log.warning("cannot ask the server over another connection: %s", error)
            return
        for connection in stalled:
            if connection.count_idle_looks():
                log.error("closing a connection to the server: it does not advance, its requests' outcome is unknown")
                connection.close()

    async def _end_script(self, aside: RedisConnection) -> None:
        """Kill the running script or function; after its grace, undo one that has written."""
        for family in ("SCRIPT", "FUNCTION"):
            try:
                await aside.ask(family, "KILL")
            except ReplyError as error:
                if not str(error).startswith("UNKILLABLE"):
                    continue  # NOTBUSY: it has ended; BUSY: it is one of the other family
                now = time.monotonic()
                self._busy_since = self._busy_since or now
                if now - self._busy_since > WRITING_SCRIPT_GRACE_S:
                    self._busy_since = now
                    await self._server.end_stuck_script(aside)
            else:
                log.warning("a script that exceeded its time limit was killed; it had written nothing")
            return


class LentConnections:
    """Lends connections to requests that wait for replicas: on a shared one WAIT would delay all requests.

    Each is kept for the next request; ``opened`` are all that are open.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._room = asyncio.Semaphore(MAX_LENT)
        self.opened: set[RedisConnection] = set()
        self._idle: deque[tuple[RedisConnection, float]] = deque()  # since when

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[RedisConnection]:
        """Lend a connection for at most ``LONGEST_LOAN_S``; any error closes it, since replies may be under way.

        Raises :class:`StoreUnavailableError`: nothing was sent.
        """
        if self._room.locked():
            raise StoreUnavailableError(f"{MAX_LENT} requests wait for replicas")
        async with self._room:
            connection = await self._take()
            timer = asyncio.get_running_loop().call_later(LONGEST_LOAN_S, connection.close)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            finally:
                timer.cancel()
            self._idle.append((connection, time.monotonic()))

    async def _take(self) -> RedisConnection:
        main = await self._upstream.wait_for_connection()
        while self._idle:
            connection, since = self._idle.popleft()
            if connection.is_open and since > time.monotonic() - LONGEST_IDLE_S:
                return connection
            connection.close()
        connection = await self._upstream.another()
        self.opened.add(connection)
        connection.closed.add_done_callback(lambda _: self.opened.discard(connection))
        if not main.is_open:  # it may lead to a server that has just been demoted
            connection.close()
            raise StoreUnavailableError(LOST)
        return connection
