"""What both HTTP servers of ours put around uvicorn's transport: an answer leaves in one piece."""

import asyncio
from typing import Any


class OneWrite:
    """A transport that gathers what is written until :meth:`flush`, at the latest until the event loop's next turn.

    uvicorn writes head and body of an answer separately, and a write is a system call that the peer wakes up for.
    All answers come past here, and only here: ``status`` is that of the last one. No body of ours begins like a head.
    """

    status = b""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._unwritten: list[bytes] = []
        self.is_closing = transport.is_closing  # asked often

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write soon."""
        if not self._unwritten:
            self._loop.call_soon(self.flush)
        self._unwritten.append(data)
        if data[:1] == b"H" and data.startswith(b"HTTP/1.1 "):  # the first look is the cheap one
            self.status = data[9:12]

    def close(self) -> None:
        """Write what there is, then close."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Write what there is, then close our half."""
        self.flush()
        self._transport.write_eof()

    def flush(self) -> None:
        """Write what there is now."""
        if self._unwritten:
            data, self._unwritten = b"".join(self._unwritten), []
            if not self._transport.is_closing():  # the client may have gone in this very turn
                self._transport.write(data)
