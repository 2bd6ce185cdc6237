"""Two changes to uvicorn that API, store and live page share: one write per response, and no signal handlers."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


class SignalFreeServer(uvicorn.Server):
    """A uvicorn server that installs no signal handlers; the command that runs it handles the signals.

    uvicorn's own handlers would take a notebook's Interrupt, and raise each signal again before the store's server
    has ended.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone; overrides uvicorn's hook."""
        yield


class CoalescingTransport:
    """A transport that gathers writes until :meth:`flush`, at the latest until the event loop's next turn.

    uvicorn writes the head and the body of a response separately, and each write is a system call that wakes the peer.
    ``status`` is that of the last response: every response passes here, and no body begins like a status line.
    """

    status = b""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._unwritten: list[bytes] = []
        self.is_closing = transport.is_closing  # called often

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write the data in this turn of the event loop or the next."""
        if not self._unwritten:
            self._loop.call_soon(self.flush)
        self._unwritten.append(data)
        if data[:1] == b"H" and data.startswith(b"HTTP/1.1 "):  # the first test is the cheap one
            self.status = data[9:12]

    def close(self) -> None:
        """Flush, then close."""
        self.flush()
        self._transport.close()

    def write_eof(self) -> None:
        """Flush, then close the sending half."""
        self.flush()
        self._transport.write_eof()

    def flush(self) -> None:
        """Write what has gathered."""
        if self._unwritten:
            data, self._unwritten = b"".join(self._unwritten), []
            if not self._transport.is_closing():  # the client may have closed in this very turn
                self._transport.write(data)
