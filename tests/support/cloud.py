"""Stores that are far away: a simulated cloud with a replica that really replicates, late, and a real database."""

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from experiments.simulated_cloud import Proxy, SimulatedCloud
from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.rest.address import Address
from overload_demo.store.connect import Store
from overload_demo.store.server_binary import find_server
from tests.support.running import free_port
from tests.support.stores import standalone_store, token_file
from tests.support.waiting import wait_until

LAG_S = 0.02


class Relay(Proxy):
    """Carries bytes between a replica and its primary; those of the primary arrive ``lag_s`` later."""

    def __init__(self, primary_port: int) -> None:
        super().__init__()
        self.lag_s = LAG_S
        self._primary_port = primary_port

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One replica's connection."""
        down, up = await asyncio.open_connection("127.0.0.1", self._primary_port)
        with contextlib.closing(up):
            async with asyncio.TaskGroup() as group:
                late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
                group.create_task(_carry(reader, up))
                group.create_task(self._hold_back(down, late))
                group.create_task(_hand_over(late, writer))

    async def _hold_back(self, reader: asyncio.StreamReader, late: "asyncio.Queue[tuple[float, bytes]]") -> None:
        while data := await reader.read(65_536):
            late.put_nowait((asyncio.get_running_loop().time() + self.lag_s, data))
        raise ConnectionResetError


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


async def _hand_over(late: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
    while True:
        due_at, data = await late.get()
        await asyncio.sleep(due_at - asyncio.get_running_loop().time())
        writer.write(data)
        await writer.drain()


@contextlib.contextmanager
def server(folder: Path, port: int, *options: str) -> Iterator[None]:
    """A server on a port, without a disk."""
    try:
        binary = find_server(None)
    except ConfigurationError as error:
        pytest.skip(str(error))
    folder.mkdir()
    command = [binary, "--port", str(port), "--dir", folder, "--save", "", "--repl-diskless-sync-delay", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_until("the server listens", lambda: listens(port))
        yield
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    """Whether somebody takes connections on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def lagging_cloud(folder: Path) -> Iterator[tuple[SimulatedCloud, Relay]]:
    """A cloud whose reads come from a replica that hears of a write ``relay.lag_s`` later."""
    folder.mkdir(exist_ok=True)
    ports = free_port(), free_port()
    chosen = "--token-file", str(token_file(folder / "token", secrets.token_hex(16)))
    with contextlib.ExitStack() as stack:
        stack.enter_context(server(folder / "primary", ports[0]))
        relay = stack.enter_context(Relay(ports[0]).serving())
        # Writable, since a gateway refuses a replica that is not; the cloud sends it reads only.
        follow = ["--replicaof", "127.0.0.1", str(relay.port), "--replica-read-only", "no"]
        stack.enter_context(server(folder / "replica", ports[1], *follow))
        both = [
            stack.enter_context(
                standalone_store(folder / f"gateway-{port}", *chosen, OVERLOAD_REDIS_URL=f"redis://127.0.0.1:{port}")
            )
            for port in ports
        ]
        wait_until("the replica follows", lambda: "master_link_status:up" in both[1].run("INFO", "replication"))
        addresses = [Address(one.url, SecretStr(one.token)) for one in both]
        yield stack.enter_context(SimulatedCloud(*addresses).serving()), relay


def store_of(cloud: SimulatedCloud) -> Store:
    """The cloud as a store to be opened."""
    return cloud.address, None


def real_database() -> Store:
    """The database of UPSTASH_REDIS_REST_URL and _TOKEN; skips where there is none."""
    if "UPSTASH_REDIS_REST_URL" not in os.environ:
        pytest.skip("UPSTASH_REDIS_REST_URL is not set")
    settings = load_settings()
    assert settings.upstash_redis_rest_url
    assert settings.upstash_redis_rest_token
    return Address(settings.upstash_redis_rest_url, settings.upstash_redis_rest_token), None
