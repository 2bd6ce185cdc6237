"""A standalone store a module, emptied before each test."""

from collections.abc import Iterator

import pytest

from tests.support.stores import Rest, door


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    with door(tmp_path_factory.mktemp("store")) as rest:
        yield rest


@pytest.fixture
def rest(shared: Rest) -> Rest:
    shared.run("FLUSHDB")
    return shared
