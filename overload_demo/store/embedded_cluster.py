"""The servers of an embedded cluster: nodes on loopback, half of them replicas, each with a directory of its own.

Each node is started, locked, repaired and ended as a single server is. The ports are new at each start, so the nodes
are introduced to each other again; ids, roles and slots stay in the ``nodes.conf`` of each.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import combinations, pairwise
from typing import NamedTuple

from pydantic import SecretStr

from overload_demo.config import Settings
from overload_demo.errors import StoreUnavailableError
from overload_demo.http_server import listen_tcp
from overload_demo.rest import LOADING, info_facts
from overload_demo.store.data_dir import CLUSTER_CONFIG, DATA, NODE, DataDir, check_owner, hash_tag, replace_file
from overload_demo.store.gateway.resp import RedisConnection, ReplyError
from overload_demo.store.gateway.upstream import Upstream
from overload_demo.store.redis_server import SCRIPT_RIGHTS, EmbeddedServer, node_options

log = logging.getLogger(__name__)

ASYNCHRONOUS = "OVERLOAD_MIN_REPLICAS is 0: a failover loses accepted jobs that the replica has not received"

HOST, SLOTS = "127.0.0.1", 16_384
NODE_TIMEOUT_MS = 1_500  # chosen: a replica takes over 2 to 3 s after its primary's death, and shorter stalls pass
FAILOVER_S = 6.0  # for so long a dead primary leaves its slots to a replica before it is started again
HEALTHY_S = 60.0  # for the nodes to agree, and for replicas to copy the data of their primaries
ANSWER_S, POLL_S = 0.5, 0.05
CONFIG = """# {nodes} nodes
user default on >{password} ~* &* +@all {rights}
user node on >{password} ~* &* +@all
masteruser node
masterauth {password}
"""
# Clients look the topology up.
TOPOLOGY_RIGHTS = tuple(f"+cluster|{name}" for name in ("slots", "shards", "nodes", "info", "myid"))


class NodeRow(NamedTuple):
    """What a node says of one node of its cluster; ``primary`` is the id of a replica's primary, else ``-``."""

    primary: str
    slots: tuple[str, ...]


class ClusterNode(EmbeddedServer):
    """One node, in a directory of the working directory; ``before_restart`` is awaited once it has died."""

    def __init__(
        self,
        directory: DataDir,
        settings: Settings,
        password: SecretStr,
        before_restart: Callable[["ClusterNode"], Awaitable[None]],
        *,
        drop_damage: bool,
    ) -> None:
        super().__init__(directory, settings, drop_damage=drop_damage)
        self.name, self.node_id = directory.path.name, ""
        self.label, self._socket = f"{self.name}: ", f"{self.name}/{self._socket}"
        self._repair_options = ["--nodes", str(settings.overload_nodes), "--data-dir", str(directory.path.parent)]
        self._password, self._before_restart = password, before_restart
        # Free ports for the node: it may listen where these are bound, as both set SO_REUSEADDR.
        self._reserved = [listen_tcp(HOST, 0, backlog=None) for _ in range(2)]
        self.port, self.bus_port = (str(one.getsockname()[1]) for one in self._reserved)
        if sys.platform != "linux":  # a port that is reserved cannot be listened on there
            self.free_ports()
        options = {
            "bind": HOST,
            "port": self.port,
            "cluster-port": self.bus_port,
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(NODE_TIMEOUT_MS),
            "cluster-allow-replica-migration": "no",
            "cluster-require-full-coverage": "no",  # a shard that is lost does not stop the others
            "repl-diskless-sync": "no",  # a replica that returns confirms at once, not up to 1 s later (measured)
            "repl-diskless-load": "swapdb",
            "shutdown-timeout": "0",  # no wait for replicas: they end at the same time
            "min-replicas-to-write": str(settings.overload_min_replicas),
        }
        # The password is in the file only: every user of the machine can read the command line.
        binary, memory, durability = self._command[0], settings.overload_maxmemory, settings.overload_durability
        self._command = [binary, f"../{CLUSTER_CONFIG}", *node_options(memory, durability, **options)]

    async def connect(self) -> RedisConnection:
        """Connect to the node, started if needed; it may be a replica."""
        if self._process is not None and not await self._survives() and self._process.returncode <= 0:
            log.warning("%s", self._end_reason())
            await self._before_restart(self)
        if not self._is_running:
            self._refuse_damaged_table()
        return await super().connect()

    def _refuse_damaged_table(self) -> None:
        """Raise :class:`StoreUnavailableError` if the node would lose its id and role, or crash on its table."""
        table, has_data = self._data_dir.path / "nodes.conf", (self._data_dir.path / DATA).exists()
        text = table.read_text(errors="replace") if table.exists() else ""
        if has_data and not (text.isascii() and re.search(r"(?m)^\w{40} .*myself(?s:.*)^vars ", text)):
            raise StoreUnavailableError(f"{table} is missing or damaged: the node would not find its cluster")

    async def connect_again(self) -> RedisConnection:
        """Open another connection to the running node."""
        connection = await super().connect_again()
        try:
            await connection.ask("AUTH", "node", self._password.get_secret_value())
        except BaseException:
            connection.close()
            raise
        return connection

    def why_unusable(self, facts: dict[str, str]) -> str:
        """Return whether the node is loading its data."""
        return LOADING if facts.get("loading") == "1" else ""

    def free_ports(self) -> None:
        """Let other programs have the ports."""
        for one in self._reserved:
            one.close()


class EmbeddedCluster:
    """The nodes of a data directory, which must be the working directory, from :meth:`open` to :meth:`aclose`.

    Node n + half is at first the replica of node n. A node that has died is started again. Raises
    :class:`ConfigurationError` as :class:`DataDir` does.
    """

    def __init__(self, data_dir: DataDir, settings: Settings, *, drop_damage: bool) -> None:
        self._config, self._shards = data_dir.path / CLUSTER_CONFIG, settings.overload_nodes // 2
        password = SecretStr(secrets.token_hex())  # as the token: new with each store
        rights = " ".join((*SCRIPT_RIGHTS, *TOPOLOGY_RIGHTS))
        config = CONFIG.format(nodes=settings.overload_nodes, password=password.get_secret_value(), rights=rights)
        replace_file(self._config, [config.encode()])
        self.directories = [DataDir(data_dir.path / f"{NODE}{number}") for number in range(settings.overload_nodes)]
        self._nodes = []
        for one in self.directories:
            one.prepare()
            check_owner(one.path)  # no link
            self._nodes.append(ClusterNode(one, settings, password, self._leave_to_replica, drop_damage=drop_damage))
        self._upstreams = [Upstream(node) for node in self._nodes]
        self._warnings = [] if drop_damage or settings.overload_min_replicas else [ASYNCHRONOUS]
        seeds = ",".join(f"{HOST}:{node.port}" for node in self._nodes)
        self.url = SecretStr(f"redis+cluster://default:{password.get_secret_value()}@{seeds}?shards={self._shards}")

    @property
    def notices(self) -> list[str]:
        """What to know about the data, and what was dropped from it at the start."""
        return [*self._warnings, *(notice for node in self._nodes for notice in node.notices)]

    async def open(self) -> None:
        """Start the nodes and return once they are one healthy cluster.

        Raises :class:`StoreUnavailableError` if one cannot be started, or they do not agree in time.
        """
        outcomes = await asyncio.gather(*(one.open() for one in self._upstreams), return_exceptions=True)
        for failure in outcomes:
            if isinstance(failure, BaseException):
                raise failure
        links = [await one.wait_for_connection() for one in self._upstreams]
        await self._introduce(links)
        if (await _facts(links[0], "CLUSTER", "INFO"))["cluster_slots_assigned"] != str(SLOTS):
            await self._form(links)
        if not await _becomes_true(self._agree):
            raise StoreUnavailableError(f"the nodes of the cluster did not agree within {HEALTHY_S:g} s")
        if not await _becomes_true(self._are_replicated):
            log.warning("replicas still copy their primaries' data")
        for warning in self._warnings:
            log.warning("%s", warning)
        for one in self.directories:
            one.remember_inodes()

    async def aclose(self) -> None:
        """End the nodes; harmless to repeat."""
        await asyncio.gather(*(one.aclose() for one in self._upstreams))
        for node in self._nodes:
            node.free_ports()

    async def _introduce(self, links: list[RedisConnection]) -> None:
        for node, link in zip(self._nodes, links, strict=True):
            node.node_id = await link.ask("CLUSTER", "MYID")
        # Each pair: by gossip alone a known node's new address spreads only once the node counts as failed.
        for (_, link), (other, _) in combinations(zip(self._nodes, links, strict=True), 2):
            await link.ask("CLUSTER", "MEET", HOST, other.port, other.bus_port)
        if not await _becomes_true(self._know_each_other):
            raise StoreUnavailableError(f"the nodes of the cluster did not find each other within {HEALTHY_S:g} s")

    async def _form(self, links: list[RedisConnection]) -> None:
        """Give each node its role. The slots come last: a start that was cut off does this again."""
        for link, primary in zip(links[self._shards :], self._nodes, strict=False):
            try:
                await link.ask("CLUSTER", "REPLICATE", primary.node_id)
            except ReplyError as error:
                raise StoreUnavailableError(
                    f"slots of the cluster have no node, and none can be given: {error}"
                ) from None
        # Between the tags of the shards: of equal ranges, one in six would serve two shards and another none.
        tagged = sorted([await links[0].ask("CLUSTER", "KEYSLOT", hash_tag(shard)) for shard in range(self._shards)])
        starts = [0, *((one + other) // 2 for one, other in pairwise(tagged)), SLOTS]
        for link, (start, end) in zip(links, pairwise(starts), strict=False):
            with contextlib.suppress(ReplyError):  # it has them already
                await link.ask("CLUSTER", "ADDSLOTSRANGE", str(start), str(end - 1))

    async def _know_each_other(self) -> bool:
        views, ids = await self._views(), {node.node_id for node in self._nodes}
        return len(views) == len(ids) and all(view.keys() == ids for view in views)

    async def _agree(self) -> bool:
        """Whether all nodes have the same view, and serve."""
        views = await self._views()
        if len(views) < len(self._nodes) or any(one != views[0] for one in views):
            return False
        states = [await _facts(await one.wait_for_connection(), "CLUSTER", "INFO") for one in self._upstreams]
        return all(state["cluster_state"] == "ok" for state in states)

    async def _are_replicated(self) -> bool:
        facts = [await _facts(await one.wait_for_connection(), "INFO", "replication") for one in self._upstreams]
        return all(one["role"] == "master" or one["master_link_status"] == "up" for one in facts)

    async def _leave_to_replica(self, dead: ClusterNode) -> None:
        """Return once a replica has the slots of a dead primary, or when it cannot or does not take them over."""
        live = {node.node_id for node, one in zip(self._nodes, self._upstreams, strict=True) if one.live}
        give_up_at = time.monotonic() + FAILOVER_S
        while time.monotonic() < give_up_at:
            view = next(iter(await self._views()), {})
            has_successor = any(row.primary == dead.node_id and node_id in live for node_id, row in view.items())
            if not has_successor or not view[dead.node_id].slots:
                return
            await asyncio.sleep(POLL_S)

    async def _views(self) -> list[dict[str, NodeRow]]:
        """What each node that answers says of all that it knows, by id."""

        async def view(upstream: Upstream) -> dict[str, NodeRow]:
            if upstream.live is not None:
                with contextlib.suppress(StoreUnavailableError, ReplyError, TimeoutError):
                    async with asyncio.timeout(ANSWER_S):
                        return _rows(await upstream.live.ask("CLUSTER", "NODES"))
            return {}

        return [rows for rows in await asyncio.gather(*map(view, self._upstreams)) if rows]


def _rows(text: str) -> dict[str, NodeRow]:
    """The lines of ``CLUSTER NODES``, without nodes whose first contact is under way."""
    lines = [line.split() for line in text.splitlines()]
    return {line[0]: NodeRow(line[3], tuple(line[8:])) for line in lines if "handshake" not in line[2]}


async def _facts(link: RedisConnection, *command: str) -> dict[str, str]:
    return info_facts(await link.ask(*command))


async def _becomes_true(condition: Callable[[], Awaitable[bool]]) -> bool:
    """Whether ``condition`` holds within ``HEALTHY_S`` seconds."""
    give_up_at = time.monotonic() + HEALTHY_S
    while not await condition():
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(POLL_S)
    return True
