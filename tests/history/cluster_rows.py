"""The rows of the fault matrix on a cluster: three shards, each a primary with a replica, and one gateway."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkey.crc import key_slot

from overload_demo.store.data_dir import hash_tag
from tests.history.environments import Environment
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


@contextmanager
def six_nodes(folder: Path) -> Iterator[Nodes]:
    """Start three primaries and three replicas."""
    with running_cluster(folder / "nodes", overload_min_replicas=1) as cluster:
        yield Nodes(cluster)


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
        cluster.kill(primary)
        cluster.wait_until_taken_over(shard, primary)
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


def stop_all_but_a_primary(run: Scenario) -> None:
    cluster, (_, primary) = cluster_of(run), a_primary(run)
    with run.inject("primary alone"):
        for number in cluster.numbers:
            if number != primary:
                cluster.freeze(number)
        wait(run, 2.0, 3.0)
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
        "cluster: a primary reaches its clients only",
        "all other nodes SIGSTOP for 2 to 3 s",
        stop_all_but_a_primary,
        **FAILOVER,
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
