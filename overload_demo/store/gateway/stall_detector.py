"""Watch the gateway's shared connections: leave one that does not advance, end a script that does not end.

When the oldest request on a connection makes no progress, the server is asked over a connection of its own:

- it answers there: the shared connection is at fault (it blocks, or is dead) and is closed;
- it answers ``BUSY``: a script runs past the server's limit, and is killed;
- it does not answer: it is at work, or out of reach. Requests under way keep their chance, further ones are refused
  until it answers. A server that cannot even be connected to is left.

Nothing of this costs a request anything, and nothing is sent on the shared connection.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Protocol

from overload_demo.errors import StoreUnavailableError
from overload_demo.store.gateway.resp import RedisConnection, ReplyError

log = logging.getLogger(__name__)

LOOK_S = 0.2
IDLE_LOOKS = 2  # without progress, before the server is asked: what takes less is usual
PROBE_S, LONGEST_PROBE_S = 0.5, 2.0  # the longer a stall, the longer a far server may take to answer
WRITING_SCRIPT_GRACE_S = 3.0  # past the limit of scripts: one that has written cannot be killed, only undone


class StallableServer(Protocol):
    """What the watchdog needs of the server behind the gateway."""

    async def connect_aside(self) -> RedisConnection:
        """Return a connection for PING and KILL; raises :class:`StoreUnavailableError`, OSError or ReplyError."""
        ...

    async def is_reachable(self) -> bool:
        """Whether a connection can be made, answered or not."""
        ...

    async def check(self, connection: RedisConnection) -> None:
        """Wait for the next look, then raise :class:`StoreUnavailableError` if the server refuses writes."""
        ...

    async def end_stuck_script(self, connection: RedisConnection) -> None:
        """Do what can be done about a script that has written and does not end."""
        ...


class SharedConnections(Protocol):
    """What the watchdog needs of the link to the server."""

    def connections(self) -> list[RedisConnection]:
        """Return the open connections that requests share, the main one first."""
        ...

    def hold(self, is_held: bool) -> None:
        """Refuse further requests, or serve them again."""
        ...


class StallDetector:
    """Looks after the connections of one link until :meth:`run` is cancelled."""

    def __init__(self, server: StallableServer, upstream: SharedConnections) -> None:
        self._server, self._upstream = server, upstream
        self._stalled_since: float | None = None
        self._busy_since: float | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        check: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                connections = self._upstream.connections()
                if connections and (check is None or check.done()):
                    check = asyncio.create_task(self._check(connections[0]))
                stalled = [one for one in connections if one.count_idle_looks() >= IDLE_LOOKS]
                if stalled:
                    await self._look_into(stalled)
                else:
                    self._stalled_since = self._busy_since = None
                    self._upstream.hold(False)
        finally:
            if check is not None:
                check.cancel()

    async def _check(self, connection: RedisConnection) -> None:
        try:
            await self._server.check(connection)
        except StoreUnavailableError as error:
            if connection.is_open:
                _leave(connection, str(error))

    async def _look_into(self, stalled: list[RedisConnection]) -> None:
        now = time.monotonic()
        self._stalled_since = self._stalled_since or now
        probe_s = min(max(PROBE_S, now - self._stalled_since), LONGEST_PROBE_S)
        try:
            async with asyncio.timeout(probe_s), self._aside() as aside:
                try:
                    await aside.ask("PING")
                except ReplyError as error:
                    if str(error).startswith("BUSY"):
                        await self._end_script(aside)
                    return
        except OSError:  # TimeoutError is one
            self._upstream.hold(True)
            if await self._server.is_reachable():
                return
        except (StoreUnavailableError, ReplyError) as error:
            log.warning("cannot ask the server over another connection: %s", error)
            return
        for connection in stalled:
            if connection.count_idle_looks():
                _leave(connection, "it does not advance, the outcome of its requests is unknown")

    @contextlib.asynccontextmanager
    async def _aside(self) -> AsyncIterator[RedisConnection]:
        connection = await self._server.connect_aside()
        try:
            yield connection
        finally:
            connection.close()

    async def _end_script(self, aside: RedisConnection) -> None:
        """Kill the script or function that runs; one that has written is undone once its grace is over."""
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
                log.warning("a script that ran past its time limit was killed; it had written nothing")
            return


def _leave(connection: RedisConnection, reason: str) -> None:
    log.error("a connection to the server is closed: %s", reason)
    connection.close()
