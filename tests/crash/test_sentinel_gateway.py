"""``redis+sentinel://``: the primary that the Sentinels name is used, and its successor is followed."""

from pathlib import Path

import pytest

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.store.connect import EmbeddedStore
from tests.crash.test_cluster_gateway import gateway_before
from tests.support.sentinels import sentinel_service
from tests.support.shard_writers import rest_of, write_while
from tests.support.waiting import wait_until


@pytest.mark.exhaustive
def test_the_successor_that_the_sentinels_choose_is_followed(tmp_path: Path) -> None:
    with sentinel_service(tmp_path / "servers") as service, gateway_before(service.url(), tmp_path / "data") as gateway:
        (shard,) = gateway.shards
        assert f"tcp_port:{service.primary}" in rest_of(shard).run("INFO", "server")

        def fail_over() -> None:
            service.kill_primary()
            name = f"connected to the server of the service at 127.0.0.1:{service.replica}"
            wait_until("the replica is used", lambda: name in gateway.log(), 20)

        write_while(fail_over, shard, "key")
        assert f"tcp_port:{service.replica}" in rest_of(shard).run("INFO", "server")


@pytest.mark.exhaustive
def test_a_service_that_the_sentinels_do_not_know_is_refused_in_one_line(tmp_path: Path) -> None:
    with sentinel_service(tmp_path / "servers") as service:
        settings = load_settings(overload_redis_url=service.url("others"))
        with pytest.raises(ConfigurationError, match="primary of 'others': is the name right") as caught:
            EmbeddedStore(tmp_path / "data", settings).acquire()
        assert "\n" not in str(caught.value)
