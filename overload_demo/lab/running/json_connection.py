"""One kept connection to a server that is asked for JSON again and again, while a crowd wants the same server."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


class JsonConnection:
    """GET requests over one connection, as a new one would wait behind all the others. Blocks; for one thread.

    http.client and not a session, because it knows no proxy variables. ``timeout_s`` is the patience for one answer.
    """

    def __init__(self, url: str, timeout_s: float, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=timeout_s)
        self._base, self._headers = parts.path.rstrip("/"), headers or {}

    def get(self, path: str) -> dict[str, Any]:
        """The object at ``path``; raises OSError, HTTPException or ValueError when there is none."""
        try:
            self._connection.request("GET", self._base + path, headers=self._headers)
            answer = self._connection.getresponse()
            found = json.loads(answer.read())
        except BaseException:
            self._connection.close()  # the next request opens a new one
            raise
        if answer.status != 200 or not isinstance(found, dict):
            raise ValueError(f"GET {path} is answered with {answer.status}")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
