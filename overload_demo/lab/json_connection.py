"""One kept connection to a server that is asked for JSON again and again, while a crowd wants the same server."""

import contextlib
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
        found = json.loads(self.get_text(path))
        if not isinstance(found, dict):
            raise ValueError(f"GET {path} is not answered with an object")
        return found

    def get_text(self, path: str) -> str:
        """What is at ``path``; raises OSError, HTTPException or ValueError when nothing is, or no text."""
        try:
            self._connection.request("GET", self._base + path, headers=self._headers)
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except BaseException:
            self._connection.close()  # the next request opens a new one
            raise
        if answer.status != 200:
            raise ValueError(f"GET {path} is answered with {answer.status}")
        return text

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def is_ready(url: str) -> bool:
    """Whether the API at ``url`` takes requests now. Blocks, for 2 s at most."""
    with contextlib.closing(JsonConnection(url, 2.0)) as connection:
        try:
            connection.get_text("/health/ready")
        except (OSError, ValueError, http.client.HTTPException):
            return False
    return True
