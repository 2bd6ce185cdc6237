"""Several databases as shards: each mistake with them is one line at the start, and no data is harmed."""

import logging
import secrets
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.jobs import new_job_id, on_shard
from overload_demo.rest import Address
from overload_demo.store.connect import EmbeddedStore, Store
from overload_demo.store.startup_check import check_store
from tests.support.running import free_port, make_settings, serving_api, submit
from tests.support.shards import joined
from tests.support.stores import Rest


@pytest.fixture
def databases(store: Store) -> list[Address]:
    """Empty databases: parts of one store with a prefix each."""
    address, run = store[0], secrets.token_hex(4)
    return [Address(address.url, address.token, tag=f"{run}-{number}:") for number in range(4)]


def start(settings: Settings, *shards: Address) -> None:
    """Check the shards as the start of a program does."""
    check_store(joined(shards)[0], settings)


def marker_of(settings: Settings, database: Address) -> Any:
    rest = Rest(database.url, database.token.get_secret_value())
    return rest.run("GET", f"{database.tag}{settings.overload_key_prefix}jobs:shard")


def marks(settings: Settings, databases: list[Address]) -> list[str]:
    """The markers without the id of the deployment, which is the same everywhere."""
    deployments, rest = zip(*(str(marker_of(settings, one)).split(" ", 1) for one in databases), strict=True)
    assert len(set(deployments)) == 1
    return list(rest)


def test_each_shard_is_marked_once_and_a_single_one_never(settings: Settings, databases: list[Address]) -> None:
    start(settings, databases[3])
    start(settings, *databases[:3])
    before = [marker_of(settings, one) for one in databases]

    start(settings, *databases[:3])

    assert [marker_of(settings, one) for one in databases] == before
    assert marks(settings, databases[:3]) == ["0 3", "1 3", "2 3"]
    assert before[3] is None


def test_a_deployment_may_grow_and_not_shrink(settings: Settings, databases: list[Address]) -> None:
    start(settings, databases[0])
    start(settings, *databases[:2])
    start(settings, *databases[:3])

    assert marks(settings, databases[:3]) == ["0 3", "1 3", "2 3"]
    for fewer in (databases[:2], databases[:1], databases[1:2]):
        with pytest.raises(ConfigurationError, match=r"deployment of 3 shards, but \d are configured"):
            start(settings, *fewer)


def test_the_same_database_twice_is_refused(settings: Settings, databases: list[Address]) -> None:
    with pytest.raises(ConfigurationError, match=r"shard 1 is shard 0 of this deployment already.*twice"):
        start(settings, databases[0], databases[0])
    assert marker_of(settings, databases[0]) is None
    start(settings, databases[0])

    start(settings, *databases[:2])
    with pytest.raises(ConfigurationError, match=r"shard 3 is shard 2 of this deployment already.*twice"):
        start(settings, *databases[:3], databases[2])
    assert marks(settings, databases[:2]) == ["0 2", "1 2"]
    assert marker_of(settings, databases[2]) is None


def test_another_order_is_refused(settings: Settings, databases: list[Address]) -> None:
    start(settings, *databases[:3])

    with pytest.raises(ConfigurationError, match=r"is shard . of this deployment already.*another order"):
        start(settings, databases[0], databases[2], databases[1])


def test_a_shard_of_another_deployment_is_refused(settings: Settings, databases: list[Address]) -> None:
    start(settings, *databases[:2])
    start(settings, *databases[2:])

    with pytest.raises(ConfigurationError, match="shard 1 belongs to another deployment"):
        start(settings, databases[0], databases[3])


def test_a_new_first_shard_before_marked_ones_is_refused(settings: Settings, databases: list[Address]) -> None:
    start(settings, *databases[:2])

    with pytest.raises(ConfigurationError, match="shard 1 belongs to a deployment, but shard 0 does not"):
        start(settings, databases[2], databases[1])
    assert marker_of(settings, databases[2]) is None


@pytest.mark.parametrize("state", ["waiting", "finished"])
def test_a_single_queue_grows_as_the_first_shard_only(tmp_path: Path, state: str) -> None:
    settings = make_settings(tmp_path)
    # A store of its own: the check looks at a sample of the keys.
    with EmbeddedStore(settings.overload_data_dir, settings) as own:
        address = own.acquire()
        old, new = (Address(address.url, address.token, tag=f"{number}:") for number in range(2))
        check_growth(settings, old, new, state)


def check_growth(settings: Settings, old: Address, new: Address, state: str) -> None:
    rest, job_id = Rest(old.url, old.token.get_secret_value()), new_job_id()
    prefix = f"{old.tag}{settings.overload_key_prefix}"
    rest.run("HSET", f"{prefix}job:{job_id}", "job_id", job_id)
    if state == "waiting":
        rest.run("RPUSH", f"{prefix}jobs:queue", job_id)

    with pytest.raises(ConfigurationError, match="shard 1 holds a job of shard 0"):
        start(settings, new, old)
    assert [marker_of(settings, one) for one in (old, new)] == [None, None]
    start(settings, old, new)

    rest.run("HSET", f"{prefix}job:{on_shard(job_id, 1)}", "job_id", job_id)
    with pytest.raises(ConfigurationError, match="shard 0 holds a job of shard 1"):
        start(settings, old, new)


def test_a_shard_that_does_not_answer_is_logged_and_marked_later(
    tmp_path: Path, databases: list[Address], caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(tmp_path, overload_store_deadline_s=0.3)
    nowhere = Address(f"http://127.0.0.1:{free_port()}", SecretStr("a-token-of-the-test"))
    with caplog.at_level(logging.INFO, "overload_demo"):
        start(settings, databases[0], nowhere, databases[2])
        start(settings, nowhere, databases[3])

    lines = [record.getMessage() for record in caplog.records if "is not usable yet" in record.getMessage()]
    assert [line[:27] for line in lines] == ["shard 1 of the store is not", "shard 0 of the store is not"]
    assert marks(settings, [databases[0], databases[2]]) == ["0 3", "2 3"]
    assert marker_of(settings, databases[3]) is None  # without shard 0 the deployment is not known
    with serving_api(settings, joined(databases[:3])) as client:
        submit(client, 100)
    start(settings, *databases[:3])
    assert marks(settings, databases[:3]) == ["0 3", "1 3", "2 3"]


def test_a_bound_below_one_job_a_shard_is_refused(tmp_path: Path, databases: list[Address]) -> None:
    start(make_settings(tmp_path, overload_max_queue_depth=3), *databases[:3])

    with pytest.raises(ConfigurationError, match=r"OVERLOAD_MAX_QUEUE_DEPTH: 2 is less than .* 3 shards"):
        start(make_settings(tmp_path, overload_max_queue_depth=2), *databases[:3])
