"""Each private hook of uvicorn that the servers of this package override or call is still where they expect it.

pyproject.toml pins uvicorn's minor version. To raise it, run this file with the new one: it names the hooks that moved.
"""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from overload_demo.api.front_door.connection import Flow, GatedProtocol
from overload_demo.api.front_door.gate import Server
from overload_demo.http_server import OneWriteProtocol, SignalFreeServer
from overload_demo.store.gateway.endpoint import HttpProtocol

# What uvicorn defines, the classes that override it, and where uvicorn calls it; None: asyncio or httptools does.
OVERRIDDEN: list[tuple[Callable[..., Any], list[type], Callable[..., Any] | None]] = [
    (HttpToolsProtocol.connection_made, [GatedProtocol, OneWriteProtocol], None),
    (HttpToolsProtocol.connection_lost, [GatedProtocol], None),
    (HttpToolsProtocol.eof_received, [GatedProtocol], None),
    (HttpToolsProtocol.data_received, [GatedProtocol, HttpProtocol], None),
    (HttpToolsProtocol.on_message_begin, [GatedProtocol], None),
    (HttpToolsProtocol.on_headers_complete, [GatedProtocol, HttpProtocol], None),
    (HttpToolsProtocol.on_body, [GatedProtocol, HttpProtocol], None),
    (HttpToolsProtocol.on_message_complete, [GatedProtocol, HttpProtocol], None),
    (HttpToolsProtocol.pause_writing, [HttpProtocol], None),
    (HttpToolsProtocol.resume_writing, [HttpProtocol], None),
    (HttpToolsProtocol.on_response_complete, [GatedProtocol, HttpProtocol], HttpToolsProtocol.on_headers_complete),
    (HttpToolsProtocol.send_400_response, [GatedProtocol], HttpToolsProtocol.data_received),
    (HttpToolsProtocol.shutdown, [GatedProtocol], uvicorn.Server.shutdown),
    (FlowControl.resume_reading, [Flow], RequestResponseCycle.receive),
    (uvicorn.Server.startup, [Server], uvicorn.Server._serve),
    (uvicorn.Server.on_tick, [Server], uvicorn.Server.main_loop),
    (uvicorn.Server.shutdown, [Server], uvicorn.Server._serve),
    (uvicorn.Server.capture_signals, [SignalFreeServer], uvicorn.Server.serve),
]


@pytest.mark.parametrize(("hook", "classes", "caller"), OVERRIDDEN, ids=lambda one: getattr(one, "__qualname__", ""))
def test_a_hook_that_is_overridden_has_its_arguments_and_its_caller(
    hook: Callable[..., Any], classes: list[type], caller: Callable[..., Any] | None
) -> None:
    arguments = list(inspect.signature(hook).parameters)

    for one in classes:
        own = list(inspect.signature(vars(one)[hook.__name__]).parameters.values())
        assert [parameter.name for parameter in own if parameter.name in arguments] == arguments
        assert all(parameter.default is not parameter.empty for parameter in own if parameter.name not in arguments)
    assert caller is None or f".{hook.__name__}" in inspect.getsource(caller)


CONNECTION = [
    "flow",
    "pipeline",
    "parser",
    "cycle",
    "transport",
    "server_state",
    "loop",
    "_start_asgi_task",
]
CYCLE = ["keep_alive", "disconnected", "message_event", "response_started", "response_complete"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", CONNECTION)
async def test_a_connection_has_the_attribute_that_is_used(name: str) -> None:
    config = uvicorn.Config(app=lambda: None, log_config=None)
    config.load()
    connection = HttpToolsProtocol(config=config, server_state=ServerState(), app_state={})

    assert hasattr(connection, name)


@pytest.mark.parametrize("name", CYCLE)
def test_a_request_has_the_attribute_that_is_used(name: str) -> None:
    assert f"self.{name} = " in inspect.getsource(RequestResponseCycle.__init__)


def test_status_lines_flow_control_and_server_have_the_attributes_that_are_used() -> None:
    assert STATUS_LINE[431].startswith(b"HTTP/1.1 431 ")
    assert "self.read_paused = " in inspect.getsource(FlowControl)
    server = inspect.getsource(uvicorn.Server)
    assert all(f"self.{name}" in server for name in ("lifespan", "servers", "started", "should_exit"))
