"""An embedded cluster under test: its nodes by number, and what a test does to them."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import valkey
from valkey.crc import key_slot

from overload_demo.config import load_settings
from overload_demo.store.connect import EmbeddedStore, Store
from overload_demo.store.data_dir import CLUSTER_CONFIG, NODE, hash_tag
from tests.support.stores import Rest, no_process_left_in, servers_of
from tests.support.waiting import wait_until

TAKE_OVER_S = 25.0  # a replica takes over within 2 to 4 s of its primary's death, after a failed election in 6 more


class RunningCluster:
    """The nodes of one store; a node is named by the number of its directory. Shard n is ``store[0].shards[n]``."""

    def __init__(self, data_dir: Path, nodes: int, store: Store) -> None:
        self.data_dir, self.numbers, self.store = data_dir, range(nodes), store
        self._processes: dict[int, psutil.Process | None] = {}

    @property
    def password(self) -> str:
        """The password of the users ``default`` (a gateway's) and ``node`` (everything is allowed)."""
        (password,) = re.findall(r"masterauth (\S+)", (self.data_dir / CLUSTER_CONFIG).read_text())
        return str(password)

    def url(self, shards: int | None = None) -> str:
        """An ``OVERLOAD_REDIS_URL`` of the cluster, with all nodes that run as seeds."""
        seeds = ",".join(f"127.0.0.1:{self.port(number)}" for number in self.running())
        return f"redis+cluster://default:{self.password}@{seeds}?shards={shards or len(self.numbers) // 2}"

    def rest(self, shard: int) -> Rest:
        """A client of one shard's gateway: each key must begin with ``hash_tag(shard)``."""
        address = self.store[0].shards[shard]
        return Rest(address.url, address.token.get_secret_value())

    def process(self, number: int) -> psutil.Process | None:
        """The process of a node; None when it does not run. A fork of it has the same directory and started later."""
        known = self._processes.get(number)
        if known is None or not known.is_running() or known.status() == psutil.STATUS_ZOMBIE:
            found = servers_of(self.data_dir / f"{NODE}{number}")
            known = self._processes[number] = min(found, key=psutil.Process.create_time, default=None)
        return known

    def running(self) -> list[int]:
        """The nodes that have a process, stopped ones included."""
        return [number for number in self.numbers if self.process(number) is not None]

    def port(self, number: int) -> int:
        """The port of a running node: its process title names it."""
        process = self.process(number)
        assert process is not None, f"node {number} does not run"
        title = " ".join(process.cmdline())
        found = re.search(r"127\.0\.0\.1:(\d+) \[cluster\]", title)
        assert found is not None, title
        return int(found[1])

    def client(self, number: int, user: str = "node") -> valkey.Valkey:
        """A client of one node, with all rights unless ``user`` is ``default``."""
        return valkey.Valkey(
            port=self.port(number), username=user, password=self.password, decode_responses=True, socket_timeout=5
        )

    def ask(self, number: int, *command: str) -> Any:
        """The reply of one node; None when it does not answer, at once when it is stopped."""
        process = self.process(number)
        if process is not None and process.status() == psutil.STATUS_STOPPED:
            return None
        try:
            with self.client(number) as client:
                return client.execute_command(*command)
        except (AssertionError, valkey.ConnectionError, valkey.TimeoutError, psutil.Error):
            return None

    def view(self, number: int) -> dict[str, dict[str, Any]]:
        """What one node says of all, by id; empty when it does not answer."""
        return {row["node_id"]: row for row in (self.ask(number, "CLUSTER NODES") or {}).values()}

    def primary_of(self, shard: int) -> int:
        """The node that serves a shard, by the newest claim that any node knows; it may have died."""
        slot, claims = key_slot(hash_tag(shard).encode()), []
        for number in self.numbers:
            for node_id, row in self.view(number).items():
                if any(int(first) <= slot <= int(last) for first, last in _ranges(row)):
                    claims.append((int(row["epoch"]), node_id))
        return self._number_of(max(claims)[1])

    def replica_of(self, shard: int) -> int:
        """The node that copies a shard's primary."""
        primary = self.primary_of(shard)
        (found,) = [number for number in self.replicas() if self._primary_id(number) == self._ids()[primary]]
        return found

    def primaries(self) -> list[int]:
        """The nodes that answer as a primary: after a failover also a former one that does not know of it yet."""
        return [number for number in self.numbers if self._replication(number).get("role") == "master"]

    def replicas(self) -> list[int]:
        """The nodes that answer as a replica."""
        return [number for number in self.numbers if self._replication(number).get("role") == "slave"]

    def kill(self, number: int) -> None:
        """``kill -9`` a node; the store starts it again."""
        process = self.process(number)
        assert process is not None
        process.kill()
        process.wait(5)

    def kill_until_taken_over(self, shard: int, former: int) -> int:
        """``kill -9`` a primary, again if it is started before its replica serves the shard; returns the replica."""

        def is_taken_over() -> bool:
            if self.primary_of(shard) != former:
                return True
            with contextlib.suppress(psutil.Error):
                if process := self.process(former):
                    process.kill()
            return False

        wait_until(f"shard {shard} has another primary", is_taken_over, TAKE_OVER_S)
        return self.primary_of(shard)

    def freeze(self, number: int) -> None:
        """Stop a node with SIGSTOP."""
        process = self.process(number)
        assert process is not None
        process.suspend()
        wait_until("it stands still", lambda: process.status() == psutil.STATUS_STOPPED)

    def proceed(self, number: int) -> None:
        """Let a stopped node go on; harmless when it runs."""
        process = self.process(number)
        assert process is not None
        process.resume()

    def is_healthy(self) -> bool:
        """Whether all nodes run and agree, each shard has its primary, and each replica is in step with it."""
        views = [self.view(number) for number in self.numbers]
        roles = [{one: (row["master_id"], row["slots"]) for one, row in view.items()} for view in views]
        if any(one != roles[0] or len(one) < len(self.numbers) for one in roles):
            return False
        if any("fail" in row["flags"] for view in views for row in view.values()):
            return False
        if any((self.ask(number, "CLUSTER INFO") or {}).get("cluster_state") != "ok" for number in self.numbers):
            return False
        copies = [self._replication(number) for number in self.replicas()]
        return len(copies) == len(self.numbers) // 2 and all(one.get("master_link_status") == "up" for one in copies)

    def wait_until_healthy(self, timeout_s: float = 30.0) -> None:
        """Let every stopped node go on, and wait for the cluster to be whole again."""
        for number in self.running():
            self.proceed(number)
        wait_until("the cluster is healthy", self.is_healthy, timeout_s)

    def wait_until_taken_over(self, shard: int, former: int) -> int:
        """Wait until another node than ``former`` serves a shard; returns that node."""
        wait_until(f"shard {shard} has another primary", lambda: self.primary_of(shard) != former, TAKE_OVER_S)
        return self.primary_of(shard)

    def _replication(self, number: int) -> dict[str, Any]:
        return self.ask(number, "INFO", "replication") or {}

    def _primary_id(self, number: int) -> str:
        return next((row["master_id"] for row in self.view(number).values() if "myself" in row["flags"]), "")

    def _ids(self) -> dict[int, str]:
        """The id of each node; its own file has it also while it does not run."""
        ids = {}
        for number in self.numbers:
            text = (self.data_dir / f"{NODE}{number}" / "nodes.conf").read_text()
            (ids[number],) = re.findall(r"(?m)^(\w{40}) \S+ myself", text)
        return ids

    def _number_of(self, node_id: str) -> int:
        return next(number for number, one in self._ids().items() if one == node_id)


def _ranges(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(slots[0], slots[-1]) for slots in row["slots"]]


@contextlib.contextmanager
def running_cluster(data_dir: Path, *, nodes: int = 6, **settings: object) -> Iterator[RunningCluster]:
    """A store of ``nodes`` servers for the length of a block, healthy at its start; ``settings`` are further ones.

    Without one for it, no write waits for a replica.
    """
    own = {"overload_data_dir": data_dir, "overload_nodes": nodes, "overload_min_replicas": 0}
    chosen = load_settings(**own | settings)
    with no_process_left_in(data_dir), EmbeddedStore(data_dir, chosen) as store:
        cluster = RunningCluster(data_dir, nodes, (store.acquire(), store.refresh))
        try:
            yield cluster
        finally:
            for number in cluster.running():
                cluster.proceed(number)
