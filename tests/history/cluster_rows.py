"""The rows of the fault matrix on a cluster: three shards, each a primary with a replica, and one gateway."""

import os
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkey.crc import key_slot

from overload_demo.store.data_dir import hash_tag
from tests.history.environments import Environment
from tests.history.machine import needs
from tests.history.matrix import LOSS_OF_WRITES, Row
from tests.history.scenario import Scenario
from tests.support.clusters import RunningCluster, running_cluster
from tests.support.stores import gateway_pid
from tests.support.waiting import wait_until

REPLICATED = {"OVERLOAD_MIN_REPLICAS": 1}


class Nodes(Environment):
    """A running cluster; the stack reaches it through a gateway of its own."""

    def __init__(self, cluster: RunningCluster) -> None:
        super().__init__({"OVERLOAD_REDIS_URL": cluster.url(), **REPLICATED})
        self.cluster = cluster
        self.cut_node = Path()

    @contextmanager
    def cut_off(self, number: int) -> Iterator[None]:
        """Cut a node off from all others in the block."""
        process, port = self.cluster.process(number), self.cluster.port(number)
        assert process is not None
        with self.cluster.client(number) as client:
            bus = int(client.config_get("cluster-port")["cluster-port"])
        with self.cut_node.open("r+b", buffering=0) as file:  # in one piece, as the nodes look at it
            file.write(struct.pack("=3I", process.pid, port, bus))
        try:
            yield
        finally:
            with self.cut_node.open("r+b", buffering=0) as file:
                file.write(bytes(12))


@contextmanager
def six_nodes(folder: Path) -> Iterator[Nodes]:
    """Start three primaries and three replicas."""
    with running_cluster(folder / "nodes", overload_min_replicas=1) as cluster:
        yield Nodes(cluster)


CUT = Path(__file__).with_name("cut.c")


@contextmanager
def six_nodes_to_cut(folder: Path) -> Iterator[Nodes]:
    """Start the nodes with a library that can cut one of them off."""
    library, cut_node = folder / "cut.so", folder / "cut_node"
    subprocess.run([needs("cc"), "-shared", "-fPIC", "-O1", "-o", library, CUT, "-ldl"], check=True)
    cut_node.write_bytes(bytes(12))
    os.environ |= {"LD_PRELOAD": str(library), "CUT_NODE": str(cut_node)}
    try:
        with six_nodes(folder) as nodes:
            nodes.cut_node = cut_node
            yield nodes
    finally:
        del os.environ["LD_PRELOAD"], os.environ["CUT_NODE"]


def cluster_of(run: Scenario) -> RunningCluster:
    """The nodes under a scenario."""
    assert isinstance(run.environment, Nodes)
    return run.environment.cluster


def a_primary(run: Scenario) -> tuple[int, int]:
    """A shard and the node that serves it."""
    shard = run.random.randrange(3)
    return shard, cluster_of(run).primary_of(shard)


def wait(run: Scenario, first_s: float, last_s: float) -> None:
    """Wait for a random time while the load goes on."""
    threading.Event().wait(run.random.uniform(first_s, last_s))


# ---- faults: each returns once the cluster is whole again


def kill_a_primary(run: Scenario) -> None:
    cluster, (shard, primary) = cluster_of(run), a_primary(run)
    with run.inject("primary killed"):
        cluster.kill_until_taken_over(shard, primary)
        cluster.wait_until_healthy()


def freeze_the_replica_and_kill_its_primary(run: Scenario) -> None:
    cluster, (shard, primary) = cluster_of(run), a_primary(run)
    replica = cluster.replica_of(shard)
    with run.inject("primary killed"):
        cluster.freeze(replica)
        wait(run, 0.2, 0.8)
        cluster.kill(primary)
        wait(run, 0.1, 0.3)
        cluster.proceed(replica)
        cluster.wait_until_taken_over(shard, primary)
        cluster.wait_until_healthy()


def stop_a_primary_until_it_is_demoted(run: Scenario) -> None:
    cluster, (shard, primary) = cluster_of(run), a_primary(run)
    with run.inject("primary stopped"):
        cluster.freeze(primary)
        cluster.wait_until_taken_over(shard, primary)
        cluster.wait_until_healthy()


def cut_a_primary_off(run: Scenario) -> None:
    cluster, (shard, primary) = cluster_of(run), a_primary(run)
    assert isinstance(run.environment, Nodes)
    with run.inject("primary cut off"):
        with run.environment.cut_off(primary):
            cluster.wait_until_taken_over(shard, primary)
            wait(run, 0.2, 1.0)
            assert primary in cluster.primaries(), "it knows that it was demoted: it was not cut off"
        cluster.wait_until_healthy()


def move_a_slot_and_back(run: Scenario) -> None:
    cluster, (shard, primary) = cluster_of(run), a_primary(run)
    other = run.random.choice([number for number in cluster.primaries() if number != primary])
    with run.inject("slot moved"):
        for source, target in ((primary, other), (other, primary)):
            move(cluster, shard, source, target)


def move(cluster: RunningCluster, shard: int, source: int, target: int) -> None:
    """Move a shard's slot at once, with all its keys."""
    slot = key_slot(hash_tag(shard).encode())
    command = f"CLUSTER MIGRATESLOTS SLOTSRANGE {slot} {slot} NODE {cluster.ask(target, 'CLUSTER MYID')}"
    with cluster.client(source) as client:
        assert client.execute_command(*command.split()) in ("OK", True)
    wait_until("the slot has moved", lambda: cluster.primary_of(shard) == target, 20.0)
    cluster.wait_until_healthy()


def fill_a_shard(run: Scenario) -> None:
    cluster, (_, primary) = cluster_of(run), a_primary(run)
    with run.inject("a shard is full"), cluster.client(primary) as client:
        before = client.config_get("maxmemory")["maxmemory"]
        client.config_set("maxmemory", 1)
        wait(run, 0.5, 1.0)
        client.config_set("maxmemory", before)


def kill_the_clusters_gateway(run: Scenario) -> None:
    with run.inject("gateway killed"):
        os.kill(gateway_pid(run.folder / "data"), signal.SIGKILL)
    run.start()


COMMON: dict[str, Any] = {
    "environment": six_nodes,
    # More clients without a key than a shard gets jobs in a row: not all of them wait for the shard that fails.
    "setup": {"load": {"clients": 120, "keyed": 24}},
    "reports_gaps": True,
    "jobs": 2000,
    "every_s": 1.5,
}
# The 202 waits for a replica, leases and settlements do not.
FAILOVER: dict[str, Any] = COMMON | {"recovers_by": "ok", "may": LOSS_OF_WRITES - {"lost", "unknown id"}}
CLUSTER_ROWS = [
    Row("F28", "cluster: a primary killed", "SIGKILL; its replica takes over", kill_a_primary, **FAILOVER),
    Row(
        "F29",
        "cluster: a replica hangs, then its primary is killed",
        "replica SIGSTOP for 0.3 to 1.1 s, primary SIGKILL meanwhile",
        freeze_the_replica_and_kill_its_primary,
        **FAILOVER,
    ),
    Row(
        "F30",
        "cluster: a demoted primary that believes it is one",
        "SIGSTOP until its replica has taken over, SIGCONT",
        stop_a_primary_until_it_is_demoted,
        **FAILOVER,
    ),
    Row(
        "F31",
        "cluster: a primary cut off from all nodes, not from its clients",
        "preloaded read, write, connect: its connections to nodes are reset until a while after the election",
        cut_a_primary_off,
        **FAILOVER | {"environment": six_nodes_to_cut},
    ),
    Row(
        "F32",
        "cluster: a shard moved to another primary and back",
        "CLUSTER MIGRATESLOTS",
        move_a_slot_and_back,
        runs_once=True,
        all_accepted=True,
        **COMMON,
    ),
    Row(
        "F33",
        "cluster: one shard is full",
        "maxmemory 1 on a primary for 0.5 to 1 s",
        fill_a_shard,
        runs_once=True,
        **COMMON,
    ),
    Row("F34", "cluster: its gateway killed", "SIGKILL", kill_the_clusters_gateway, recovers_by="ok", **COMMON),
]
