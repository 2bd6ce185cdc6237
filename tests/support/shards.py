"""Deployments of several shards: in one store, apart by the hash tags of their keys, or in a store each."""

import contextlib
import secrets
import signal
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Self

import psutil
from pydantic import SecretStr

from overload_demo.config import Settings
from overload_demo.rest import Address
from overload_demo.store.connect import Store
from overload_demo.store.data_dir import hash_tag
from tests.support.running import free_port
from tests.support.stores import (
    Rest,
    processes_of,
    read_connection_lines,
    start_standalone,
    token_file,
    wait_until_no_process_in,
)


def joined(addresses: Iterable[Address]) -> Store:
    """The store whose shards these are."""
    first, *others = addresses
    return replace(first, others=tuple(others)), None


def sharing(store: Store, count: int) -> Store:
    """Several shards in one server, as in a cluster."""
    return joined(replace(store[0], tag=hash_tag(shard)) for shard in range(count))


def depths(settings: Settings, store: Store) -> list[int]:
    """The length of each shard's list."""
    return [
        Rest(one.url, one.token.get_secret_value()).run("LLEN", f"{one.tag}{settings.overload_key_prefix}jobs:queue")
        for one in store[0].shards
    ]


class KillableStore:
    """A store at a lasting address: gateway and server, which a test kills, freezes and starts again."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._port, self._token = free_port(), secrets.token_hex(16)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def address(self) -> Address:
        return Address(f"http://127.0.0.1:{self._port}", SecretStr(self._token))

    def start(self) -> None:
        chosen = token_file(self.data_dir.with_suffix(".token"), self._token)
        self._process = start_standalone(self.data_dir, "--port", str(self._port), "--token-file", str(chosen))
        read_connection_lines(self._process)

    def signal(self, number: int) -> None:
        """Send a signal to both processes."""
        for process in processes_of(self.data_dir):
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        wait_until_no_process_in(self.data_dir)
        if self._process is not None:
            self._process.communicate()
            self._process = None
