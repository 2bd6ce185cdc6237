"""Three shards: standalone stores on fixed ports, each in a data directory of its own, to be killed and restarted."""

import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from pydantic import SecretStr

from overload_demo.config import Settings
from overload_demo.jobs import new_job_id, on_shard, shard_of
from overload_demo.queue.producer import NewJob
from overload_demo.rest import Address
from overload_demo.store.connect import Store
from tests.support.queues import Queue, open_queue
from tests.support.running import events, free_port
from tests.support.shards import joined
from tests.support.stores import (
    gateway_pid,
    kill_all,
    no_process_left_in,
    processes_of,
    read_connection_lines,
    start_standalone,
    stop,
    token_file,
)
from tests.support.waiting import wait_until, wait_until_async

COUNT = 3


class ShardServer:
    """One shard's gateway and server; :meth:`start` again after :meth:`kill` finds the same data at the same URL."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir, self._port, token = data_dir, free_port(), secrets.token_hex(16)
        self._token_file = token_file(data_dir.with_suffix(".token"), token)
        self.address = Address(f"http://127.0.0.1:{self._port}", SecretStr(token))
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and do not wait."""
        options = "--port", str(self._port), "--token-file", str(self._token_file)
        self._process = start_standalone(self.data_dir, *options)

    def wait(self) -> None:
        """Return once it answers."""
        assert self._process
        read_connection_lines(self._process)

    def kill(self) -> None:
        """Kill gateway and server at once, as when a machine is lost."""
        kill_all(self.data_dir)
        assert self._process
        self._process.communicate()
        wait_until("it is dead", lambda: not processes_of(self.data_dir))

    def gateway_pid(self) -> int:
        return gateway_pid(self.data_dir)

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            stop(self._process)


@contextmanager
def three_shards(folder: Path) -> Iterator[list[ShardServer]]:
    with ExitStack() as stack:
        servers = [ShardServer(folder / f"shard-{number}") for number in range(COUNT)]
        for server in servers:
            stack.enter_context(no_process_left_in(server.data_dir))
            stack.callback(server.stop)
            server.start()
        for server in servers:
            server.wait()
        yield servers


def store_of_all(servers: list[ShardServer]) -> Store:
    return joined(server.address for server in servers)


def variables_of_all(servers: list[ShardServer], settings: Settings) -> dict[str, object]:
    """Variables that connect child processes to all shards."""
    return {
        "UPSTASH_REDIS_REST_URL": ",".join(server.address.url for server in servers),
        "UPSTASH_REDIS_REST_TOKEN": ",".join(server.address.token.get_secret_value() for server in servers),
        "OVERLOAD_KEY_PREFIX": settings.overload_key_prefix,
    }


@asynccontextmanager
async def open_queues(settings: Settings, servers: list[ShardServer]) -> AsyncIterator[list[Queue]]:
    """The queue of each shard; its keys are removed at the end."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_queue(settings, (one.address, None))) for one in servers]


async def enqueue(queues: list[Queue], shard: int, count: int) -> list[str]:
    """Enqueue jobs in one shard, one after the other; returns their ids in order."""
    ids = [on_shard(new_job_id(), shard) for _ in range(count)]
    for job_id in ids:
        await queues[shard].producer.enqueue(NewJob(job_id, '{"name":"n","value":1,"message":"m"}'))
    return ids


async def are_done(queues: list[Queue], job_ids: list[str]) -> bool:
    return {await queues[shard_of(one)].state(one) for one in job_ids} == {"done"}


async def all_done(queues: list[Queue], job_ids: list[str], timeout_s: float = 20.0) -> None:
    await wait_until_async("all are done", lambda: are_done(queues, job_ids), timeout_s)


def done_in_order(folder: Path) -> list[str]:
    """The ids of the jobs in the order of their effects; a job done twice comes twice."""
    return [job_id for what, job_id, _ in events(folder) if what == "effect"]
