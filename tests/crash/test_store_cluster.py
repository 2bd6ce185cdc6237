"""A store of several servers: a real cluster on loopback, whose nodes are kept like a single server."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.store.connect import EmbeddedStore
from overload_demo.store.data_dir import DataDir, hash_tag
from tests.support.clusters import RunningCluster, running_cluster
from tests.support.running import files_below
from tests.support.stores import (
    gateway_pid,
    kill_all,
    no_process_left_in,
    processes_of,
    read_connection_lines,
    servers_of,
    standalone_store,
    start_standalone,
    stop,
)
from tests.support.waiting import wait_until

NODES = range(6)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    with no_process_left_in(tmp_path / "data") as path:
        yield path


def refusal(data_dir: Path, *options: str, **environment: str) -> str:
    """The one line of a standalone store that refuses to start."""
    started = start_standalone(data_dir, *options, **environment)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 1, errors
    (line,) = errors.splitlines()
    return line.removeprefix("error: ")


def write(cluster: RunningCluster) -> None:
    for shard in range(3):
        assert cluster.rest(shard).run("SET", f"{hash_tag(shard)}key", f"of shard {shard}") == "OK"


def assert_written(cluster: RunningCluster) -> None:
    for shard in range(3):
        assert cluster.rest(shard).run("GET", f"{hash_tag(shard)}key") == f"of shard {shard}"


def append_damage(file: Path) -> None:
    """Damage with commands behind it."""
    file.write_bytes(b"damaged\r\n" + file.read_bytes())


# --- a healthy cluster ------------------------------------------------------------------------------------------------


def test_three_primaries_have_a_replica_and_a_shard_each(cluster: RunningCluster) -> None:
    assert cluster.primaries() == [0, 1, 2]
    assert [cluster.primary_of(shard) for shard in range(3)] == [0, 1, 2]
    assert [cluster.replica_of(shard) for shard in range(3)] == [3, 4, 5]
    assert [address.tag for address in cluster.store[0].shards] == ["{q0}:", "{q1}:", "{q2}:"]
    write(cluster)
    for shard in range(3):
        assert cluster.client(shard).get(f"{hash_tag(shard)}key") == f"of shard {shard}"


def test_each_node_syncs_before_it_replies_and_holds_the_lock_of_its_directory(cluster: RunningCluster) -> None:
    for number in NODES:
        assert cluster.ask(number, "CONFIG GET", "append*") | {"appendonly": "yes", "appendfsync": "always"} == (
            cluster.ask(number, "CONFIG GET", "append*")
        )
        directory = cluster.data_dir / f"node-{number}"
        assert not DataDir(directory).lock("redis").is_free()
        wait_until("no fork is left", lambda directory=directory: len(servers_of(directory)) == 1)


def test_nodes_listen_on_loopback_only_and_ask_for_the_password(cluster: RunningCluster) -> None:
    for number in NODES:
        process = cluster.process(number)
        assert process is not None
        listening = [link.laddr.ip for link in process.net_connections("tcp") if link.status == psutil.CONN_LISTEN]
        assert listening == ["127.0.0.1"] * 2, "clients and the cluster's bus"
        with socket.create_connection(("127.0.0.1", cluster.port(number))) as stranger:
            stranger.sendall(b"PING\r\n")
            assert stranger.recv(100).startswith(b"-NOAUTH")


def test_a_client_may_look_up_the_topology_but_not_change_it(cluster: RunningCluster) -> None:
    with cluster.client(0, "default") as client:
        assert len(client.execute_command("CLUSTER SLOTS")) == 3
        for command in (["CLUSTER RESET", "HARD"], ["CLUSTER FAILOVER"], ["FLUSHALL"], ["REPLICAOF", "NO", "ONE"]):
            with pytest.raises(Exception, match="no permissions"):
                client.execute_command(*command)


def test_the_password_is_on_no_command_line_and_in_no_log_and_other_users_read_no_file(
    cluster: RunningCluster,
) -> None:
    wait_until("only the gateway and six nodes run", lambda: len(processes_of(cluster.data_dir)) == 7)
    for process in processes_of(cluster.data_dir):
        assert cluster.password not in " ".join((*process.cmdline(), *process.environ().values()))
    for path in cluster.data_dir.rglob("*"):
        with suppress(FileNotFoundError):  # a running node replaces its files
            assert path.stat().st_mode & 0o077 == 0, path
    for path, content in files_below(cluster.data_dir).items():
        assert path.name == "cluster.conf" or cluster.password.encode() not in content, path
    assert cluster.password not in repr(cluster.store)


def test_a_second_store_on_the_same_cluster_is_refused_and_a_user_shares_it(
    cluster: RunningCluster, caplog: pytest.LogCaptureFixture
) -> None:
    taken = f"another store is already running on {cluster.data_dir}"
    assert refusal(cluster.data_dir, "--nodes", "6") == taken
    with EmbeddedStore(cluster.data_dir, load_settings()) as store:
        assert store.acquire() == cluster.store[0]
    assert "OVERLOAD_NODES is 1, but the running store has 6" in caplog.text


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_the_data_of_one_server_is_not_hidden_by_a_cluster_nor_the_reverse(tmp_path: Path) -> None:
    single, six = tmp_path / "single", tmp_path / "six"
    (single / "appendonlydir").mkdir(parents=True, mode=0o700)
    six.mkdir(mode=0o700)
    (six / "cluster.conf").write_bytes(b"# 6 nodes\n\xff")
    for path, wanted, held in ((single, 6, 1), (six, 8, 6)):
        expected = f"OVERLOAD_NODES is {wanted}, but the data in {path} is that of {held}: set OVERLOAD_NODES={held}"
        with pytest.raises(ConfigurationError, match=re.escape(expected)):
            EmbeddedStore(path, load_settings(overload_nodes=wanted)).acquire()
    assert refusal(six).startswith(f"OVERLOAD_NODES is 1, but the data in {six} is that of 6")
    assert not list(single.glob("node-*"))


def test_a_number_of_nodes_that_makes_no_cluster_is_one_line(data_dir: Path) -> None:
    assert refusal(data_dir, "--nodes", "5").startswith("OVERLOAD_NODES: must be 1, or an even number from 6 on")


def test_nodes_of_a_server_of_the_users_own_are_refused(data_dir: Path) -> None:
    refused = refusal(data_dir, "--nodes", "6", OVERLOAD_REDIS_URL="redis://127.0.0.1:1")
    assert refused == "OVERLOAD_REDIS_URL is set: --nodes is for the embedded store only"


def test_a_directory_of_a_node_that_is_a_link_is_refused(data_dir: Path, tmp_path: Path) -> None:
    data_dir.mkdir(mode=0o700)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (data_dir / "cluster.conf").write_text("# 6 nodes\n")
    (data_dir / "node-0").symlink_to(tmp_path / "elsewhere")
    assert refusal(data_dir, "--nodes", "6").endswith("node-0 is a symbolic link")


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_all_data_is_back_after_kill_9_of_everything_and_the_cluster_ends_with_its_users(data_dir: Path) -> None:
    with running_cluster(data_dir) as cluster:
        write(cluster)
        ports = [cluster.port(number) for number in NODES]
        kill_all(data_dir)
        cluster.store[1]()
        wait_until("the nodes are back", lambda: len(cluster.running()) == 6)
        assert_written(RunningCluster(data_dir, 6, (cluster.store[1](), cluster.store[1])))
        assert ports != [cluster.port(number) for number in NODES]
        ports = [cluster.port(number) for number in NODES]
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):  # raises if it is taken
            pass
    assert not (data_dir / "state.json").exists()


@pytest.mark.exhaustive
def test_a_killed_primary_is_replaced_by_its_replica_and_comes_back_as_one(own_cluster: RunningCluster) -> None:
    primary, replica = own_cluster.primary_of(0), own_cluster.replica_of(0)
    write(own_cluster)
    assert own_cluster.kill_until_taken_over(0, primary) == replica
    own_cluster.wait_until_healthy()
    assert own_cluster.replica_of(0) == primary
    assert_written(own_cluster)
    log = (own_cluster.data_dir / "store.log").read_text()
    assert f"node-{primary}: the server ended (SIGKILL)" in log
    assert log.count(f"node-{primary}: server started") >= 2


@pytest.mark.exhaustive
def test_nodes_ended_by_a_signal_without_a_name_are_started_again_and_the_store_ends_in_order(data_dir: Path) -> None:
    with running_cluster(data_dir) as cluster:
        for number in (4, 5):
            node = cluster.process(number)
            assert node is not None
            os.kill(node.pid, 40)
            node.wait(10)
            wait_until("the node is back", lambda number=number: number in cluster.running())
        cluster.wait_until_healthy()
    assert "node-4: the server ended (signal 40)" in (data_dir / "store.log").read_text()


@pytest.mark.exhaustive
def test_a_primary_without_its_replica_comes_back_as_the_primary(own_cluster: RunningCluster) -> None:
    primary, replica = own_cluster.primary_of(1), own_cluster.replica_of(1)
    write(own_cluster)
    own_cluster.kill(replica)
    own_cluster.kill(primary)
    wait_until("both are back", lambda: len(own_cluster.running()) == 6, timeout_s=20)
    own_cluster.wait_until_healthy()
    assert_written(own_cluster)


@pytest.mark.exhaustive
def test_a_restart_keeps_data_and_roles_after_a_failover(data_dir: Path) -> None:
    with running_cluster(data_dir) as cluster:
        write(cluster)
        former = cluster.primary_of(2)
        present = cluster.kill_until_taken_over(2, former)
    with running_cluster(data_dir) as cluster:  # the former primary was down, or had just started
        cluster.wait_until_healthy()
        assert cluster.primary_of(2) == present
        assert_written(cluster)


@pytest.mark.exhaustive
def test_nodes_end_with_a_killed_store_and_a_stopped_one_is_ended_by_the_next(data_dir: Path) -> None:
    with running_cluster(data_dir) as cluster:
        write(cluster)
        stuck = cluster.process(4)
        assert stuck is not None
        stuck.suspend()  # it ends neither with its parent nor on SIGTERM
        os.kill(gateway_pid(data_dir), signal.SIGKILL)
        wait_until("the other nodes have ended", lambda: cluster.running() == [4])
        address = cluster.store[1]()
        assert not stuck.is_running()
        assert_written(RunningCluster(data_dir, 6, (address, None)))


@pytest.mark.exhaustive
def test_a_standalone_cluster_ends_on_sigterm_and_prints_each_shards_address(data_dir: Path) -> None:
    started = start_standalone(data_dir, "--nodes", "6")
    assert read_connection_lines(started).run("SET", "{q0}:k", "v") == "OK"
    wait_until("only the gateway and six nodes run", lambda: len(processes_of(data_dir)) == 7)
    assert stop(started)[0] == 0
    assert not processes_of(data_dir)
    with standalone_store(data_dir, OVERLOAD_NODES="6") as rest:
        assert rest.run("GET", "{q0}:k") == "v"


@pytest.mark.exhaustive
def test_damage_in_one_node_stops_the_start_in_one_line_and_is_repaired(data_dir: Path) -> None:
    with running_cluster(data_dir) as cluster:
        write(cluster)
        (damaged,) = (data_dir / "node-1" / "appendonlydir").glob("*.incr.aof")
    append_damage(damaged)
    line = refusal(data_dir, "--nodes", "6")
    assert line.startswith(f"node-1: {damaged.name} is damaged at byte 0, with commands behind it")
    assert line.endswith(f"python -m overload_demo.store --repair --nodes 6 --data-dir {data_dir}")
    repaired = start_standalone(data_dir, "--repair", "--nodes", "6")
    printed, _ = repaired.communicate(timeout=60)
    assert repaired.returncode == 0
    assert f"node-1: {damaged.name}: dropped damaged commands, 9 bytes" in printed
    with running_cluster(data_dir) as cluster:
        assert_written(cluster)


@pytest.mark.exhaustive
def test_an_unreadable_node_table_stops_the_start_in_one_line(data_dir: Path) -> None:
    with running_cluster(data_dir):
        pass
    table = data_dir / "node-2" / "nodes.conf"
    whole = table.read_text()
    for damaged in ("", "damaged\n", whole.replace("myself,", ""), whole[:-100], "\xff" + whole[1:]):
        table.write_text(damaged, encoding="latin-1")
        assert refusal(data_dir, "--nodes", "6").startswith(f"{table} is missing or damaged")
    table.write_text(whole)
    with running_cluster(data_dir) as cluster:
        assert cluster.is_healthy()


@pytest.mark.exhaustive
def test_the_store_stops_when_the_directory_of_a_node_is_removed(data_dir: Path) -> None:
    started = start_standalone(data_dir, "--nodes", "6")
    read_connection_lines(started)
    shutil.rmtree(data_dir / "node-5")
    _, errors = started.communicate(timeout=15)
    assert started.returncode == 1
    assert "was removed or replaced while in use: stopped; start again" in errors


@pytest.mark.exhaustive
def test_a_start_that_was_cut_off_is_completed_by_the_next(data_dir: Path) -> None:
    for cut_off_at in ("cluster.conf", "node-5/nodes.conf", "node-5/appendonlydir"):
        started = start_standalone(data_dir, "--nodes", "6")
        wait_until("the start is under way", (data_dir / cut_off_at).exists)
        started.kill()
        started.communicate()
    with running_cluster(data_dir) as cluster:
        write(cluster)
        assert cluster.is_healthy()


@pytest.mark.exhaustive
def test_writes_wait_for_a_replica_only_with_min_replicas(data_dir: Path, cluster: RunningCluster) -> None:
    warning = "OVERLOAD_MIN_REPLICAS is 0: a failover loses accepted jobs"
    assert warning in (cluster.data_dir / "store.log").read_text()
    with running_cluster(data_dir, overload_min_replicas=1) as replicated:
        for number in NODES:
            assert replicated.ask(number, "CONFIG GET", "min-replicas-to-write") == {"min-replicas-to-write": "1"}
        assert "MIN_REPLICAS" not in (data_dir / "store.log").read_text()


@pytest.mark.exhaustive
def test_reset_empties_every_shard(data_dir: Path) -> None:
    with running_cluster(data_dir) as cluster:
        write(cluster)
        command = [sys.executable, "-m", "overload_demo", "reset", "--yes"]
        environment = os.environ | {"OVERLOAD_DATA_DIR": str(data_dir), "OVERLOAD_NODES": "6"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        assert [cluster.client(shard).dbsize() for shard in range(3)] == [0, 0, 0]


@pytest.mark.exhaustive
def test_twelve_nodes_serve_six_shards_and_256_descriptors_are_enough(data_dir: Path) -> None:
    with running_cluster(data_dir, nodes=12) as cluster:
        assert sorted(cluster.primary_of(shard) for shard in range(6)) == [0, 1, 2, 3, 4, 5]
        for shard in range(6):
            assert cluster.rest(shard).run("SET", f"{hash_tag(shard)}key", 1) == "OK"
        assert max(process.num_fds() for process in processes_of(data_dir)) < 256
