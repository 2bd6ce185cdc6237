"""The ASGI app, assembled from routes, middleware and connections to the store.

``uvicorn overload_demo.api.app:app`` serves it too, without the limits of the front door.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from overload_demo import __version__
from overload_demo.api import contract, problems, routes
from overload_demo.api.access import AccessCheck, ApiKeys
from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.config import Settings, load_settings
from overload_demo.http_server import HostRule
from overload_demo.queue.shards import queue_of
from overload_demo.store.connect import Store, clients_of, open_store

# To each shard: calls with jobs (2), cancels (1) and reads (2), one shared statistics read and one ping, and a reserve.
CONNECTIONS = 8


class IngressApp(FastAPI):
    """FastAPI with the descriptions of ``contract.py``."""

    def openapi(self) -> dict[str, Any]:
        """FastAPI's hook."""
        if self.openapi_schema is None:
            self.openapi_schema = contract.describe(self, routes.OPEN_PATHS if self.state.keys else None)
        return self.openapi_schema


def create_app(
    settings: Settings | None = None, store: Store | None = None, metrics: ApiMetrics | None = None
) -> IngressApp:
    """Return the ASGI app. Without ``store`` it has the one of ``settings`` open while it runs.

    Without ``settings`` it reads them at its start. It counts in ``metrics``, by default in a set of its own.
    """
    app = IngressApp(
        title="overload_demo",
        version=__version__,
        lifespan=lambda app: _connected(app, settings or load_settings(), store),
        exception_handlers=problems.HANDLERS,
        docs_url=None,  # FastAPI's page loads its viewer from the internet
        redoc_url=None,
        redirect_slashes=False,  # the redirect's Location would repeat any Host header
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looking for it took 6 % of a request's time
    )
    app.state.metrics = metrics or ApiMetrics()
    app.state.keys = ApiKeys(settings) if settings else None
    app.add_middleware(AccessCheck, open_paths=routes.OPEN_PATHS)
    # Not include_router, which would put one more router around each request.
    app.router.routes.extend([*routes.intake.routes, *routes.reading.routes])
    return app


@asynccontextmanager
async def _connected(app: FastAPI, settings: Settings, store: Store | None) -> AsyncIterator[None]:
    """The lifespan of the app: connected to its store."""
    state = app.state
    async with AsyncExitStack() as stack:
        blocking = ExitStack()
        stack.push_async_callback(asyncio.to_thread, blocking.close)
        opened = store if store else await asyncio.to_thread(blocking.enter_context, open_store(settings))
        timeout_s, on_error = settings.overload_store_deadline_s, state.metrics.store_error
        state.clients = clients_of(opened, connections=CONNECTIONS, timeout_s=timeout_s, on_error=on_error)
        state.connections_to_shards = CONNECTIONS * (len(state.clients) - 1)  # to further ones than the first
        for client in state.clients:
            stack.push_async_callback(client.aclose)
        state.producer, state.results = queue_of(state.clients, settings, state.metrics.committed)
        stack.push_async_callback(state.results.aclose)
        stack.push_async_callback(state.producer.aclose)
        state.settings, state.keys, state.hosts = settings, ApiKeys(settings), HostRule(settings.allowed_hosts)
        yield


app = create_app()
