"""Access control: the Host check and the optional API keys, sent as ``Authorization: Bearer KEY``.

The process keeps only digests of keys, and a job stores a shorter digest as its owner. Another owner's job is a 404,
like an unknown id.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Iterable, Set

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from overload_demo.api import problems
from overload_demo.api.request_context import begin
from overload_demo.config import Settings
from overload_demo.http_server import HostRule

_OWNER = "overload_demo.owner"


class ApiKeys:
    """The digests of the accepted keys; empty = no key is needed."""

    def __init__(self, settings: Settings) -> None:
        self._digests = [_digest(key) for key in settings.api_keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the owner id of a request's key, 16 hexadecimal digits; None without an accepted key.

        It is '' where no key is needed. Compares with every digest in constant time, so the duration reveals nothing.
        """
        if not self._digests:
            return ""
        given = [value for name, value in headers if name == b"authorization"]
        scheme, _, key = (given[0] if len(given) == 1 else b"").partition(b" ")
        digest = _digest(key.strip())
        known = [hmac.compare_digest(digest, one) for one in self._digests]
        if not any(known) or scheme.lower() != b"bearer":
            return None
        return hashlib.sha256(b"owner:" + digest).hexdigest()[:16]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class AccessCheck:
    """The outermost ASGI middleware: answers a refused Host with a 400, and a missing or unknown key with a 401.

    ``app.state.hosts`` and ``app.state.keys`` decide. ``open_paths`` need no key; None = no path does. The path is the
    routed one, never one of a URL built from the request's headers (CVE-2026-48710). It also binds the request to the
    log, and runs HEAD as GET, whose body the server omits.
    """

    def __init__(self, app: ASGIApp, open_paths: Set[str] | None = None) -> None:
        self._app, self._open_paths = app, open_paths

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request."""
        if scope["type"] == "http":
            begin(scope)
            if reason := _refused_host(scope):
                return problems.problem(400, reason, {"Connection": "close"})(scope, receive, send)
            if self._open_paths is not None and get_route_path(scope) not in self._open_paths:
                keys: ApiKeys = scope["app"].state.keys
                owner = scope[_OWNER] = keys.owner(scope["headers"])
                if owner is None:
                    detail = "send one of the API's keys as Authorization: Bearer KEY"
                    return problems.problem(401, detail, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}
        return self._app(scope, receive, send)


def _refused_host(scope: Scope) -> str | None:
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) == 1:
        rule: HostRule = scope["app"].state.hosts
        return rule.refusal(hosts[0], (scope.get("server") or [""])[0])
    is_old = not hosts and scope["http_version"] == "1.0"
    return None if is_old else "a request must have one Host header"


def owner_of(scope: Scope) -> str:
    """Return the owner of the jobs that a request submits and may read; '' where no key is needed."""
    return scope.get(_OWNER, "")  # type: ignore[no-any-return]
