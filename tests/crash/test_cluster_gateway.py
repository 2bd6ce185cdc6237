"""The gateway in front of a cluster: each shard's commands reach its primary, wherever that is now."""

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import valkey
from valkey.crc import key_slot

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.rest import Address
from overload_demo.store.connect import EmbeddedStore
from overload_demo.store.data_dir import hash_tag
from overload_demo.store.gateway.topology import ClusterTopology, followed_servers
from overload_demo.store.gateway.upstream import Upstream
from tests.crash.test_store_external_server import own_server
from tests.support.clusters import RunningCluster
from tests.support.shard_writers import rest_of, write_while
from tests.support.stores import Rest, no_process_left_in, standalone_store
from tests.support.waiting import wait_until


class GatewayOfOne:
    """A gateway of one test: the addresses of its shards, and what it has logged."""

    def __init__(self, data_dir: Path, address: Address) -> None:
        self._log, self.shards = data_dir / "store.log", address.shards

    def log(self) -> str:
        return self._log.read_text()


@contextlib.contextmanager
def gateway_before(url: str, data_dir: Path) -> Iterator[GatewayOfOne]:
    """A gateway of one test in front of running servers."""
    with no_process_left_in(data_dir), EmbeddedStore(data_dir, load_settings(overload_redis_url=url)) as store:
        yield GatewayOfOne(data_dir, store.acquire())


@pytest.fixture(scope="module")
def gateway(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayOfOne]:
    """A gateway in front of the shared cluster."""
    with gateway_before(cluster.url(), tmp_path_factory.mktemp("gateway")) as one:
        yield one


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


def slot_of_shard(shard: int) -> str:
    return str(key_slot(hash_tag(shard).encode()))


def move(cluster: RunningCluster, shard: int, to: int) -> None:
    """Move a shard's slot to another primary as a whole."""
    slot, source, target = slot_of_shard(shard), cluster.primary_of(shard), cluster.ask(to, "CLUSTER MYID")
    assert cluster.ask(source, "CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target) == "OK"
    wait_until("the slot has moved", lambda: cluster.primary_of(shard) == to)


def test_the_token_of_a_shard_leads_to_the_primary_of_its_keys(cluster: RunningCluster, tmp_path: Path) -> None:
    port, password = cluster.port(0), cluster.password
    inside = valkey.ValkeyCluster("127.0.0.1", port, username="node", password=password, decode_responses=True)
    with inside, standalone_store(tmp_path / "data", OVERLOAD_REDIS_URL=cluster.url(12)) as rest:
        word, reading_word = (token.partition(".")[2] for token in (rest.token, rest.read_only_token))
        for shard in range(12):
            one, reader, key = (
                Rest(rest.url, f"{shard}.{word}"),
                Rest(rest.url, f"{shard}.{reading_word}"),
                f"{hash_tag(shard)}key",
            )
            assert one.run("SET", key, shard) == "OK"
            assert inside.get(key) == reader.run("GET", key) == str(shard)
            assert reader.post("/", ["DEL", key]).status == 400
            assert one.post("/multi-exec", [["GET", key], ["DEL", key]]).body == [
                {"result": str(shard)},
                {"result": 1},
            ]
        for wrong in ("12", "-1", "x", "", "0.0"):
            assert Rest(rest.url, f"{wrong}.{word}").post("/", ["PING"]).status == 401


def test_a_key_of_another_shard_is_an_error_that_disturbs_no_request(gateway: GatewayOfOne) -> None:
    first, second, _ = map(rest_of, gateway.shards)
    assert first.post("/", ["SET", f"{hash_tag(1)}key", "x"]).body["error"].startswith("MOVED ")
    assert second.run("EXISTS", f"{hash_tag(1)}key") == 0
    assert "MOVED" not in gateway.log()


def test_a_slot_moved_under_load_loses_nothing_and_refuses_nothing(
    cluster: RunningCluster, gateway: GatewayOfOne
) -> None:
    home, away = cluster.primary_of(0), cluster.primary_of(1)
    written = write_while(
        lambda: [move(cluster, 0, node) for node in (away, home)],
        gateway.shards[0],
        f"{hash_tag(0)}moved",
        repeatable=False,  # so no write has an unknown outcome either
    )
    assert written.errors == []
    assert written.lost() == set()
    assert gateway.log().count("leaving the server of shard 0 ") == 2
    assert gateway.log().count("connected to the server of shard 0 ") == 2


def test_a_transaction_that_meets_a_moved_slot_is_carried_out_once(
    cluster: RunningCluster, gateway: GatewayOfOne
) -> None:
    home, away, key = cluster.primary_of(2), cluster.primary_of(1), f"{hash_tag(2)}count"
    rest = rest_of(gateway.shards[2])
    for count, node in enumerate((away, home), 1):
        move(cluster, 2, node)
        assert rest.post("/multi-exec", [["INCR", key], ["GET", key]]).body == [
            {"result": count},
            {"result": str(count)},
        ]
    assert rest.run("DEL", key) == 1


@pytest.mark.parametrize("how", ["kill", pytest.param("freeze", marks=pytest.mark.exhaustive)])
def test_the_successor_of_a_lost_primary_is_followed_and_has_every_confirmed_write(
    own_cluster: RunningCluster, tmp_path: Path, how: str
) -> None:
    former, key = own_cluster.primary_of(0), f"{hash_tag(0)}key"
    with gateway_before(own_cluster.url(), tmp_path / "gateway") as gateway:

        def fail_over() -> None:
            if how == "kill":
                own_cluster.kill_until_taken_over(0, former)
            else:
                own_cluster.freeze(former)
                own_cluster.wait_until_taken_over(0, former)
            wait_until("it is followed", lambda: "connected to the server of shard 0 " in gateway.log())
            own_cluster.wait_until_healthy()  # a frozen node goes on, and believes for a moment that it is a primary

        written = write_while(fail_over, gateway.shards[0], key, replicas=1)
        assert written.lost() == set()
        last = "leaving the server of shard 0 " if how == "freeze" else "the connection to the server of shard 0 "
        assert last in gateway.log()


@pytest.mark.exhaustive
def test_a_successor_that_evicts_gets_no_commands_until_it_does_not(
    own_cluster: RunningCluster, tmp_path: Path
) -> None:
    former, command = own_cluster.primary_of(0), ["SET", f"{hash_tag(0)}key", "x"]
    replica = own_cluster.client(own_cluster.replica_of(0))
    with gateway_before(own_cluster.url(), tmp_path / "gateway") as gateway:
        rest = rest_of(gateway.shards[0])
        with configured(replica, maxmemory="100mb", maxmemory_policy="allkeys-lru"):
            own_cluster.kill_until_taken_over(0, former)
            reason = r"retrying: the server of shard 0 at \S+ evicts keys when full \(allkeys-lru\)"
            wait_until("it is found", lambda: re.search(reason, gateway.log()))
            reply = rest.post("/", command)
            assert (reply.status, "nothing was done" in reply.body["error"]) == (503, True)
        wait_until("it is served", lambda: rest.post("/", command).status == 200)


@pytest.mark.exhaustive
def test_a_shard_without_a_primary_at_the_start_is_served_later_and_the_others_at_once(
    own_cluster: RunningCluster, tmp_path: Path
) -> None:
    lost, url = (own_cluster.primary_of(0), own_cluster.replica_of(0)), own_cluster.url()
    for node in lost:
        own_cluster.freeze(node)
    with gateway_before(url, tmp_path / "gateway") as gateway:
        first, second, _ = map(rest_of, gateway.shards)
        assert second.run("SET", f"{hash_tag(1)}key", "x") == "OK"
        reply = first.post("/", ["SET", f"{hash_tag(0)}key", "x"])
        assert (reply.status, "nothing was done" in reply.body["error"]) == (503, True)
        assert "starting without a shard: " in gateway.log()
        own_cluster.wait_until_healthy()
        wait_until("it is served", lambda: first.post("/", ["SET", f"{hash_tag(0)}key", "x"]).status == 200)


@pytest.mark.exhaustive
def test_a_cluster_without_a_majority_is_a_503_and_is_served_again_once_it_is_back(
    own_cluster: RunningCluster, tmp_path: Path
) -> None:
    with gateway_before(own_cluster.url(), tmp_path / "gateway") as gateway:
        rest, command = rest_of(gateway.shards[2]), ["SET", f"{hash_tag(2)}key", "x"]
        for primary in [own_cluster.primary_of(shard) for shard in (0, 1)]:  # both before one is replaced
            own_cluster.freeze(primary)
        wait_until("it refuses", lambda: rest.post("/", command).status == 503)
        assert "nothing was done, try again" in rest.post("/", command).body["error"]
        own_cluster.wait_until_healthy()
        wait_until("it is served", lambda: rest.post("/", command).status == 200)
        assert "refuses commands: CLUSTERDOWN" in gateway.log()
        assert "the server of shard 2 " in gateway.log().partition("accepts commands again")[0].splitlines()[-1]


def opened(url: str) -> list[str]:
    """Connect to every shard as a gateway does at its start; returns what it reports."""

    async def connect() -> list[str]:
        servers = followed_servers(url)
        upstreams = [Upstream(server) for server in servers]
        try:
            for upstream in upstreams:
                await upstream.open()
        finally:
            for upstream in upstreams:
                await upstream.aclose()
        return servers[0].notices

    return asyncio.run(connect())


@contextlib.contextmanager
def configured(node: valkey.Valkey, **settings: str) -> Iterator[None]:
    """Other settings of a node for the length of a block."""
    changed = {name.replace("_", "-"): value for name, value in settings.items()}
    usual = {name: node.config_get(name)[name] for name in changed}
    node.config_set(*sum(changed.items(), ()))
    try:
        yield
    finally:
        node.config_set(*sum(usual.items(), ()))


def test_a_node_that_is_cut_off_and_claims_every_slot_is_not_believed(cluster: RunningCluster, tmp_path: Path) -> None:
    alone = free_port()
    epochs = {row["node_id"]: int(row["epoch"]) for row in cluster.view(0).values()}
    primaries = [cluster.primary_of(shard) for shard in range(3)]
    # Two nodes with the epoch 0 disagree for ever; a successor's is higher.
    newer = [shard for shard in range(3) if epochs[cluster.ask(primaries[shard], "CLUSTER MYID")] > 0]
    assert newer

    async def connect() -> list[int]:
        servers = followed_servers(cluster.url().replace("@", f"@127.0.0.1:{alone},"))
        for server in servers:
            (await server.connect()).close()
        await servers[0].aclose()
        return [server.port for server in servers]

    with own_server(tmp_path, "--port", str(alone), "--cluster-enabled", "yes"), valkey.Valkey(port=alone) as node:
        node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        found = asyncio.run(connect())
    assert [found[shard] for shard in newer] == [cluster.port(primaries[shard]) for shard in newer]


def test_a_node_that_evicts_is_refused(cluster: RunningCluster) -> None:
    with configured(cluster.client(cluster.primary_of(1)), maxmemory="100mb", maxmemory_policy="allkeys-lru"):
        with pytest.raises(ConfigurationError, match=r"of shard 1 at 127\.0\.0\.1:\d+ evicts keys when full"):
            opened(cluster.url())


def test_full_coverage_is_reported_and_allowed(cluster: RunningCluster, caplog: pytest.LogCaptureFixture) -> None:
    assert opened(cluster.url()) == []
    with configured(cluster.client(cluster.primary_of(1)), cluster_require_full_coverage="yes"):
        (notice,) = opened(cluster.url())
    assert "when one range of slots has no primary, every shard stops" in notice
    assert caplog.text.count(notice) == 1


def test_servers_that_cannot_be_used_as_a_cluster_are_refused_in_one_line(cluster: RunningCluster) -> None:
    for url, reason in (
        ("redis+cluster://user:hidden@127.0.0.1:1,127.0.0.1:2", "no node describes the cluster: .*127.0.0.1"),
        (
            cluster.url().replace(cluster.password, "hidden"),
            "no node describes the cluster: invalid username-password pair",
        ),
        ("redis+sentinel://127.0.0.1:1/jobs", "no Sentinel names a primary of 'jobs': .*127.0.0.1:1"),
    ):
        with pytest.raises(StoreUnavailableError, match=reason) as caught:
            opened(url)
        assert "\n" not in str(caught.value)
        assert "hidden" not in str(caught.value)


def test_a_server_that_is_no_cluster_is_refused_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    with own_server(tmp_path, "--port", str(port)):
        with pytest.raises(StoreUnavailableError, match="cluster support disabled") as caught:
            opened(f"redis+cluster://127.0.0.1:{port}")
    assert "\n" not in str(caught.value)


def test_a_pipeline_that_stops_after_its_first_batch_has_an_unknown_outcome(tmp_path: Path) -> None:
    port, slot, tag = free_port(), slot_of_shard(0), hash_tag(0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_server(tmp_path / "own", "--port", str(port), "--cluster-enabled", "yes"))
        admin = stack.enter_context(valkey.Valkey(port=port, decode_responses=True))
        admin.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16_383)
        wait_until("the cluster serves", lambda: admin.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        gateway = stack.enter_context(gateway_before(f"redis+cluster://127.0.0.1:{port}?shards=1", tmp_path / "data"))
        other = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        # The last command of the first batch, of 16, lets this client go on: the slot is lost before the second batch.
        other.sendall(f"BLPOP {tag}go 0\r\nCLUSTER DELSLOTS {slot}\r\n".encode())
        wait_until("it waits", lambda: admin.info("clients")["blocked_clients"] == 1)
        commands = [["INCR", f"{tag}n"]] * 15 + [["RPUSH", f"{tag}go", "1"]] + [["INCR", f"{tag}n"]] * 4
        reply = rest_of(gateway.shards[0]).post("/pipeline", commands)
        assert (reply.status, "the outcome is unknown" in reply.body["error"]) == (503, True), reply
        admin.execute_command("CLUSTER ADDSLOTS", slot)
        wait_until("the cluster serves", lambda: admin.execute_command("CLUSTER INFO")["cluster_slots_ok"] == "16384")
        assert admin.get(f"{tag}n") == "15"


def test_connections_to_departed_nodes_are_closed(cluster: RunningCluster) -> None:
    async def scenario() -> None:
        access = {"username": "default", "password": cluster.password, "decode_responses": True, "socket_timeout": 5.0}
        topology = ClusterTopology([("127.0.0.1", cluster.port(0))], [int(slot_of_shard(0))], access)
        primary = await topology.primary(int(slot_of_shard(0)))
        topology._known.add(("localhost", cluster.port(0)))  # a name of which no node speaks any more
        for _ in range(2):
            topology.expire()
            assert await topology.primary(int(slot_of_shard(0))) == primary
        assert {host for host, _ in topology._clients} == {"127.0.0.1"}
        await topology.aclose()

    asyncio.run(scenario())
