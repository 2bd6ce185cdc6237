"""Which addresses the load generator accepts as this machine, with real sockets."""

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from overload_demo.errors import ConfigurationError
from overload_demo.load import LoadPlan
from tests.load import scripted_server as scripted
from tests.load.scripted_server import scripted_server
from tests.load.test_load_command import run


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1")
TEN = ("--requests", "10", "--rate", "500", "--shape", "constant")


def names_of(url: str, names: list[str]) -> list[str]:
    """The URL of a server with its host replaced by each of the names."""
    return [f"http://{name}:{urlsplit(url).port}" for name in names]


def test_the_url_may_end_with_the_path() -> None:
    with scripted_server(scripted.accept) as server:
        for suffix in ("/jobs", "/jobs/", "/"):
            done = run(server.url + suffix, *TEN)
            assert done.returncode == 0, done.stderr
        assert len(server.bodies) == 30

    assert LoadPlan("http://127.0.0.1:1/api/jobs", 1).target == "http://127.0.0.1:1/api/jobs"
    assert LoadPlan("http://127.0.0.1:1/myjobs", 1).target == "http://127.0.0.1:1/myjobs/jobs"


@pytest.mark.exhaustive
def test_all_names_of_loopback_are_this_machine() -> None:
    with scripted_server(scripted.accept) as server:
        for url in names_of(server.url, ["127.1", "localhost", "LOCALHOST"]):
            done = run(url, *TEN)
            assert done.returncode == 0, done.stderr
            assert LoadPlan(url, 1).url == server.url


def test_the_machines_own_name_is_this_machine() -> None:
    name = socket.gethostname()
    try:
        addresses = {str(one[4][0]) for one in socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)}
    except OSError:
        pytest.skip(f"the name {name} has no address here")

    assert urlsplit(LoadPlan(f"http://{name}:1", 1).url).hostname in addresses


@needs_ipv6
def test_a_load_reaches_a_server_on_ipv6_and_one_that_localhost_finds_there() -> None:
    with scripted_server(scripted.accept, "::1") as server:
        for url in (server.url, *names_of(server.url, ["localhost"])):
            if "localhost" in url and "::1" not in {one[4][0] for one in socket.getaddrinfo("localhost", 80)}:
                continue
            done = run(url, *TEN)
            assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def port_of_one_family(host: str) -> Iterator[int]:
    """A port with a listener at ``host``, one of the loopback addresses; the other one's port is bound and refuses."""
    families = {"127.0.0.1": socket.AF_INET, "::1": socket.AF_INET6}
    [other] = families.keys() - {host}
    while True:
        with socket.create_server((host, 0), family=families[host]) as one, socket.socket(families[other]) as beside:
            port = int(one.getsockname()[1])
            try:
                beside.bind((other, port))
            except OSError:  # another test has it
                continue
            yield port
            return


@needs_ipv6
@pytest.mark.parametrize("listens_on", ["127.0.0.1", "::1"])
def test_of_several_addresses_the_one_that_accepts_is_taken(monkeypatch: pytest.MonkeyPatch, listens_on: str) -> None:
    real = socket.getaddrinfo

    def ipv6_first(host: str, port: int, *rest: int, **named: int) -> list[tuple[object, ...]]:
        names = ("::1", "127.0.0.1") if host == "localhost" else (host,)
        return [one for name in names for one in real(name, port, *rest, **named)]

    with port_of_one_family(listens_on) as port:
        monkeypatch.setattr(socket, "getaddrinfo", ipv6_first)

        assert urlsplit(LoadPlan(f"http://localhost:{port}", 1).url).hostname == listens_on


@pytest.mark.parametrize("host", ["192.0.2.1", "[2001:db8::1]", "0.0.0.0", "[::]", "no-such-host.invalid", "224.0.0.1"])
def test_other_machines_and_wildcards_are_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="is not this machine: a remote target needs --allow-remote"):
        LoadPlan(f"http://{host}:80", 1)


def test_a_remote_name_stays_a_name() -> None:
    assert LoadPlan("http://example.invalid:80/jobs", 1, allow_remote=True).url == "http://example.invalid:80"
