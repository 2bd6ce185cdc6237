"""A script with an unusable argument changes nothing: it never fails between two writes."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from overload_demo.config import Settings
from overload_demo.errors import StoreError
from overload_demo.queue import protocol
from overload_demo.queue.consumer import Consumer, LeasedJob, LeaseEnd
from overload_demo.queue.maintenance import QueueAdmin
from overload_demo.queue.protocol import Protocol
from overload_demo.rest import ScriptCall
from overload_demo.store.connect import Store
from tests.support.queues import Queue, open_queue, settled

pytestmark = pytest.mark.anyio

UNUSABLE = ["", "x", "-1", "nan", "1e400", "9999999999999999"]
SNAPSHOT = """
local keys = redis.call('KEYS', ARGV[1] .. '*')
table.sort(keys)
for i, key in ipairs(keys) do
  keys[i] = key .. redis.sha1hex(redis.call('DUMP', key)) .. redis.call('PEXPIRETIME', key)
end
return keys
"""


class Scene:
    """A queue in which every script changes something: it has cancelled, waiting, leased, expired and dead jobs."""

    def __init__(self, queue: Queue, ids: list[str], worker: Consumer, held: list[LeasedJob], letter: str) -> None:
        self.queue, self.ids, self.worker, self.held, self.letter = queue, ids, worker, held, letter
        self.call = Protocol(queue.prefix).call


async def scene_in(queue: Queue) -> Scene:
    ids = await queue.enqueue(9)
    worker = queue.worker("w/1")
    [dead] = (await worker.lease(1)).jobs
    await worker.settle([settled(dead, LeaseEnd.DEAD)])
    held = (await worker.lease(4)).jobs
    await queue.worker("dead/1", worker_max_attempts=1).lease(1)
    await queue.expire_lease(ids[5])
    await queue.producer.cancel(ids[6])
    [letter] = await queue.redis("LRANGE", f"{queue.prefix}jobs:dead", 0, -1)
    return Scene(queue, ids, worker, held, letter)


def settle(scene: Scene) -> ScriptCall:
    verdicts = [LeaseEnd.DONE, LeaseEnd.FAILED, LeaseEnd.DEAD, LeaseEnd.RELEASED]
    return scene.worker._settle_call([settled(job, verdict) for job, verdict in zip(scene.held, verdicts, strict=True)])


def enqueue(scene: Scene) -> ScriptCall:
    jobs = ["job_1", "{}", "", "job_2", "{}", "record 5 - print"]
    return scene.call(protocol.ENQUEUE, scene.queue.prefix, 100, 1000.0, 2.0, "now", 3600, *jobs)


# Each call, and the places of its numbers (of settle: up to the attempt of the last job).
CALLS: dict[str, tuple[Callable[[Scene], ScriptCall], list[int]]] = {
    "enqueue": (enqueue, [1, 2, 3, 5]),
    "lease": (lambda scene: scene.worker._lease_call(3, 60.0, ""), [3, 4, 5, 6, 10, 11, 12]),
    "extend": (lambda scene: scene.call(protocol.EXTEND, 1000, "w/1", 7, scene.ids[1], "2"), [0]),
    "settle": (settle, [1, 2, 3, 4, 11, 35]),
    "purge": (lambda scene: scene.call(protocol.PURGE, scene.queue.prefix, 60, scene.ids[0], scene.letter), [1]),
    "reconcile": (
        lambda scene: scene.call(protocol.RECONCILE, scene.queue.prefix, 9, 9, 1000, 60, scene.ids[8], "0"),
        [1, 2, 3, 4],
    ),
    "recount": (lambda scene: scene.call(protocol.RECOUNT, 50, 50, 0, 0, 5), [0, 1]),
}


@pytest.mark.parametrize("name", CALLS)
async def test_an_unusable_number_changes_nothing(settings: Settings, store: Store, name: str) -> None:
    build, places = CALLS[name]
    async with open_queue(settings, store) as queue:
        scene = await scene_in(queue)
        call = build(scene)
        before = await queue.redis("EVAL", SNAPSHOT, 0, queue.prefix)
        for place in places:
            for value in UNUSABLE:
                args = [*call.args[:place], value, *call.args[place + 1 :]]
                with pytest.raises(StoreError, match=f"argument {place + 1} "):
                    await queue.upstash.run(replace(call, args=args))
                assert await queue.redis("EVAL", SNAPSHOT, 0, queue.prefix) == before

        await queue.upstash.run(call)
        assert await queue.redis("EVAL", SNAPSHOT, 0, queue.prefix) != before


@pytest.mark.parametrize("options", ["x", "- x - print", "record 5 -", "- nan - -"])
async def test_malformed_options_enqueue_nothing(settings: Settings, store: Store, options: str) -> None:
    async with open_queue(settings, store) as queue:
        call = enqueue(await scene_in(queue))
        before = await queue.redis("EVAL", SNAPSHOT, 0, queue.prefix)

        with pytest.raises(StoreError, match="argument 12 "):
            await queue.upstash.run(replace(call, args=[*call.args[:-1], options]))

        assert await queue.redis("EVAL", SNAPSHOT, 0, queue.prefix) == before


async def test_an_unknown_verdict_settles_nothing(settings: Settings, store: Store) -> None:
    async with open_queue(settings, store) as queue:
        call = settle(await scene_in(queue))
        before = await queue.redis("EVAL", SNAPSHOT, 0, queue.prefix)

        with pytest.raises(StoreError, match="is no verdict"):
            await queue.upstash.run(replace(call, args=["lost" if arg == "dead" else arg for arg in call.args]))

        assert await queue.redis("EVAL", SNAPSHOT, 0, queue.prefix) == before


async def test_a_job_key_of_another_type_does_not_stop_the_rest_of_its_batch(queue: Queue) -> None:
    ids = await queue.enqueue(3)
    worker = queue.worker()
    jobs = (await worker.lease(3)).jobs
    await queue.redis("SET", f"{queue.prefix}job:{ids[0]}", "not a hash")

    await worker.settle([settled(job) for job in jobs])

    assert [await queue.state(one) for one in ids[1:]] == ["done"] * 2
    stats = await queue.results.stats()
    assert (stats.in_flight, stats.done) == (0, 3)


@pytest.mark.parametrize("stored", ["x", "1.5", "9223372036854775807"])
async def test_a_malformed_sequence_number_does_not_stop_a_requeue(queue: Queue, stored: str) -> None:
    ids = await queue.enqueue(2)
    worker = queue.worker()
    await worker.settle([settled(job, LeaseEnd.DEAD) for job in (await worker.lease(2)).jobs])
    await queue.redis("SET", f"{queue.prefix}jobs:seq", stored)
    await queue.redis("HSET", f"{queue.prefix}jobs:stats", "failed", stored)
    admin = QueueAdmin([queue.upstash], queue.settings)

    assert await admin.requeue(await admin.dead_letters()) == ["queued"] * 2

    assert await queue.waiting() == ids
    assert await queue.dead_letters() == []
