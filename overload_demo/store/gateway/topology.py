"""Where each shard's primary is: asked of the nodes of a cluster, or of Sentinels, through the client ``valkey``.

Imported only for such a URL, so that other stores start as fast as without it.
"""

import asyncio
import logging
import random
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from valkey.asyncio import Sentinel, Valkey
from valkey.crc import key_slot
from valkey.exceptions import ConnectionError as NotConnectedError
from valkey.exceptions import ValkeyError

from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.store.data_dir import hash_tag
from overload_demo.store.gateway.backing_server import SCHEMES, ExternalServer, configured
from overload_demo.store.gateway.resp import RedisConnection

log = logging.getLogger(__name__)

FULL_COVERAGE = "cluster-require-full-coverage is yes: when one range of slots has no primary, every shard stops"
MAX_AGE_S = 0.15  # of an answer; below the pause between two checks of a connection
ANSWER_TIMEOUT_S = 0.25  # a node that takes longer is left out
NODES_ASKED = 7  # of a larger cluster
SHARDS, MAX_SHARDS = "12", 4096  # a job's id has three hexadecimal digits for its shard
Endpoint = tuple[str, int]


class Primary(NamedTuple):
    """A shard's primary; its id stays the same when nodes name its address differently."""

    id: str
    host: str
    port: int


class Topology(ABC):
    """Finds primaries by a shard's slot. One answer serves all shards for ``MAX_AGE_S``."""

    def __init__(self) -> None:
        self._lock, self._fresh_until = asyncio.Lock(), 0.0
        self._problem, self._primaries = "", dict[int, Primary]()
        self._clients: dict[Any, Valkey] = {}
        self.notices: list[str] = []

    async def primary(self, slot: int) -> Primary:
        """Return the primary of a slot; raises :class:`StoreUnavailableError` when none is known."""
        async with self._lock:
            if time.monotonic() >= self._fresh_until:
                try:
                    self._problem, self._primaries = "no node serves its slot", await self._ask()
                except (ValkeyError, OSError) as error:
                    self._problem, self._primaries = str(error), {}
                self._fresh_until = time.monotonic() + MAX_AGE_S
        if slot not in self._primaries:
            raise StoreUnavailableError(f"the primary is unknown: {self._problem}")
        return self._primaries[slot]

    def expire(self) -> None:
        """Ask again at the next call: a node has refused a request."""
        self._fresh_until = 0.0

    @abstractmethod
    async def _ask(self) -> dict[int, Primary]:
        """The primary of each slot."""

    async def aclose(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(client.aclose() for client in self._clients.values()))


class ClusterTopology(Topology):
    """Asks several nodes at once, and believes the claim with the highest configuration epoch, as the nodes do.

    So a node that is cut off from the others, or does not answer, does not matter.
    """

    def __init__(self, given: list[Endpoint], slots: Iterable[int], options: dict[str, Any]) -> None:
        super().__init__()
        self._given, self._known, self._slots, self._options = given, set(given), frozenset(slots), options

    async def _ask(self) -> dict[int, Primary]:
        # One given, as all others may have been replaced; the primaries know first what they have given away.
        asked = {random.choice(self._given), *((one.host, one.port) for one in self._primaries.values())}
        asked |= {*random.sample(sorted(self._known), min(len(self._known), NODES_ASKED))}
        views = await asyncio.gather(*map(self._view, asked), return_exceptions=True)
        claims: dict[int, tuple[int, Primary]] = {}
        known: set[Endpoint] = set()
        for view in views:
            for slots, claim, endpoints in () if isinstance(view, BaseException) else view:
                known |= endpoints
                claims |= {slot: max(claim, claims.get(slot, claim)) for slot in self._slots if slot in slots}
        if not known:
            raise ValkeyError(f"no node describes the cluster: {str(views[0]) or 'timeout'}")
        self._known = known
        for departed in self._clients.keys() - known - {*self._given}:
            await self._clients.pop(departed).aclose()
        return {slot: primary for slot, (_, primary) in claims.items()}

    async def _view(self, asked: Endpoint) -> list[tuple[range, tuple[int, Primary], set[Endpoint]]]:
        """The slots that one node knows: their range, epoch and primary, and all nodes that serve them."""
        if asked not in self._clients:
            self._clients[asked] = Valkey(host=asked[0], port=asked[1], **self._options)
        client = self._clients[asked]
        epochs = {node["node_id"]: int(node["epoch"]) for node in (await client.cluster("nodes")).values()}
        found = []
        for first, last, *nodes in await client.cluster("slots"):
            # A node without a name of its own is at the address it was asked at.
            endpoints = [(host if host not in {None, "", "?"} else asked[0], port) for host, port, *_ in nodes]
            claim = epochs.get(nodes[0][2], 0), Primary(nodes[0][2], *endpoints[0])
            found.append((range(first, last + 1), claim, set(endpoints)))
        return found


class SentinelTopology(Topology):
    """Asks the Sentinels in turn for the primary of one service."""

    def __init__(self, sentinels: list[Endpoint], service: str, options: dict[str, Any]) -> None:
        super().__init__()
        self._service, self._sentinel = service, Sentinel(sentinels, sentinel_kwargs=options)  # type: ignore[no-untyped-call]
        self._clients = dict(enumerate(self._sentinel.sentinels))

    async def _ask(self) -> dict[int, Primary]:
        try:
            host, port = await self._sentinel.discover_master(self._service)
        except NotConnectedError as error:  # its text shows objects of the client, with the reason of each Sentinel
            reasons = re.findall(r"Error\(['\"](.*?)['\"]\)", str(error)) or ["is the name right, and its primary up?"]
            raise ValkeyError(f"no Sentinel names a primary of {self._service!r}: {reasons[0]}") from None
        return {0: Primary(f"{host}:{port}", host, port)}


class FollowedServer(ExternalServer):
    """The primary of one shard, wherever it is."""

    answer_timeout_s, retry_longest_s = 1.5, 0.2

    def __init__(self, url: str, topology: Topology, shard: int | None) -> None:
        super().__init__(url)
        self._topology, self.notices, self.is_in_cluster = topology, topology.notices, shard is not None
        self._slot = 0 if shard is None else slot_of(shard)
        self.name = self._of = "of the service" if shard is None else f"of shard {shard}"
        self._primary = ""
        # With another slot's number they mean that the key is not of this shard.
        redirections = (b"-MOVED %d " % self._slot, b"-ASK %d " % self._slot)
        self.refusals = (*redirections, b"-TRYAGAIN", b"-CLUSTERDOWN", b"-READONLY", b"-MASTERDOWN", b"-LOADING")

    async def connect(self) -> RedisConnection:
        """Find the primary and open a connection to it."""
        self._primary, self.host, self.port = await self._topology.primary(self._slot)
        self.name = f"{self._of} at {self.host}:{self.port}"
        return await super().connect()

    async def why_leave(self, connection: RedisConnection) -> str:
        """Return which other node is the primary now. Nothing is sent on the connection: it may be silent."""
        found = await self._topology.primary(self._slot)
        return "" if found.id == self._primary else f"the primary is at {found.host}:{found.port} now"

    def expire(self) -> None:
        """Look the primary up again before the next connection."""
        self._topology.expire()

    async def assess(self, connection: RedisConnection, facts: dict[str, str]) -> None:
        """Note that of the primary; reports when one lost range of slots would stop every shard."""
        await super().assess(connection, facts)
        is_known = not self.is_in_cluster or FULL_COVERAGE in self.notices
        if not is_known and await configured(connection, "cluster-require-full-coverage") == "yes":
            log.warning(FULL_COVERAGE)
            self.notices.append(FULL_COVERAGE)

    async def aclose(self) -> None:
        """Close the connections of the topology."""
        await self._topology.aclose()


def slot_of(shard: int) -> int:
    """The slot of all keys of a shard."""
    return key_slot(hash_tag(shard).encode())


def followed_servers(url: str) -> list[FollowedServer]:
    """The servers of ``redis+cluster://``, one for each shard, or the one of ``redis+sentinel://``.

    Raises :class:`ConfigurationError`, without quoting the URL.
    """
    try:
        parts, query = urlsplit(url), parse_qs(urlsplit(url).query, keep_blank_values=True)
        scheme, _, kind = parts.scheme.partition("+")
        user, at, hosts = parts.netloc.rpartition("@")
        service, _, database = parts.path.strip("/").partition("/")
        is_cluster, is_known = kind == "cluster", scheme in {"redis", "rediss"} and kind in {"cluster", "sentinel"}
        given = [_endpoint(host, 6379 if is_cluster else 26379) for host in hosts.split(",")]
        options = {"shards"} if is_cluster else {"sentinel_password"}
        if not is_known or is_cluster == bool(service) or query.keys() - options:
            raise ValueError
    except ValueError:
        raise ConfigurationError(SCHEMES) from None
    client: dict[str, Any] = {"decode_responses": True, "socket_timeout": ANSWER_TIMEOUT_S}
    client |= {"ssl": True, "ssl_check_hostname": True, "socket_connect_timeout": 1.0} if scheme == "rediss" else {}
    server = f"{scheme}://{user}{at}{hosts.partition(',')[0]}/{database}"
    if not is_cluster:
        client |= {"password": query.get("sentinel_password", [None])[0]}
        return [FollowedServer(server, SentinelTopology(given, service, client), None)]
    text = query.get("shards", [SHARDS])[0]
    if not (text.isdecimal() and 1 <= int(text) <= MAX_SHARDS):
        raise ConfigurationError(f"OVERLOAD_REDIS_URL: shards must be a number from 1 to {MAX_SHARDS}")
    name, _, password = map(unquote, user.partition(":"))
    client |= {"username": name or None, "password": password or None}
    topology = ClusterTopology(given, map(slot_of, range(int(text))), client)
    return [FollowedServer(server, topology, shard) for shard in range(int(text))]


def _endpoint(text: str, default_port: int) -> Endpoint:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or not parts.hostname.encode("idna"):
        raise ValueError("no host")
    return parts.hostname, parts.port or default_port
