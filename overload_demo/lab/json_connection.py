"""One kept HTTP connection for JSON: under load a new connection would wait in the accept queue."""

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


class JsonConnection:
    """GET requests over one connection. Blocks; for one thread. ``timeout_s`` bounds one response.

    http.client ignores proxy variables.
    """

    def __init__(self, url: str, timeout_s: float, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.netloc, timeout=timeout_s)
        self._base, self._headers = parts.path.rstrip("/"), headers or {}

    def get(self, path: str) -> dict[str, Any]:
        """Return the JSON object at ``path``; raises OSError, HTTPException or ValueError without one."""
        found = json.loads(self.get_text(path))
        if not isinstance(found, dict):
            raise ValueError(f"the response to GET {path} is not an object")
        return found

    def get_text(self, path: str) -> str:
        """Return the text at ``path``; raises OSError, HTTPException, or ValueError for a status other than 200."""
        try:
            self._connection.request("GET", self._base + path, headers=self._headers)
            response = self._connection.getresponse()
            text = response.read().decode()
        except BaseException:
            self._connection.close()  # the next request opens a new one
            raise
        if response.status != 200:
            raise ValueError(f"the response to GET {path} has status {response.status}")
        return text

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
