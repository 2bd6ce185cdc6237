"""What a 202 that replicas confirm needs of the gateway: connections that may wait, and a look at the replicas.

On a shared connection WAIT would delay all requests, so each request that waits is lent a connection of its own.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from overload_demo.errors import StoreUnavailableError
from overload_demo.rest import info_facts
from overload_demo.store.gateway.backing_server import BackingServer, configured
from overload_demo.store.gateway.commands import LONGEST_WAIT_MS
from overload_demo.store.gateway.resp import RedisConnection, ReplyError

log = logging.getLogger(__name__)

MAX_LENT = 64  # chosen: an API process takes three at a time
LONGEST_LOAN_S = LONGEST_WAIT_MS / 1000 + 5.0
LONGEST_IDLE_S = 60.0  # chosen: below the time after which a firewall forgets a connection


class LentConnections:
    """Lends a connection to one request at a time, and keeps it for the next; ``opened`` are all that are open.

    ``main`` waits for the main connection; ``another`` opens one. Both raise :class:`StoreUnavailableError`.
    """

    def __init__(
        self, main: Callable[[], Awaitable[RedisConnection]], another: Callable[[], Awaitable[RedisConnection]]
    ) -> None:
        self._main, self._another = main, another
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
        main = await self._main()
        while self._idle:
            connection, since = self._idle.popleft()
            if connection.is_open and since > time.monotonic() - LONGEST_IDLE_S:
                return connection
            connection.close()
        connection = await self._another()
        self.opened.add(connection)
        connection.closed.add_done_callback(lambda _: self.opened.discard(connection))
        if not main.is_open:  # it may lead to a server that has just been demoted
            connection.close()
            raise StoreUnavailableError("the connection to the server was lost")
        return connection


async def report_replicas(server: BackingServer, connection: RedisConnection, wanted: int) -> None:
    """Log and note, once, what weakens a 202 that ``wanted`` replicas confirm.

    Nothing is refused: a replica may be starting, and without enough of them no 202 is sent.
    """
    with contextlib.suppress(ReplyError, StoreUnavailableError):
        for problem in await _problems(server, connection, wanted) if wanted else []:
            if problem not in server.notices:  # shards of one server share them
                log.warning("%s", problem)
                server.notices.append(problem)


async def _problems(server: BackingServer, connection: RedisConnection, wanted: int) -> list[str]:
    found, place = [], server.name.rpartition("at ")[2]
    info = info_facts(await connection.ask("INFO", "replication"))
    # slave0:ip=127.0.0.1,port=7001,state=online,offset=14,lag=0
    replicas = [text for name, text in info.items() if re.fullmatch(r"slave\d+", name) and "state=online" in text]
    if len(replicas) < wanted:
        found.append(f"OVERLOAD_MIN_REPLICAS is {wanted}, but {place} has {len(replicas)} replicas: no job is accepted")
    least = await configured(connection, "min-replicas-to-write")
    if not least.isdigit() or int(least) < wanted:
        advice = f"with less than {wanted} a primary without replicas keeps jobs that a failover drops"
        found.append(f"min-replicas-to-write of the server {place} is {least or 'unknown'}: {advice}")
    for text in replicas:
        replica = dict(part.partition("=")[::2] for part in text.split(","))
        durability = await server.durability_of_replica(replica["ip"], int(replica["port"]))
        if durability != "always":
            place = f"{replica['ip']}:{replica['port']}"
            found.append(f"durability of the replica {place} is {durability!r}, and it may become the primary")
    return found
