"""A standalone store a module, emptied before each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stores import Rest, standalone_store


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def shared(shared_dir: Path) -> Iterator[Rest]:
    with standalone_store(shared_dir) as rest:
        yield rest


@pytest.fixture
def rest(shared: Rest) -> Rest:
    shared.run("FLUSHDB")
    return shared
