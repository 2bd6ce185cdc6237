"""TLS in front of a server that has none, with a certificate of an untrusted authority."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import trustme

from overload_demo.lab.simulated_cloud import stop_accepting


@contextlib.contextmanager
def tls_before(port: int, folder: Path) -> Iterator[tuple[int, Path]]:
    """Forward a TLS port to ``port``; yields the TLS port and the authority's certificate file."""
    authority, authority_file = trustme.CA(), folder / "authority.pem"
    authority.cert_pem.write_to_path(authority_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    is_open, loop, may_end, ports = threading.Event(), asyncio.new_event_loop(), asyncio.Event(), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_carry(reader, behind), _carry(behind_reader, writer))
        finally:
            for stream in (behind, writer):
                stream.transport.abort()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        ports.append(server.sockets[0].getsockname()[1])
        is_open.set()
        await may_end.wait()
        await stop_accepting(server)
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),), name="tls")
    thread.start()
    try:
        assert is_open.wait(10.0)
        yield ports[0], authority_file
    finally:
        loop.call_soon_threadsafe(may_end.set)
        thread.join(10.0)
        loop.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
