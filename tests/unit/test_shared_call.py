"""A shared call: concurrent callers get the reply of one call, which none of them can cancel."""

import asyncio

import pytest

from overload_demo.errors import Outcome, StoreError, StoreRefusedError, StoreUnavailableError
from overload_demo.queue.group_commit import SharedCall

pytestmark = pytest.mark.anyio


class Source:
    """Counts its calls; each waits for ``go_on``, then returns its number or raises ``error``."""

    def __init__(self) -> None:
        self.calls = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def call(self, deadline_s: float) -> int:
        self.calls += 1
        number = self.calls
        await self.go_on.wait()
        if self.error:
            raise self.error
        return number


async def test_concurrent_callers_share_a_call_and_later_ones_share_the_next() -> None:
    source = Source()
    shared = SharedCall(source.call, 5.0)
    first = [asyncio.create_task(shared.reply()) for _ in range(3)]
    await asyncio.sleep(0.01)
    late = [asyncio.create_task(shared.reply()) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert source.calls == 1
    source.go_on.set()

    assert await asyncio.gather(*first, *late) == [1, 1, 1, 2, 2, 2]


async def test_a_cancelled_caller_of_a_shared_call_cancels_nothing() -> None:
    source = Source()
    shared = SharedCall(source.call, 5.0)
    gone, stays = asyncio.create_task(shared.reply()), asyncio.create_task(shared.reply())
    await asyncio.sleep(0.01)
    gone.cancel()
    source.go_on.set()

    assert await stays == 1
    await shared.aclose()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [(StoreRefusedError("no"), StoreRefusedError), (ZeroDivisionError(), StoreUnavailableError)],
)
async def test_an_error_of_a_shared_call_reaches_its_callers_and_a_bug_leaves_the_outcome_unknown(
    raised: Exception, expected: type[StoreError]
) -> None:
    source = Source()
    source.error = raised
    source.go_on.set()
    shared = SharedCall(source.call, 5.0)

    answers = await asyncio.gather(shared.reply(), shared.reply(), return_exceptions=True)

    assert [type(answer) for answer in answers] == [expected] * 2
    assert isinstance(raised, StoreError) or answers[0].outcome is Outcome.UNKNOWN  # type: ignore[union-attr]
    source.error = None
    assert await shared.reply() == 2


async def test_closing_waits_for_a_shared_call() -> None:
    source = Source()
    shared = SharedCall(source.call, 5.0)
    asked = asyncio.create_task(shared.reply())
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(shared.aclose())
    await asyncio.sleep(0.01)
    assert not closing.done()
    source.go_on.set()
    await closing

    assert await asked == 1
