"""Which Host headers are accepted: no web page may reach a loopback server under a name of its own (DNS rebinding).

At a loopback address only loopback names are accepted, and those of OVERLOAD_ALLOWED_HOSTS. At any other address every
name is accepted, unless OVERLOAD_ALLOWED_HOSTS is set: then only those, loopback names, and the address itself.
"""

import re
from collections.abc import Awaitable, Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from overload_demo.api import problems
from overload_demo.api.request_context import begin

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?")
KNOWN_HOSTS = 256  # judgements remembered


class HostRule:
    """Judges Host headers; ``allowed`` are names beside those of loopback, ``*`` stands for any."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(allowed)
        self.refusal = lru_cache(KNOWN_HOSTS)(self._refusal)

    def _refusal(self, host: bytes, server: str) -> str | None:
        """Return why a Host header is refused on a connection to the address ``server``; None = accepted."""
        match = _HOST.fullmatch(host)
        if match is None:
            return "the Host header is not a host and a port"
        name = (match[1] or match[2]).decode().lower()
        is_open = "*" in self._allowed or not (self._allowed or _is_loopback(server))
        if is_open or name in {server, *self._allowed} or _is_loopback(name):
            return None
        return "this host name is not served here; the server's OVERLOAD_ALLOWED_HOSTS can name it"


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback


class HostCheck:
    """ASGI middleware: answers a request whose Host ``app.state.hosts`` refuses with a 400, whatever its path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] == "http" and (refusal := _refusal(scope)):
            begin(scope)
            return problems.problem(400, refusal, {"Connection": "close"})(scope, receive, send)
        return self._app(scope, receive, send)


def _refusal(scope: Scope) -> str | None:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) == 1:
        rule: HostRule = scope["app"].state.hosts
        return rule.refusal(hosts[0], (scope.get("server") or [""])[0])
    is_old = not hosts and scope["http_version"] == "1.0"
    return None if is_old else "a request must have one Host header"
