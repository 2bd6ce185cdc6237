"""Writers that go on while a test harms the servers behind a shard, and what became of their writes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from overload_demo.errors import StoreError
from overload_demo.rest import Address
from overload_demo.rest.client import Command, Upstash
from tests.support.stores import Rest

WRITERS, BEFORE_AND_AFTER = 8, 200


def rest_of(address: Address) -> Rest:
    """A client of one shard that retries nothing."""
    return Rest(address.url, address.token.get_secret_value())


@dataclass
class Written:
    """The members of the set ``key`` that were acknowledged, and the error of each other write."""

    address: Address
    key: str
    acknowledged: set[str] = field(default_factory=set)
    errors: list[StoreError] = field(default_factory=list)

    def lost(self) -> set[str]:
        """The acknowledged members that the shard does not have now."""
        return self.acknowledged - set(rest_of(self.address).run("SMEMBERS", self.key))


def write_while(
    action: Callable[[], object], address: Address, key: str, *, replicas: int = 0, repeatable: bool = True
) -> Written:
    """Write from some time before a blocking ``action`` until some time after it.

    With ``replicas`` a write counts as acknowledged once they have it.
    """
    return asyncio.run(_write_while(action, Written(address, key), replicas, repeatable))


async def _write_while(action: Callable[[], object], written: Written, replicas: int, repeatable: bool) -> Written:
    upstash, is_over = Upstash(written.address, connections=WRITERS), asyncio.Event()

    async def write(member: str, in_pipeline: bool) -> None:
        command: Command = ("SADD", written.key, member)
        if in_pipeline:
            wait: list[Command] = [("WAIT", replicas, 1000)] if replicas else []
            reply, *confirmed = await upstash.pipeline([command, *wait], repeatable=repeatable)
            if isinstance(reply, StoreError):
                raise reply
            if replicas and confirmed != [replicas]:
                return
        else:
            await upstash.command(*command, repeatable=repeatable)
        written.acknowledged.add(member)

    async def write_on(writer: int) -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            try:
                await write(f"{writer}-{number}", bool(replicas or number % 2))
            except StoreError as error:
                written.errors.append(error)

    async def acknowledge_more() -> None:
        least = len(written.acknowledged) + BEFORE_AND_AFTER
        async with asyncio.timeout(30):
            while len(written.acknowledged) < least:
                await asyncio.sleep(0.01)

    writers = [asyncio.create_task(write_on(writer)) for writer in range(WRITERS)]
    await acknowledge_more()
    await asyncio.to_thread(action)
    await acknowledge_more()
    is_over.set()
    await asyncio.gather(*writers)
    await upstash.aclose()
    return written
