"""Which Host and Accept headers the HTTP servers of this package understand."""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{0,5})?")
KNOWN_HOSTS = 256  # decisions kept
# An entry of Accept that is refused (q=0), or whose version prometheus-client cannot parse: it raises.
_UNUSABLE = re.compile(r";\s*(?:q=0(?:\.0*)?\s*(?:;|$)|version=(?![0-9]{1,4}(?:\.[0-9]{1,4})*\s*(?:;|$)))")


class HostRule:
    """Decides which Host headers are accepted, against DNS rebinding: ``allowed`` are extra names, ``*`` is any.

    A connection to a loopback address accepts loopback names and the allowed names. One to another address accepts
    every name; with allowed names it accepts only these, loopback names, and the address itself.
    """

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


def usable_accept(accept: str) -> str:
    """Return the entries of an Accept header for metrics that are not refused and that prometheus-client can parse."""
    return ",".join(entry for entry in accept.replace('"', "").split(",") if not _UNUSABLE.search(entry))
