"""The ASGI app: routes, middleware and connections to the store, put together.

``uvicorn overload_demo.api.app:app`` serves it too, without the limits of the front door.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from overload_demo import __version__
from overload_demo.api import openapi, problems, routes
from overload_demo.api.access import ApiKeys, HostCheck, KeyCheck
from overload_demo.api.api_metrics import ApiMetrics
from overload_demo.api.intake import ShortCut
from overload_demo.config import Settings, load_settings
from overload_demo.headers import HostRule
from overload_demo.queue.producer import Producer
from overload_demo.queue.results import Results
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import Store, open_store

# Senders of jobs (2), cancels (1) and reads (2), one shared statistics read and one ping, and a reserve.
CONNECTIONS = 8


class IngressApp(FastAPI):
    """FastAPI with ``layers`` outside its own middleware, the innermost first.

    :class:`ShortCut` needs none of FastAPI's layers, which take half of a request's time in this process (measured).
    """

    layers: tuple[Callable[[ASGIApp], ASGIApp], ...] = ()

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI's hook."""
        app = super().build_middleware_stack()
        for layer in self.layers:
            app = layer(app)
        return app


def create_app(
    settings: Settings | None = None, store: Store | None = None, metrics: ApiMetrics | None = None
) -> FastAPI:
    """Return the ASGI app. Without ``store`` it opens the one of ``settings`` at its start and leaves it at its end.

    ``metrics`` is where it counts; the default is a set of its own.
    """
    counts = metrics or ApiMetrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current = settings or load_settings()
        async with AsyncExitStack() as stack:
            blocking = ExitStack()
            stack.push_async_callback(asyncio.to_thread, blocking.close)
            opening = open_store(current)
            address, refresh = store if store else await asyncio.to_thread(blocking.enter_context, opening)
            upstash = Upstash(
                address,
                connections=CONNECTIONS,
                timeout_s=current.overload_store_deadline_s,
                refresh=refresh,
                on_error=counts.store_error,
            )
            stack.push_async_callback(upstash.aclose)
            results = Results(upstash, current)
            stack.push_async_callback(results.aclose)
            producer = Producer(upstash, current, on_commit=counts.committed)
            stack.push_async_callback(producer.aclose)
            state = app.state
            state.settings, state.keys, state.hosts = current, ApiKeys(current), HostRule(current.allowed_hosts)
            state.upstash, state.results, state.producer = upstash, results, producer
            yield

    app = IngressApp(
        title="overload_demo",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads its viewer from the internet
        redoc_url=None,
        redirect_slashes=False,  # the redirect's Location would repeat any Host header
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looking for it took 6 % of a request's time
    )
    app.state.metrics = counts
    # Without settings, the keys are known only at the start of the app.
    asks_for_keys = settings is None or settings.api_keys
    key_check = [partial(KeyCheck, open_paths=routes.OPEN_PATHS)] if asks_for_keys else []
    app.layers = (ShortCut, *key_check, HostCheck)
    # Not include_router, which would put one more router around each request.
    app.router.routes.extend([*routes.intake.routes, *routes.reading.routes])
    problems.install(app)

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            has_keys = (settings or app.state.settings).api_keys
            app.openapi_schema = openapi.describe(app, routes.OPEN_PATHS if has_keys else None)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app


app = create_app()
