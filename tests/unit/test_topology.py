"""Addresses of clusters and Sentinels, and versions of servers that are too old."""

import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.rest import refuse_old, refuse_unsafe
from overload_demo.store.gateway.topology import followed_servers


@pytest.mark.parametrize(
    "url",
    [
        "redis+cluster://",
        "redis+cluster://host:port",
        "redis+cluster://host:1,:2",
        "redis+cluster://host:1,a..b:2",
        "redis+sentinel://a..b/jobs",
        "redis+cluster://host/0",
        "redis+cluster://host?shard=3",
        "redis+sentinel://host",
        "redis+sentinel://host/jobs/db",
        "redis+sentinel://host/jobs?shards=3",
        "redis+other://host/jobs",
        "unix+cluster://host",
        "http+cluster://host",
    ],
)
def test_an_address_of_another_kind_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must look like") as caught:
        followed_servers(url.replace("://", "://me:s3cret@"))
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("shards", ["0", "4097", "-1", "x", "", "1.5"])
def test_a_number_of_shards_out_of_range_is_refused(shards: str) -> None:
    with pytest.raises(ConfigurationError, match="shards must be a number from 1 to 4096"):
        followed_servers(f"redis+cluster://host:7000?shards={shards}")


def test_a_cluster_has_twelve_shards_unless_the_address_says_otherwise() -> None:
    assert len(followed_servers("redis+cluster://host:7000,host:7001")) == 12
    assert len(followed_servers("rediss+cluster://host:7000?shards=3")) == 3


def test_no_password_is_shown() -> None:
    urls = ("redis+cluster://me:s3cret@host:7000", "redis+sentinel://:s3cret@host/jobs/2?sentinel_password=s3cret")
    servers = [followed_servers(url)[0] for url in urls]
    assert [server.database for server in servers] == [0, 2]
    assert "s3cret" not in "".join(f"{server!r}{server.name}{vars(server)!r}" for server in servers)


def test_an_old_server_is_refused_and_a_cluster_needs_its_own_kind_of_address() -> None:
    refuse_old({"redis_version": "6.2.0"})
    refuse_old({"redis_version": "10.0.1"})
    refuse_old({})
    with pytest.raises(ConfigurationError, match=r"version 6\.0, but at least 6\.2"):
        refuse_old({"redis_version": "6.0.16"})
    refuse_unsafe({"cluster_enabled": "1"}, in_cluster=True)
    with pytest.raises(ConfigurationError, match=r"is a cluster: use OVERLOAD_REDIS_URL=redis\+cluster://"):
        refuse_unsafe({"cluster_enabled": "1"})
