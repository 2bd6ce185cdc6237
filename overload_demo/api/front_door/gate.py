"""The gate, which bounds connections and silence, and the uvicorn server behind it.

uvicorn accepts every connection, so a crowd ends up in its memory and, past the descriptor limit, in errors. Here a
crowd waits in the kernel, where a connection costs next to nothing and none is refused: accepting pauses at a cap of
live connections and resumes below it. During a pause every response carries ``Connection: close``, and idle connections
are closed, the longest idle first, to make room for those that wait. Each gets a short time first: a client that is
sending its next request would see a reset. A new connection is never reset.
"""

import asyncio
import contextlib
import logging
import math
import os
import resource
import socket
import struct
from functools import partial
from typing import Any

from fastapi import FastAPI

from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.direct import DirectRequests
from overload_demo.api.front_door.connection import MAX_HEAD_BYTES, GatedProtocol, is_readable
from overload_demo.config import Settings
from overload_demo.http_server import SignalFreeServer

log = logging.getLogger(__name__)

ACCEPTS_A_TURN = 64  # then the event loop serves the live connections
CHECK_EVERY_S = 1.0
MAKE_ROOM_EVERY_S = 0.05
CROWDED_IDLE_S = 0.25
LAST_REQUEST_S = 1.0  # at a stop: a client that was idle for longer is not about to send
CROWDED_FOR_S = 1.0  # after a pause, since the next one is likely
RESUME_BELOW = 0.9  # of the cap, so that pausing and resuming do not alternate with each connection
KEEP_ALIVE_S = 30
CONNECTION_BYTES = 16_384  # with a request in flight, without its body (measured)
DESCRIPTOR_RESERVE = 48  # the connections to one shard, log, event loop, and a margin


def connection_cap(settings: Settings, in_use: int) -> int:
    """Return how many live connections the settings, the descriptor limit and the memory budget allow.

    ``in_use`` descriptors are for listeners and for the connections to further shards. The budget assumes the largest
    head and body in every connection, the body as bytes and as text.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    at_worst = CONNECTION_BYTES + MAX_HEAD_BYTES + 2 * settings.overload_max_body_bytes
    affordable = settings.overload_connections_mb * 1_000_000 // at_worst
    return max(8, min(settings.overload_max_connections, descriptors - DESCRIPTOR_RESERVE - in_use, affordable))


class Gate:
    """Accepts from ``listeners`` in the running event loop, while fewer connections than the cap are live.

    A connection is closed if it does not complete a request within ``overload_request_patience_s`` of its beginning, or
    of the request's first byte, or does not read its responses for as long.
    """

    def __init__(
        self,
        listeners: list[socket.socket],
        settings: Settings,
        direct: DirectRequests,
        metrics: ApiMetrics,
        **uvicorn_arguments: Any,
    ) -> None:
        self._listeners, self._metrics = listeners, metrics
        self._cap = connection_cap(settings, len(listeners) + direct.connections_to_shards)
        self._timeout_s, self._grace_s = settings.overload_request_patience_s, settings.overload_grace_s
        self._new_protocol = partial(
            GatedProtocol, direct, metrics.answered, self.is_crowded, self._leave, **uvicorn_arguments
        )
        self._inside: set[GatedProtocol] = set()
        metrics.live = self._inside
        self._loop = asyncio.get_running_loop()
        self._room_maker: asyncio.TimerHandle | None = None
        self._is_paused = self._is_retired = False
        self._crowded_until = 0.0
        for listener in listeners:
            listener.setblocking(False)
        self._start_accepting()
        self._close_stalled()

    async def drain(self) -> None:
        """Accept all connections that wait, each for one response; reset those that remain after the grace."""
        self._crowded_until = float("inf")
        give_up_at = self._loop.time() + self._grace_s
        while is_readable(*self._listeners) and self._loop.time() < give_up_at:
            self._metrics.flush()  # the hook that does it rests
            await asyncio.sleep(0.05)
        self._stop_accepting()
        if count := sum(map(_reset_all, self._listeners)):
            log.warning("%d connections were still waiting after %g s and are reset", count, self._grace_s)

    async def retire(self) -> None:
        """Accept no more; let recently active clients send one last request, answered with ``Connection: close``.

        A client that is sending one would otherwise see a reset, with an unknown outcome.
        """
        self._is_retired = True
        self._stop_accepting()
        self._checker.cancel()
        self._crowded_until = float("inf")
        give_up_at = self._loop.time() + min(self._grace_s, LAST_REQUEST_S)
        while (now := self._loop.time()) < give_up_at:
            if all(one.idle_since < now - LAST_REQUEST_S for one in self._inside):
                return
            await asyncio.sleep(0.02)

    def _leave(self, connection: GatedProtocol) -> None:
        """Note the end of a connection, and resume accepting if there is room."""
        self._inside.discard(connection)
        if self._is_paused and not self._is_retired and len(self._inside) < RESUME_BELOW * self._cap:
            self._is_paused = False
            self._metrics.paused.set(0)
            self._crowded_until = max(self._crowded_until, self._loop.time() + CROWDED_FOR_S)
            self._start_accepting()

    def is_crowded(self) -> bool:
        """Whether clients wait outside, or did a moment ago: then a connection serves one request only."""
        return self._is_paused or self._loop.time() < self._crowded_until

    def _accept(self, listener: socket.socket) -> None:
        room = self._cap - len(self._inside)
        if room <= 0:  # a client waits and there is no room
            self._pause()
            return
        for _ in range(min(ACCEPTS_A_TURN, room)):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # out of descriptors in spite of the cap
                log.warning("cannot accept, waiting for connections to end: %s", error.strerror)
                self._pause()
                return
            self._let_in(connection)

    def _let_in(self, connection: socket.socket) -> None:
        """Count a connection from here on, also while the event loop still sets it up."""
        protocol = self._new_protocol()
        protocol.accepted = connection
        self._inside.add(protocol)

        def set_up(task: asyncio.Task[Any]) -> None:
            protocol.setup = None
            if task.cancelled() or task.exception():
                connection.close()
                self._leave(protocol)

        protocol.setup = self._loop.create_task(self._loop.connect_accepted_socket(lambda: protocol, connection))
        protocol.setup.add_done_callback(set_up)

    def _pause(self) -> None:
        if not self._is_paused:
            self._metrics.pauses.inc()
            self._metrics.paused.set(1)
        self._is_paused = True
        self._stop_accepting()
        if self._room_maker is not None:
            self._room_maker.cancel()
        self._make_room()

    def _make_room(self) -> None:
        """During a pause: close the connections idle for longest, a few at a time, until accepting resumes."""
        if self._is_retired or not self._is_paused:
            return
        since = self._loop.time() - CROWDED_IDLE_S
        idle = sorted((one for one in self._inside if one.idle_since < since), key=lambda one: one.idle_since)
        for protocol in idle[:ACCEPTS_A_TURN]:
            protocol.shutdown()
        self._room_maker = self._loop.call_later(MAKE_ROOM_EVERY_S, self._make_room)

    def _start_accepting(self) -> None:
        for listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _stop_accepting(self) -> None:
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())

    def _close_stalled(self) -> None:
        """Close connections past the request or write timeout, and those idle for long.

        Nothing of an incomplete request was enqueued.
        """
        now = self._loop.time()
        for protocol in [one for one in self._inside if one.idle_since < now - KEEP_ALIVE_S]:
            protocol.shutdown()
        for protocol in [one for one in self._inside if one.stalled_since(now) < now - self._timeout_s]:
            protocol.transport.abort()
        self._checker = self._loop.call_later(min(CHECK_EVERY_S, self._timeout_s / 4), self._close_stalled)


def _reset_all(listener: socket.socket) -> int:
    """Reset every connection in an accept queue; returns how many there were."""
    count = 0
    with contextlib.suppress(OSError):  # the queue is empty
        while True:
            with listener.accept()[0] as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            count += 1
    return count


class Server(SignalFreeServer):
    """uvicorn behind the gate: ``run(sockets=[...])`` serves until a stop, which any thread may call.

    ``ready_fd`` is a pipe that gets a byte, and is closed, as soon as the process serves.
    """

    def __init__(self, app: FastAPI, settings: Settings, *, ready_fd: int | None = None) -> None:
        super().__init__(
            app,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.overload_grace_s),
        )
        self._settings, self._ready_fd = settings, ready_fd
        self._state = app.state
        self._metrics: ApiMetrics = app.state.metrics
        self._is_final = False
        self._gate: Gate | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the gate in place of uvicorn's own accepting (uvicorn's hook)."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            return
        uvicorns = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        self._gate = Gate(sockets or [], self._settings, DirectRequests(self._state), self._metrics, **uvicorns)
        self.servers = []
        self.started = True
        if self._ready_fd is not None:
            os.write(self._ready_fd, b"1")
            os.close(self._ready_fd)

    async def on_tick(self, counter: int) -> bool:
        """Flush the metrics, ten times a second (uvicorn's hook)."""
        self._metrics.flush()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain the accept queue after a final stop, then finish the requests (uvicorn's hook)."""
        if self._gate is not None:
            if self._is_final:
                await self._gate.drain()
            await self._gate.retire()
        await super().shutdown(sockets)
        self._metrics.flush()

    def stop(self) -> None:
        """Finish the requests of live connections, then end; another process accepts those that wait."""
        self.should_exit = True

    def stop_for_good(self) -> None:
        """Final shutdown: drain the accept queue first, for up to ``overload_grace_s``.

        Closing the sockets would reset the connections that wait.
        """
        if not self.should_exit:  # after stop() another process accepts them
            self._is_final = self.should_exit = True
