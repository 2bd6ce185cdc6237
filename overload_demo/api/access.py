"""Optional API keys: who may call, and whose a job is.

A key travels as ``Authorization: Bearer KEY``. Only digests are kept, and only a short digest, which the key cannot be
told from, goes into the store as a job's owner. Somebody else's job is as unknown as one that never was.
"""

import hashlib
import hmac
from collections.abc import Awaitable

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Receive, Scope, Send

from overload_demo.api import pages, problems
from overload_demo.api.request_context import begin
from overload_demo.config import Settings
from overload_demo.hosts import HostRule

OPEN_PATHS = frozenset({"/health", "/health/ready", "/openapi.json"}) | pages.PATHS
_OWNER = "overload_demo.owner"


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


class ApiKeys:
    """The digests of the keys that are let in; empty = no key is asked for."""

    def __init__(self, settings: Settings) -> None:
        self._digests = [_digest(key) for key in settings.api_keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, scope: Scope) -> str | None:
        """Who sends this request, 16 hexadecimal digits; None without a key of ours.

        Looks at all digests, each in constant time, so that nothing can be learned from how long it takes.
        """
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, key = (given[0] if len(given) == 1 else b"").partition(b" ")
        digest = _digest(key.strip())
        known = [hmac.compare_digest(digest, one) for one in self._digests]
        if not any(known) or scheme.lower() != b"bearer":
            return None
        return hashlib.sha256(b"owner:" + digest).hexdigest()[:16]


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


class KeyCheck:
    """ASGI middleware: refuses a request without a key with a 401, whatever its path, except for OPEN_PATHS: the
    health checks, and what describes the API.

    It goes by the path that is routed, never by a URL put together from what the client says (CVE-2026-48710).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        begin(scope)
        if scope["type"] == "http" and get_route_path(scope) not in OPEN_PATHS:
            keys: ApiKeys = scope["app"].state.keys
            if keys:
                owner = keys.owner(scope)
                if owner is None:
                    refusal = problems.problem(
                        401, "send one of the API's keys as Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"}
                    )
                    await refusal(scope, receive, send)
                    return
                scope[_OWNER] = owner
        await self._app(scope, receive, send)


def owner_of(scope: Scope) -> str:
    """The owner of the jobs that a request submits, and of those it may see; '' where no keys are asked for."""
    owner: str = scope.get(_OWNER, "")
    return owner
