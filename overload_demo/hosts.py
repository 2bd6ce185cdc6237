"""Which Host headers are accepted: no web page may reach a loopback server under a name of its own (DNS rebinding).

At a loopback address only loopback names are accepted, and those of OVERLOAD_ALLOWED_HOSTS. At any other address every
name is accepted, unless OVERLOAD_ALLOWED_HOSTS is set: then only those, loopback names, and the address itself.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

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
