"""The network between an API and its real store: slow, lossy, or with a proxy that refuses large requests."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import replace

from overload_demo.lab.simulated_cloud import Proxy, open_line, read_message
from overload_demo.store.connect import Store

GARBAGE = (  # a broken proxy's responses to a request that was carried out
    b"HTTP/1.1 502 X\r\nContent-Type: text/html\r\nContent-Length: 16\r\n\r\n<html>502</html>",
    b'HTTP/1.1 200 X\r\nContent-Length: 12\r\n\r\n{"result": [',
    b'HTTP/1.1 200 X\r\nContent-Length: 13\r\n\r\n{"result":[]}',
    b'HTTP/1.1 200 X\r\nContent-Length: 1000000000\r\n\r\n{"result":',
    b"\x00\xff\xfe not HTTP at all\r\n\r\n",
)
REFUSAL = b"<html>413 Request Entity Too Large</html>"


class Network(Proxy):
    """Forwards HTTP exchanges with the current faults; each attribute may be set at any time."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._address = store[0]
        self.delay_s = 0.0  # of an answer
        self.late_answers = 1 << 30  # so many more; then they come in time again
        self.loses_requests = False  # they never arrive, and are not answered
        self.drops_requests = 0.0  # such a share of them: the connection is reset before anything is carried out
        self.loses_answers = 0.0  # such a share of them: the request is carried out, then the connection is reset
        self.spoils_answers = 0.0  # such a share: the request is carried out, its answer replaced by one of GARBAGE
        self.faults = 0  # how often one of these three happened
        self.largest_request = 1 << 30  # bytes of body; above, the proxy refuses
        self.falsify: Callable[[bytes], bytes] | None = None  # makes of an answer what arrives; then the line is cut
        self.sizes: list[int] = []  # of the bodies that came this way

    @property
    def store(self) -> Store:
        """The store as it is reached over this network."""
        return replace(self._address, url=f"http://127.0.0.1:{self.port}"), None

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, and one to the store for it."""
        behind_reader, behind = await open_line(self._address)
        with contextlib.closing(behind):
            while True:
                await self._exchange(reader, writer, behind_reader, behind)

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        behind_reader: asyncio.StreamReader,
        behind: asyncio.StreamWriter,
    ) -> None:
        head, body = await read_message(reader)
        self.sizes.append(len(body))
        if len(body) > self.largest_request:
            answer = b"HTTP/1.1 413 X\r\nContent-Length: %d\r\n\r\n%b" % (len(REFUSAL), REFUSAL)
        elif self.loses_requests:
            await reader.read()  # until the API closes the connection
            return
        elif random.random() < self.drops_requests:
            self.faults += 1
            writer.transport.abort()
            return
        else:
            behind.write(head + body)
            answer = b"".join(await read_message(behind_reader))
        if random.random() < self.loses_answers:
            self.faults += 1
            writer.transport.abort()
            return
        if random.random() < self.spoils_answers:
            self.faults += 1
            writer.write(random.choice(GARBAGE))
            writer.close()
            return
        if self.falsify is not None:
            writer.write(self.falsify(answer))
            await writer.drain()
            raise ConnectionResetError
        self.late_answers -= 1
        if self.late_answers >= 0:
            await asyncio.sleep(self.delay_s)
        writer.write(answer)
        await writer.drain()
