"""One serving process: uvicorn behind bound sockets and the gate."""

import math
import os
import socket

from fastapi import FastAPI

from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.front_door.connection import GatedProtocol
from overload_demo.api.front_door.gate import Gate, connection_cap
from overload_demo.config import Settings
from overload_demo.http_server import SignalFreeServer

KEEP_ALIVE_S = 30


class Server(SignalFreeServer):
    """``run(sockets=[...])`` serves; :meth:`stop` and :meth:`stop_for_good` end it, from any thread.

    ``ready_fd`` is a pipe that gets a byte, and is closed, as soon as the process serves.
    """

    def __init__(self, app: FastAPI, settings: Settings, *, ready_fd: int | None = None) -> None:
        super().__init__(
            app,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(settings.overload_grace_s),
        )
        self._settings, self._ready_fd = settings, ready_fd
        self._metrics: ApiMetrics = app.state.metrics
        self._is_final = False
        self._gate: Gate | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the gate instead of uvicorn's own accepting (uvicorn's hook)."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            return
        listeners = sockets or []
        cap = connection_cap(self._settings, len(listeners))
        gate = self._gate = Gate(listeners, cap, self._settings.overload_request_patience_s, self._metrics)
        uvicorns = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
        gate.open(lambda: GatedProtocol(self._metrics.answered, gate.is_crowded, gate.leave, **uvicorns))
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
                await self._gate.drain(self._settings.overload_grace_s)
            await self._gate.retire(self._settings.overload_grace_s)
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
