"""A primary, its replica, and three Sentinels on loopback, as a user might run them."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import valkey

from overload_demo.store.redis_server import find_server
from tests.support.waiting import wait_until

SERVICE, PASSWORD = "jobs", "p@ss"
SERVER = f"""appendonly yes
appendfsync always
requirepass {PASSWORD}
masterauth {PASSWORD}
repl-diskless-sync-delay 0
"""
SENTINEL = f"""sentinel monitor {SERVICE} 127.0.0.1 {{primary}} 2
sentinel auth-pass {SERVICE} {PASSWORD}
sentinel down-after-milliseconds {SERVICE} 1000
sentinel failover-timeout {SERVICE} 5000
requirepass watch
"""


class SentinelService:
    """The processes, by port."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder = folder
        stack.callback(self._stop)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.primary, self.replica, *self.sentinels = _free_ports(5)
        self._start(self.primary, SERVER)
        self._start(self.replica, SERVER + f"replicaof 127.0.0.1 {self.primary}\n")
        for port in self.sentinels:
            self._start(port, SENTINEL.format(primary=self.primary), "--sentinel")
        wait_until("the replica copies its primary", self._is_replicated)
        wait_until("the Sentinels know each other and the replica", lambda: all(map(self._is_known, self.sentinels)))

    def url(self, service: str = SERVICE) -> str:
        """The ``OVERLOAD_REDIS_URL``."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://:{PASSWORD.replace('@', '%40')}@{hosts}/{service}?sentinel_password=watch"

    def kill_primary(self) -> None:
        """``kill -9`` the primary of the start."""
        self._processes[self.primary].kill()
        self._processes[self.primary].wait(5)

    def _stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(5)

    def _start(self, port: int, config: str, *options: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir(parents=True)
        (folder / "server.conf").write_text(f"port {port}\nbind 127.0.0.1\nlogfile server.log\n{config}")
        command = [str(find_server(None)), "server.conf", *options]
        self._processes[port] = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)

    def _is_replicated(self) -> bool:
        with (
            contextlib.suppress(valkey.ConnectionError, valkey.TimeoutError),
            _client(self.replica, PASSWORD) as client,
        ):
            return client.info("replication")["master_link_status"] == "up"
        return False

    def _is_known(self, sentinel: int) -> bool:
        with contextlib.suppress(valkey.ConnectionError, valkey.TimeoutError), _client(sentinel, "watch") as client:
            state = client.sentinel_masters()[SERVICE]
            return (state["num-other-sentinels"], state["num-slaves"]) == (2, 1)
        return False


def _client(port: int, password: str) -> valkey.Valkey:
    return valkey.Valkey(port=port, password=password, decode_responses=True, socket_timeout=5)


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [one.getsockname()[1] for one in held]


@contextlib.contextmanager
def sentinel_service(folder: Path) -> Iterator[SentinelService]:
    """The processes for the length of a block."""
    with contextlib.ExitStack() as stack:
        yield SentinelService(folder, stack)
