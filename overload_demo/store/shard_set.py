"""What the gateway stands in front of: one server, or the shards of a cluster, which may be embedded."""

import asyncio
import logging
from collections.abc import Sequence

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError, StoreUnavailableError
from overload_demo.store.data_dir import DataDir
from overload_demo.store.embedded_cluster import EmbeddedCluster
from overload_demo.store.gateway.backing_server import BackingServer, ExternalServer
from overload_demo.store.gateway.upstream import Upstream
from overload_demo.store.redis_server import EmbeddedServer

log = logging.getLogger(__name__)

WEAKEST_FIRST = ["none", "unknown", "everysec", "always"]


class ShardSet:
    """The servers that the settings name, from :meth:`open` to :meth:`aclose`.

    Embedded ones are those of ``data_dir``, which must be the working directory then. Raises
    :class:`ConfigurationError` for settings that do not fit each other or the data.
    """

    def __init__(self, data_dir: DataDir, settings: Settings, *, drop_damage: bool) -> None:
        self._cluster: EmbeddedCluster | None = None
        self._servers: Sequence[BackingServer]
        url, nodes, replicas = settings.overload_redis_url, settings.overload_nodes, settings.overload_min_replicas
        if url is None:
            data_dir.refuse_other_nodes(nodes)
            if replicas > int(nodes > 1):  # a cluster has one of each primary
                raise ConfigurationError(
                    f"OVERLOAD_MIN_REPLICAS: the embedded store with OVERLOAD_NODES={nodes} has "
                    f"{int(nodes > 1)} replicas of a job, not {replicas}"
                )
            if nodes > 1:
                self._cluster = EmbeddedCluster(data_dir, settings, drop_damage=drop_damage)
                url = self._cluster.url
        if url is None:
            self._servers = [EmbeddedServer(data_dir, settings, drop_damage=drop_damage)]
        else:
            self._servers = _external(url.get_secret_value())
        self.upstreams = [Upstream(server, replicas) for server in self._servers]
        self.directories = [data_dir, *(self._cluster.directories if self._cluster else [])]

    @property
    def shards(self) -> int:
        """The number of shards of a cluster; 0 for one server."""
        return len(self._servers) if self._servers[0].is_in_cluster else 0

    @property
    def notices(self) -> list[str]:
        """What to know about the data, each once."""
        found = [*(self._cluster.notices if self._cluster else [])]
        return list(dict.fromkeys(sum((server.notices for server in self._servers), found)))

    async def open(self) -> str:
        """Connect to all shards at once; returns the weakest durability. A shard without a primary is tried again.

        Raises what the first one raises, if no shard has a primary or jobs are not safe on one.
        """
        if self._cluster:
            await self._cluster.open()
        results = await asyncio.gather(*(one.open() for one in self.upstreams), return_exceptions=True)
        problems = [result for result in results if isinstance(result, BaseException)]
        fatal = [problem for problem in problems if not isinstance(problem, StoreUnavailableError)]
        if fatal or len(problems) == len(results):
            raise (fatal or problems)[0]
        for upstream, result in zip(self.upstreams, results, strict=True):
            if isinstance(result, StoreUnavailableError):
                log.error("starting without a shard: %s", result)
                upstream.start()
        return min((upstream.durability for upstream in self.upstreams), key=WEAKEST_FIRST.index)

    async def aclose(self) -> None:
        """Close the connections, and end the servers that were started here."""
        await asyncio.gather(*(upstream.aclose() for upstream in self.upstreams))
        if self._cluster:
            await self._cluster.aclose()


def _external(url: str) -> Sequence[ExternalServer]:
    """The server of a URL, or one for each shard."""
    if "+" not in url.partition("://")[0]:
        return [ExternalServer(url)]
    from overload_demo.store.gateway.topology import followed_servers  # its library costs 0.2 s

    return followed_servers(url)
