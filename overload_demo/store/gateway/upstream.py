"""The gateway's link to its server: one live connection, made anew whenever it is lost."""

import asyncio
import contextlib
import logging
import time
from typing import NamedTuple, Protocol

from overload_demo.errors import StoreUnavailableError
from overload_demo.rest.address import Durability
from overload_demo.store.data_dir import SERVER_SOCKET
from overload_demo.store.gateway import stall_detector
from overload_demo.store.gateway.resp import RedisConnection, ReplyError
from overload_demo.store.redis_server import RedisServer

log = logging.getLogger(__name__)

ANSWER_TIMEOUT_S = 10.0  # from the start of a server to its first answer, which may be "still loading"
REQUEST_PATIENCE_S = 2.0  # how long a request waits for the connection to come back
RETRY_FIRST_S, RETRY_LONGEST_S = 0.25, 2.0
POLL_S = 0.01


class BackingServer(stall_detector.StallableServer, Protocol):
    """Something behind the gateway that can be connected to."""

    async def connect(self) -> RedisConnection:
        """A connection that answers; raises :class:`StoreUnavailableError`."""
        ...

    async def connect_again(self) -> RedisConnection:
        """Another connection while one lives; raises :class:`StoreUnavailableError` or OSError."""
        ...

    async def aclose(self) -> None:
        """End what :meth:`connect` started."""
        ...


class Lane(NamedTuple):
    """Which connection requests share. Those with the read-only token can hold up each other only."""

    is_raw: bool
    read_only: bool


MAIN_LANE = Lane(is_raw=False, read_only=False)


class Upstream:
    """Keeps a connection to a :class:`BackingServer` alive from :meth:`open` to :meth:`aclose`, and opens more on demand."""

    def __init__(self, server: BackingServer) -> None:
        self._server = server
        self._connection: RedisConnection | None = None
        self._connected = asyncio.Event()
        self._is_held = False  # the server does not answer, see the watchdog
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes: dict[Lane, RedisConnection] = {}
        self._opening_lane = asyncio.Lock()

    @property
    def live(self) -> RedisConnection | None:
        """The connection, if there is one that can be used at once."""
        connection = self._connection
        return connection if connection is not None and connection.is_open and not self._is_held else None

    async def wait_for_connection(self) -> RedisConnection:
        """The connection, waiting up to ``REQUEST_PATIENCE_S``; raises :class:`StoreUnavailableError`: nothing sent."""
        give_up_at = time.monotonic() + REQUEST_PATIENCE_S
        while (connection := self.live) is None:
            self._connected.clear()
            try:
                await asyncio.wait_for(self._connected.wait(), give_up_at - time.monotonic())
            except TimeoutError:
                state = "does not answer" if self._is_held else "is down or starting"
                raise StoreUnavailableError(f"the store {state}") from None
        return connection

    async def lane(self, lane: Lane) -> RedisConnection:
        """A connection shared by all requests of a lane; raises as the one above."""
        if lane == MAIN_LANE:
            return await self.wait_for_connection()
        if self._is_held:
            await self.wait_for_connection()
        async with self._opening_lane:
            connection = self._lanes.get(lane)
            if connection is None or not connection.is_open:
                connection = self._lanes[lane] = await self.another()
                if lane.is_raw:
                    connection.stop_parsing()
        return connection

    def connections(self) -> list[RedisConnection]:
        """The open connections that requests share, the main one first."""
        shared = (self._connection, *self._lanes.values())
        return [connection for connection in shared if connection is not None and connection.is_open]

    def hold(self, is_held: bool) -> None:
        """Let further requests wait, as while there is no connection; or serve them again."""
        if is_held != self._is_held:
            log.warning("the server %s", "does not answer: requests wait" if is_held else "answers again")
            self._is_held = is_held
            self._connected.set()

    async def another(self) -> RedisConnection:
        """A connection for the caller alone, who closes it; raises :class:`StoreUnavailableError`: nothing sent."""
        await self.wait_for_connection()
        try:
            return await self._server.connect_again()
        except OSError as error:
            raise StoreUnavailableError(f"no further connection to the server: {error.strerror or error}") from None

    async def open(self) -> None:
        """Connect for the first time and keep connected from then on; raises when the first time fails."""
        self._use(await self._server.connect())
        watching = stall_detector.StallDetector(self._server, self).run()
        self._tasks = [asyncio.create_task(self._keep_connected()), asyncio.create_task(watching)]

    async def aclose(self) -> None:
        """Close the connection and end the server, if it is ours."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for connection in self.connections():
            connection.close()
        await self._server.aclose()

    def _use(self, connection: RedisConnection) -> None:
        self._connection = connection
        self._connected.set()

    async def _keep_connected(self) -> None:
        assert self._connection is not None
        retry_s, tried_at, is_lost = RETRY_FIRST_S, 0.0, False
        while True:
            await asyncio.shield(self._connection.closed)
            if not is_lost:
                log.warning("the connection to the server was lost")
            is_lost = True
            # At once after a long life; never in a tight loop, even when each new server dies on its first write.
            await asyncio.sleep(tried_at + retry_s - time.monotonic())
            tried_at = time.monotonic()
            try:
                self._use(await self._server.connect())
                retry_s, is_lost = RETRY_FIRST_S, False
            except (StoreUnavailableError, OSError) as error:
                log.error("no server to talk to: %s", error)
                retry_s = min(2 * retry_s, RETRY_LONGEST_S)
            else:
                log.warning("connected to the server again")


class EmbeddedServer:
    """The :class:`BackingServer` of a data directory: started when it does not run, and started again when it has died."""

    def __init__(self, server: RedisServer, durability: Durability) -> None:
        self._server, self.durability, self.notices = server, durability, server.notices

    async def connect(self) -> RedisConnection:
        """Make sure that the server runs and has loaded its data, however long that takes."""
        if await asyncio.to_thread(self._server.wait_if_dying):
            lock = await asyncio.to_thread(self._server.claim)
            self._server.spawn(lock)
        give_up_at = time.monotonic() + ANSWER_TIMEOUT_S
        while self._server.is_running:
            if (connection := await self._try_to_connect()) is not None:
                return connection
            if time.monotonic() > give_up_at:
                raise StoreUnavailableError(f"the server did not answer within {ANSWER_TIMEOUT_S:g} s")
            await asyncio.sleep(POLL_S)
        if await asyncio.to_thread(self._server.mend):
            return await self.connect()
        raise StoreUnavailableError(self._server.last_words())

    async def connect_again(self) -> RedisConnection:
        """Another connection to the running server."""
        return (await asyncio.get_running_loop().create_unix_connection(RedisConnection, SERVER_SOCKET))[1]

    async def connect_aside(self) -> RedisConnection:
        """Another connection to the server, whatever its state; raises :class:`StoreUnavailableError`."""
        try:
            return await self.connect_again()
        except OSError as error:
            raise StoreUnavailableError(f"no connection to the server: {error.strerror or error}") from None

    async def is_reachable(self) -> bool:
        """Always: a server that dies closes its connections."""
        return True

    async def check(self, connection: RedisConnection) -> None:
        """Nothing to check: the server is ours."""

    async def end_stuck_script(self, connection: RedisConnection) -> None:
        """End the server, which is then started again without what the script wrote.

        All that was acknowledged is in the append-only file; what a script writes gets there when the script ends.
        """
        log.error("a script that had written ran past its time limit: the server is restarted, without what it wrote")
        with contextlib.suppress(StoreUnavailableError):  # the connection ends with the server
            await connection.ask("SHUTDOWN", "NOSAVE")

    async def aclose(self) -> None:
        """End the server."""
        await asyncio.to_thread(self._server.end)

    async def _try_to_connect(self) -> RedisConnection | None:
        """A connection with its data loaded; None while the server does not listen, or died over it."""
        try:
            connection = await self.connect_again()
        except OSError:
            return None
        try:
            await wait_until_loaded(connection)
        except StoreUnavailableError:
            if connection.is_open:
                raise
            return None  # it listened and died: its process will tell why
        return connection


async def wait_until_loaded(connection: RedisConnection) -> None:
    """Return once the server has its data; raises :class:`StoreUnavailableError` when it does not answer at all."""
    while True:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):  # wait_for of Python 3.11 can swallow a cancellation
                await connection.ask("PING")
        except TimeoutError:
            connection.close()
            raise StoreUnavailableError(f"the server did not answer within {ANSWER_TIMEOUT_S:g} s") from None
        except ReplyError as error:
            if not str(error).startswith("LOADING"):
                raise StoreUnavailableError(f"the server answered: {error}") from None
        else:
            return
        await asyncio.sleep(0.1)
