"""Which of the two tokens a request carries."""

import hmac

from overload_demo.store.data_dir import Tokens
from overload_demo.store.gateway.commands import RefusedError
from overload_demo.store.gateway.request_body import query_token

UNAUTHORIZED = (
    "WRONGPASS invalid or missing auth token. "
    "See https://docs.upstash.com/redis/troubleshooting/http_unauthorized for details."
)


class Guard:
    """Knows the tokens and compares in constant time."""

    def __init__(self, tokens: Tokens) -> None:
        self._standard, self._read_only = tokens.standard.encode(), tokens.read_only.encode()
        self._usual = b"Bearer " + self._standard

    def is_read_only(self, headers: dict[bytes, bytes], query: bytes) -> bool:
        """Whether the request carries the read-only token; raises :class:`RefusedError` (401) if it carries neither.

        The query's ``_token`` wins over the header, which holds the token with or without ``Bearer``.
        """
        given = headers.get(b"authorization", b"")
        if not query and hmac.compare_digest(given, self._usual):
            return False
        token = query_token(query) or _in_header(given)
        if hmac.compare_digest(token, self._standard):
            return False
        if hmac.compare_digest(token, self._read_only):
            return True
        raise RefusedError(UNAUTHORIZED, status=401)


def _in_header(value: bytes) -> bytes:
    scheme, _, token = value.strip().partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else value.strip()
