"""Close shared connections that stall, and end scripts that do not end.

When the oldest request on a connection makes no progress, the detector asks the server over a connection of its own:

- the server answers there: the shared connection is at fault (it blocks, or is dead) and is closed;
- it answers ``BUSY``: a script exceeds the server's time limit, and is killed;
- it does not answer: it is at work, or out of reach. Requests under way stay, further ones are held until it answers.
  When even a connection is not accepted, the shared ones are closed.

Requests pay nothing for this, and nothing is sent on the shared connections.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from overload_demo.errors import StoreUnavailableError
from overload_demo.store.gateway.backing_server import BackingServer
from overload_demo.store.gateway.resp import RedisConnection, ReplyError

log = logging.getLogger(__name__)

LOOK_S = 0.2
IDLE_LOOKS = 2  # without progress, before the server is asked: what takes less is usual
PROBE_S, LONGEST_PROBE_S = 0.5, 2.0  # the longer a stall, the longer a far server may take to answer
WRITING_SCRIPT_GRACE_S = 3.0  # past the time limit: a script that has written cannot be killed, only undone


class StallDetector:
    """Watches ``connections()``, the main one first, until :meth:`run` is cancelled; ``hold`` holds requests."""

    def __init__(
        self, server: BackingServer, connections: Callable[[], list[RedisConnection]], hold: Callable[[bool], None]
    ) -> None:
        self._server, self._connections, self._hold = server, connections, hold
        self._stalled_since: float | None = None
        self._busy_since: float | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        check: asyncio.Task[None] | None = None
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                connections = self._connections()
                if connections and (check is None or check.done()):
                    check = asyncio.create_task(self._check(connections[0]))
                if stalled := [one for one in connections if one.count_idle_looks() >= IDLE_LOOKS]:
                    await self._probe(stalled)
                else:
                    self._stalled_since = self._busy_since = None
                    self._hold(False)
        finally:
            if check is not None:
                check.cancel()

    async def _check(self, connection: RedisConnection) -> None:
        try:
            await self._server.check(connection)
        except StoreUnavailableError as error:
            if connection.is_open:
                _close(connection, str(error))

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
            self._hold(True)
            if await self._server.is_reachable():
                return
        except (StoreUnavailableError, ReplyError) as error:
            log.warning("cannot ask the server over another connection: %s", error)
            return
        for connection in stalled:
            if connection.count_idle_looks():
                _close(connection, "it does not advance, the outcome of its requests is unknown")

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


def _close(connection: RedisConnection, reason: str) -> None:
    log.error("closing a connection to the server: %s", reason)
    connection.close()
