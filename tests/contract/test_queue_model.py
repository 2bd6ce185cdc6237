"""A hypothesis state machine over the queue's scripts: after any steps, the store equals the model.

All steps use the package's Producer, Consumer and Results with a real store. Replies are lost at random: the call is
carried out twice and the second reply counts. The store's clock cannot be moved, so a lease expires by getting an end
in the past (``Queue.expire_lease``), and a deadline by rewriting the job's ``start_by`` (``Queue.pass_deadline``).
"""

import asyncio
import json
import random
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from overload_demo.config import Settings
from overload_demo.errors import IdempotencyConflictError, QueueFullError
from overload_demo.queue import consumer, producer, protocol, results
from overload_demo.queue.consumer import Consumer, LeasedJob, LeaseEnd, Settlement
from overload_demo.queue.maintenance import QueueAdmin
from overload_demo.queue.producer import NewJob
from overload_demo.rest import Script, ScriptCall
from overload_demo.rest.client import Upstash
from overload_demo.store.connect import Store
from tests.support.queue_model import CONFLICT, FULL, QueueModel
from tests.support.queues import Queue, settled
from tests.support.running import make_settings

Value = TypeVar("Value")

WORKERS = ("a", "b", "c")
BOUND = 6  # on the depth, where there is one
SLEEP_S = 3600.0

names = st.sampled_from(WORKERS)
counts = st.integers(1, 8)
picks = st.integers(0, 1_000)
sizes = st.sampled_from([15, 120, 1_000_000, 1_000_000])
verdicts = st.lists(st.sampled_from(LeaseEnd), min_size=1, max_size=8)
owners = st.sampled_from(["", "", "me", "you"])
# A job's size in bytes, its idempotency record ("" = none), which of two bodies that was, its owner ("" = none), and
# the seconds within which it is to start.
drafts = st.tuples(
    st.sampled_from([1, 1, 10, 100]),
    st.sampled_from(["", "", "", "k1", "k2", "k3"]),
    st.sampled_from(["f1", "f2"]),
    owners,
    st.sampled_from([None, None, None, 3600, 7200.5]),
)
Draft = tuple[int, str, str, str, float | None]


class ReplyLosing(Upstash):
    """A transport that loses replies on demand: the script is carried out twice, the second reply counts."""

    loses_replies = False

    async def run(self, call: ScriptCall, **options: Any) -> Any:
        if self.loses_replies:
            await super().run(call, **options)
        return await super().run(call, **options)

    async def run_in_order(self, *calls: ScriptCall, deadline_s: float | None = None) -> list[Any]:
        if self.loses_replies:
            await super().run_in_order(*calls, deadline_s=deadline_s)
        return await super().run_in_order(*calls, deadline_s=deadline_s)


class Bench:
    """Shared by all examples: the store's connection and the event loop."""

    def __init__(self, runner: asyncio.Runner, store: Store, settings: Settings) -> None:
        self.runner, self.settings = runner, settings
        self.upstash = runner.run(self._connect(store))
        self.steps = 0

    async def _connect(self, store: Store) -> ReplyLosing:
        """Load the scripts first: an unknown script would be sent again, and with it the rest of its call."""
        upstash = ReplyLosing(store[0], timeout_s=20.0)
        for script in (
            producer.ENQUEUE,
            producer.CANCEL,
            consumer.LEASE,
            consumer.EXTEND,
            consumer.SETTLE,
            results.STATUS,
            results.STATS,
        ):
            await upstash.command("SCRIPT", "LOAD", script.text)
        return upstash

    def new_queue(self, prefix: str, **changes: Any) -> Queue:
        own = self.settings.model_copy(update={"overload_key_prefix": prefix, **changes})
        return self.do(self._queue(own))

    async def _queue(self, settings: Settings) -> Queue:
        return Queue(self.upstash, settings)

    def do(self, work: Awaitable[Value]) -> Value:
        async def awaited() -> Value:
            return await work

        return self.runner.run(awaited())


class QueueMachine(RuleBasedStateMachine):
    """Clients and workers over one queue. A new command needs a method of the model and a rule here."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench, self.do = bench, bench.do
        prefix = f"{secrets.token_hex(4)}:"
        self.queue = bench.new_queue(prefix)
        self.bounded = bench.new_queue(prefix, overload_max_queue_depth=BOUND)
        self.admin = QueueAdmin([bench.upstash], self.queue.settings)
        self.model = QueueModel(published=_published(self.do(bench.upstash.command("INFO", "commandstats"))))
        self.sent: list[NewJob] = []
        self.started = 0
        self.workers: dict[str, Consumer] = {}
        self.predecessors: dict[str, list[str]] = {name: [] for name in WORKERS}
        self.held: dict[str, list[LeasedJob]] = {name: [] for name in WORKERS}
        self.lost: list[tuple[Consumer, LeasedJob]] = []

    @initialize(
        max_attempts=st.integers(1, 3),
        crowd=st.sampled_from([*[0] * 12, 195, 200, 240]),
        is_late=st.booleans(),
        batch=st.lists(drafts, min_size=8, max_size=16),
    )
    def begin(self, max_attempts: int, crowd: int, is_late: bool, batch: list[Draft]) -> None:
        """Start with jobs, so that an example without an enqueue tests something too.

        Before them there may be about as many finished entries as a lease passes over.
        """
        self.model.max_attempts = max_attempts
        self.workers = {name: self._new_worker(name) for name in WORKERS}
        jobs = [NewJob(f"job_{number:032d}", "x", expires_in_s=3600) for number in range(10**9, 10**9 + crowd)]
        self._enqueue(jobs, False, False)
        if is_late:
            self._pass_deadlines([job.job_id for job in jobs])
        else:
            self._cancel([(job.job_id, "") for job in jobs], False)
        self._enqueue(self._new_jobs(batch), False, False)

    # ---- clients

    @rule(
        batch=st.lists(drafts, min_size=1, max_size=8),
        repeats=st.integers(0, 2),
        is_bounded=st.booleans(),
        lost=st.booleans(),
    )
    def enqueue(self, batch: list[Draft], repeats: int, is_bounded: bool, lost: bool) -> None:
        """New jobs, the first few of them twice in the same call."""
        jobs = self._new_jobs(batch)
        self._enqueue(jobs + jobs[:repeats], is_bounded, lost)

    @precondition(lambda self: self.sent)
    @rule(indices=st.lists(picks, min_size=1, max_size=4), is_bounded=st.booleans())
    def enqueue_what_was_sent_before(self, indices: list[int], is_bounded: bool) -> None:
        """A client or sender that never got a reply."""
        self._enqueue([self.sent[index % len(self.sent)] for index in indices], is_bounded, False)

    @precondition(lambda self: self.sent)
    @rule(asked=st.lists(st.tuples(picks, owners), min_size=1, max_size=6), lost=st.booleans())
    def cancel(self, asked: list[tuple[int, str]], lost: bool) -> None:
        """Jobs in any state; some were refused or belong to another owner, and some occur twice."""
        self._cancel([(self.sent[index % len(self.sent)].job_id, owner) for index, owner in asked], lost)

    @precondition(lambda self: self.model.depth)
    @rule(indices=st.lists(picks, min_size=1, max_size=3), lost=st.booleans())
    def cancel_what_waits(self, indices: list[int], lost: bool) -> None:
        waiting = [one for one in self.model.waiting if self.model.jobs[one].status == "queued"]
        self._cancel([(waiting[index % len(waiting)], "") for index in indices], lost)

    def _new_jobs(self, batch: list[Draft]) -> list[NewJob]:
        jobs = [
            NewJob(f"job_{len(self.sent) + number:032x}", "x" * size, record, body if record else "", owner, within_s)
            for number, (size, record, body, owner, within_s) in enumerate(batch)
        ]
        self.sent += jobs
        return jobs

    def _cancel(self, asked: list[tuple[str, str]], lost: bool) -> None:
        expected = self._as_often(lost, lambda: self.model.cancel(asked))
        assert self._call(lost, self._gathered([self.queue.producer.cancel(*one) for one in asked])) == expected

    def _enqueue(self, batch: list[NewJob], is_bounded: bool, lost: bool) -> None:
        expected = self._as_often(lost, lambda: self.model.enqueue(batch, BOUND if is_bounded else 0))
        queue = self.bounded if is_bounded else self.queue
        answers = self._call(lost, self._gathered([queue.producer.enqueue(job) for job in batch]))
        assert [_outcome(answer) for answer in answers] == expected

    async def _gathered(self, calls: list[Awaitable[Any]]) -> list[Any]:
        """Submit all at once, so that the producer sends them in one call."""
        return await asyncio.gather(*calls, return_exceptions=True)

    # ---- workers

    @rule(name=names, count=counts, max_bytes=sizes, lost=st.booleans(), sleeps=st.booleans())
    def lease(self, name: str, count: int, max_bytes: int, lost: bool, sleeps: bool = False) -> None:
        expected = self._lease_in_model(name, count, max_bytes, sleeps)
        lease = self._call(lost, self.workers[name].lease(count, sleeps * SLEEP_S))
        self._leased(name, lease, expected)

    @rule(name=names, keep=st.integers(0, 3), ends=verdicts, lost=st.booleans())
    def settle(self, name: str, keep: int, ends: list[LeaseEnd], lost: bool) -> None:
        settlements = self._settlements(name, keep, ends)
        expected = self._as_often(lost, lambda: self.model.settle(settlements))
        if settlements:
            assert self._call(lost, self.workers[name].settle(settlements)) == expected

    @rule(name=names, ends=verdicts, count=counts, lost=st.booleans(), sleeps=st.booleans())
    def settle_and_lease(self, name: str, ends: list[LeaseEnd], count: int, lost: bool, sleeps: bool) -> None:
        if not (settlements := self._settlements(name, 0, ends)):
            return
        fenced = self.model.settle(settlements)
        expected = self._lease_in_model(name, count, 100, sleeps)
        if lost:
            fenced = self.model.settle(settlements)
        call = self.workers[name].settle_and_lease(settlements, count, sleeps * SLEEP_S)
        answer, lease = self._call(lost, call)
        self._leased(name, lease, expected)
        assert answer == fenced

    @rule(name=names, lost=st.booleans())
    def extend(self, name: str, lost: bool) -> None:
        expected = self.model.extend(self.held[name], self.workers[name].worker_id)
        assert self._call(lost, self.workers[name].extend(self.held[name])) == expected

    @precondition(lambda self: self.lost)
    @rule(index=picks, ends=st.lists(st.sampled_from(LeaseEnd), min_size=1, max_size=3), lost=st.booleans())
    def settle_late(self, index: int, ends: list[LeaseEnd], lost: bool) -> None:
        """A late result after an expired lease: it counts until the job is leased again, never after.

        Of several, one after the other, the first counts and the others are fenced.
        """
        worker, job = self.lost[index % len(self.lost)]
        for verdict in ends:
            settlements = [_settlement(job, verdict)]
            expected = self.model.settle(settlements)
            if lost:
                expected = self.model.settle(settlements)
            assert self._call(lost, worker.settle(settlements)) == expected

    @precondition(lambda self: self.lost)
    @rule(index=picks)
    def extend_late(self, index: int) -> None:
        worker, job = self.lost[index % len(self.lost)]
        expected = self.model.extend([job], worker.worker_id)
        assert self.do(worker.extend([job])) == expected

    @rule(
        name=names,
        cleanly=st.booleans(),
        is_proved=st.booleans(),
        is_back=st.booleans(),
        count=counts,
        lost=st.booleans(),
    )
    def end(self, name: str, cleanly: bool, is_proved: bool, is_back: bool, count: int, lost: bool) -> None:
        """A clean stop releases everything. After a proved crash, the next worker of that name takes it back."""
        if cleanly:
            self._stop(name)
        self.lost += [(self.workers[name], job) for job in self.held[name]]
        self.predecessors[name] = [*self.predecessors[name], self.workers[name].worker_id] if is_proved else []
        self.workers[name], self.held[name] = self._new_worker(name), []
        if is_back:
            self.lease(name, count, 1_000_000, lost)

    @precondition(lambda self: self.model.leases)
    @rule(
        indices=st.lists(picks, min_size=1, max_size=8), are_late=st.booleans(), taker=st.none() | names, count=counts
    )
    def time_passes(self, indices: list[int], are_late: bool, taker: str | None, count: int) -> None:
        """Some leases expire, and another worker may lease the jobs at once.

        So may the time by which they were to start, but they did.
        """
        live = list(self.model.leases)
        ended = {live[index % len(live)] for index in indices}
        self.model.expire(ended)
        self.do(self.queue.expire_lease(*ended))
        if are_late:
            self._pass_deadlines([one for one in self._with_deadline() if one in ended])
        if taker:
            self.lease(taker, count, 1_000_000, False)

    @precondition(lambda self: self._with_deadline())
    @rule(indices=st.lists(picks, min_size=1, max_size=4))
    def deadlines_pass(self, indices: list[int]) -> None:
        """For jobs that wait for the first time, wait again, or run: only the first kind is late."""
        ids = self._with_deadline()
        self._pass_deadlines(sorted({ids[index % len(ids)] for index in indices}))

    def _with_deadline(self) -> list[str]:
        jobs = self.model.jobs.items()
        return [one for one, job in jobs if job.new.expires_in_s and not job.is_late and not job.is_finished]

    def _pass_deadlines(self, job_ids: list[str]) -> None:
        self.model.pass_deadlines(job_ids)
        for within_s in {self.model.jobs[one].new.expires_in_s for one in job_ids} - {None}:
            same = [one for one in job_ids if self.model.jobs[one].new.expires_in_s == within_s]
            self.do(self.queue.pass_deadline(*same, within_s=within_s))

    # ---- operators

    @precondition(lambda self: self.model.depth and not self.model.is_paused)
    @rule(name=names, count=counts, is_over_soon=st.sampled_from([True, True, True, False]), lost=st.booleans())
    def pause(self, name: str, count: int, is_over_soon: bool, lost: bool) -> None:
        """Most pauses are short, because nothing is leased in them."""
        self._pause(True, lost)
        self.lease(name, count, 1_000_000, lost)
        if is_over_soon:
            self._pause(False, lost)

    @precondition(lambda self: self.model.is_paused)
    @rule(lost=st.booleans())
    def resume(self, lost: bool) -> None:
        self._pause(False, lost)

    def _pause(self, is_paused: bool, lost: bool) -> None:
        self.model.is_paused = is_paused
        self.model.published += 0 if is_paused else 1 + lost
        self._as_often(lost, lambda: self.do(self.admin.pause() if is_paused else self.admin.resume()))

    # ---- rules of new commands go here

    # ---- helpers of the steps

    def _call(self, loses_reply: bool, work: Awaitable[Value]) -> Value:
        self.bench.upstash.loses_replies = loses_reply
        try:
            return self.do(work)
        finally:
            self.bench.upstash.loses_replies = False

    def _as_often(self, twice: bool, call: Callable[[], Value]) -> Value:
        """Call the model as often as the store; its last reply counts as well."""
        if twice:
            call()
        return call()

    def _lease_in_model(self, name: str, count: int, max_bytes: int, sleeps: bool) -> list[LeasedJob]:
        """Lease from the model; a repeated call gets the first reply again."""
        consumer.MAX_LEASE_BYTES = max_bytes  # put back by the test
        dead, self.predecessors[name] = self.predecessors[name], []
        return self.model.lease(self.workers[name].worker_id, count, max_bytes, dead, sleeps)

    def _leased(self, name: str, lease: Any, expected: list[LeasedJob]) -> None:
        assert lease.jobs == expected
        model = self.model
        assert (lease.queue_length, lease.in_flight) == (model.depth, len(model.leases))
        assert (lease.paused, lease.again) == (
            model.is_paused,
            not model.is_paused and not expected and bool(model.waiting),
        )
        self.held[name] += lease.jobs

    def _settlements(self, name: str, keep: int, ends: list[LeaseEnd]) -> list[Settlement]:
        """Settlements of a worker's jobs except the last few, which it keeps. Some leases may be lost already."""
        jobs = self.held[name]
        split = max(0, len(jobs) - keep)
        ending, self.held[name] = jobs[:split], jobs[split:]
        return [_settlement(job, ends[number % len(ends)]) for number, job in enumerate(ending)]

    def _stop(self, name: str) -> None:
        settlements = [_settlement(job, LeaseEnd.RELEASED) for job in self.held[name]]
        if settlements:
            assert self.do(self.workers[name].settle(settlements)) == self.model.settle(settlements)
        self.do(self.workers[name].leave())
        self.model.workers.discard(self.workers[name].worker_id)

    def _new_worker(self, name: str) -> Consumer:
        self.started += 1
        predecessors, attempts = self.predecessors[name], self.model.max_attempts
        return self.queue.worker(f"{name}/{self.started}", predecessors=predecessors, worker_max_attempts=attempts)

    # ---- invariants after every step

    @invariant()
    def the_store_equals_the_model(self) -> None:
        self.bench.steps += 1
        model, key = self.model, protocol.Protocol(self.queue.prefix).key
        waiting, owners, leases, dead, stats, info = self.do(
            self.bench.upstash.pipeline(
                [
                    ["LRANGE", key("queue"), 0, -1],
                    ["HGETALL", key("owners")],
                    ["ZRANGE", key("leases"), 0, -1],
                    ["LRANGE", key("dead"), 0, -1],
                    ["HGETALL", key("stats")],
                    ["INFO", "commandstats"],
                ]
            )
        )
        assert waiting == model.waiting
        assert sorted(leases) == sorted(model.leases)
        holders = {job_id: owner.split()[:2] for job_id, owner in zip(owners[::2], owners[1::2], strict=True)}
        assert holders == {one: [str(lease.fence), lease.worker] for one, lease in model.leases.items()}
        assert sorted(json.loads(letter)["job_id"] for letter in dead) == sorted(model.dead)
        counted = dict(zip(stats[::2], stats[1::2], strict=True))
        assert int(counted.get("fence", 0)) == model.last_fence
        assert int(counted.get("tombstones", 0)) == model.tombstones
        assert ("asleep" in counted, _published(info)) == (model.is_asleep, model.published)

    @invariant()
    def finished_jobs_expire_and_others_do_not(self) -> None:
        """A finished job expires with its record, unless its id is still in a list."""
        model, prefix = self.model, self.queue.prefix
        reads: list[list[Any]] = []
        for job_id, job in model.jobs.items():
            key = f"{prefix}job:{job_id}"
            record = f"{prefix}idem:{job.new.idempotency_record}" if job.new.idempotency_record else key
            reads += [["HMGET", key, "seq", "payload"], ["TTL", key], ["TTL", record]]
        answers = self.do(self.bench.upstash.pipeline(reads)) if reads else []
        for (job_id, job), (seq, payload), *ttls in zip(model.jobs.items(), *[iter(answers)] * 3, strict=True):
            assert [ttl > 0 for ttl in ttls] == [not model.is_kept(job_id)] * 2, f"{job_id} is {job.status}: {ttls}"
            if job.status == "cancelled":
                assert payload is None
                assert (seq is not None) == (job_id in model.waiting)
            else:
                assert (seq, payload) == (str(job.seq), job.new.payload)

    @invariant()
    def every_status_equals_the_model(self) -> None:
        model = self.model
        statuses = self.do(self.queue.results.statuses(list(model.jobs)))
        for (job_id, job), status in zip(model.jobs.items(), statuses, strict=True):
            assert status is not None, f"{job_id} is lost"
            assert (status.state, status.owner) == (job.status, job.new.owner)
            if job.status == "queued":
                assert status.queue_position == model.position(job_id) >= model.true_position(job_id)
            elif job.status == "done":
                assert status.result == json.loads(job.text)
            elif job.status == "failed":
                assert status.error == job.text

    @invariant()
    def the_counters_add_up(self) -> None:
        stats, model = self.do(self.queue.results.stats()), self.model
        assert (stats.queue_length, stats.in_flight) == (model.depth, len(model.leases))
        assert stats.paused == model.is_paused
        assert stats.workers_alive == len(model.workers)
        assert stats.dead_letters == len(model.dead)
        for name in ("accepted", "done", "failed", "dead", "interrupted", "cancelled", "expired"):
            assert getattr(stats, name) == model.counted[name], name
        unfinished = stats.queue_length + stats.in_flight
        assert stats.accepted == unfinished + stats.done + stats.failed + stats.cancelled

    def teardown(self) -> None:
        """Empty the store."""
        self.do(self._sweep())

    async def _sweep(self) -> None:
        names = ("queue", "seq", "leases", "owners", "workers", "stats", "dead")
        keys = [protocol.Protocol(self.queue.prefix).key(name) for name in names]
        keys += [f"{self.queue.prefix}job:{job_id}" for job_id in self.model.jobs]
        keys += [f"{self.queue.prefix}idem:{record}" for record in self.model.records]
        await self.bench.upstash.command("DEL", *keys)
        for queue in (self.queue, self.bounded):
            await queue.producer.aclose()
            await queue.results.aclose()


def _published(commandstats: str) -> int:
    """How many messages the server has published."""
    found = re.search(r"cmdstat_publish:calls=(\d+)", commandstats)
    return int(found[1]) if found else 0


def _settlement(job: LeasedJob, verdict: LeaseEnd) -> Settlement:
    return settled(job, verdict, f'"{verdict} by {job.fence}"')


def _outcome(answer: Any) -> str:
    """The outcome of an enqueue in the model's terms."""
    match answer:
        case producer.Enqueued(job_id=job_id):
            return job_id
        case IdempotencyConflictError():
            return CONFLICT
        case QueueFullError():
            return FULL
    raise answer


def run_machine(tmp_path: Path, store: Store, number: int, *, examples: int, steps: int, shrinks: bool = True) -> int:
    """Run ``examples`` of ``steps`` steps each; returns the steps made. A failure prints the seed."""
    own = make_settings(tmp_path, worker_lease_s=3600.0)
    phases = [Phase.generate, *([Phase.shrink] if shrinks else [])]
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with asyncio.Runner() as runner:
        bench = Bench(runner, store, own)
        try:
            run_state_machine_as_test(seed(number)(lambda: QueueMachine(bench)), settings=how)
        except BaseException as error:
            error.add_note(f"the machine's seed was {number}")
            raise
        finally:
            bench.do(bench.upstash.aclose())
        return bench.steps


@pytest.fixture(autouse=True)
def _bounds_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "MAX_LEASE_BYTES", consumer.MAX_LEASE_BYTES)


@pytest.mark.parametrize(
    ("number", "examples", "steps"),
    [
        pytest.param(1, 10, 50, id="short"),
        pytest.param(1, 30, 50, id="middle", marks=pytest.mark.exhaustive),
        pytest.param(None, 200, 100, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(1_800)]),
    ],
)
def test_after_random_steps_the_store_equals_the_model(
    tmp_path: Path, store: Store, number: int | None, examples: int, steps: int
) -> None:
    number = random.randrange(1 << 32) if number is None else number
    assert run_machine(tmp_path, store, number, examples=examples, steps=steps) > examples * steps / 2


# One broken line of a script each: the machine must find it.
MUTANTS = {
    "a settle without a fence": (
        "settle",
        "if owners[i] and string.match(owners[i], '^%d+') == fence then",
        "if true then",
    ),
    "a settle that reports what it did not do": ("settle", "and job[5] == text", ""),
    "an extend without a fence": ("extend", "string.match(owners[i], '^%d+') == ARGV[2 * i + 3]", "true"),
    "a release without a refund": ("settle", "tonumber(ARGV[at + 6]) - 1)\n", "tonumber(ARGV[at + 6]))\n"),
    "released jobs in reverse": ("settle", "for i = #released, 1, -1 do", "for i = 1, #released do"),
    "returned jobs in reverse": ("lease", "return a[2] > b[2]", "return a[2] < b[2]"),
    "attempts not counted": ("lease", "'attempts', entry[3], 'fence'", "'attempts', 1, 'fence'"),
    "an attempt too many": ("lease", "attempts >= most_attempts then", "attempts > most_attempts then"),
    "a poison job not alone": ("lease", "    if attempts > 0 then break end\n", ""),
    "a repeated lease call that leases more": ("lease", "if sign and string.match", "if false and string.match"),
    "a dead worker's leases that stay": ("lease", "if #dead_workers > 0 then", "if false then"),
    "a live worker's leases taken back": ("lease", "holder and is_dead[holder] and", "holder and"),
    "a dead worker that still counts": ("lease", "'', unpack(dead_workers))", "'')"),
    "cancelled entries that are never taken out": ("enqueue", "if entries > depth then", "if false then"),
    "cancelled entries without a bound": ("enqueue", "2 * bound -", "2 * math.huge -"),
    "leases that never end": (
        "lease",
        "'-inf', now, 'LIMIT', 0, MOST_TAKEN_BACK",
        "'-inf', 0, 'LIMIT', 0, MOST_TAKEN_BACK",
    ),
    "a lease of any size": ("lease", "> most_bytes) then break", "> 1e9) then break"),
    "an enqueue that is not idempotent": (
        "enqueue",
        "if in_this_call[id] or (any_known and ",
        "if false and (any_known and ",
    ),
    "a job twice in one call": ("enqueue", "if in_this_call[id] or ", "if "),
    "a bound off by one": ("enqueue", "#accepted >= room", "#accepted > room"),
    "a key for any body": ("enqueue", "earlier_fingerprint == fingerprint and", "true and"),
    "a duplicate with a sequence number": (
        "enqueue",
        "digits(last_seq + #accepted))",
        "digits(last_seq + count))",
    ),
    "a position off by one": ("status", "position = index and index + 1", "position = index and index"),
    "a position that counts what left": ("status", "length - (last_seq -", "length + 0 * (last_seq -"),
    "cancelled entries in a lease's depth": ("lease", "math.max(0, entries - tombstones)", "entries"),
    "cancelled entries in an enqueue's depth": ("enqueue", "- (count_in(measured[3]) or 0)", ""),
    "a position beyond those waiting": ("status", "math.min(position, waiting)", "position"),
    "cancelled entries that are counted for ever": ("lease", "'tombstones', -removed, ", ""),
    "a cancelled entry that expires too early": (
        "cancel",
        "redis.call('HDEL', job_key(id), 'payload')",
        "redis.call('HDEL', job_key(id), 'payload') redis.call('EXPIRE', job_key(id), 100)",
    ),
    "a cancelled job that is run": (
        "lease",
        "return fields.err and {} or fields",
        "if fields[1] == 'cancelled' then fields[1] = 'queued' end return fields.err and {} or fields",
    ),
    "a running job that is cancelled": (
        "cancel",
        "if state == 'queued' then",
        "if state == 'queued' or state == 'processing' then",
    ),
    "a cancel for any owner": ("cancel", "if owner ~= '' and job[2] ~= owner then", "if false then"),
    "a late job that is run": ("lease", "and is_late(fields[6])", "and false"),
    "an interrupted job that is too late": ("lease", "and attempts == 0 and is_late", "and is_late"),
    "a late job that is kept for ever": ("lease", "  expire_job(id, ttl, fields[4])\n", ""),
    "a pause without effect": ("lease", "control[2] == '1'", "false"),
    "a lease that passes over any number": ("lease", "or looked_at >= MOST_PASSED_OVER", ""),
    "an enqueue that does not publish": ("enqueue", "if measured[4] then wake(KEYS[3]) end", ""),
    "a release that does not publish": ("settle", "if #released > 0 then wake(KEYS[5]) end", ""),
    "a wake-up whose mark stays": ("enqueue", "redis.call('HDEL', stats, 'asleep') == 1", "true"),
    "a sleep without a mark": ("lease", "redis.call('HSET', KEYS[5], 'asleep', 1)", ""),
}
CHEAP = {
    "a settle without a fence",
    "a position off by one",
    "an enqueue that is not idempotent",
    "an enqueue that does not publish",
    "a cancelled job that is run",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.exhaustive if one in CHEAP else pytest.mark.slow) for one in MUTANTS],
)
def test_the_model_finds(name: str, tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    script_name, line, broken = MUTANTS[name]
    original: Script = getattr(protocol, script_name.upper())
    assert line in original.text, f"{script_name}.lua has changed: this mutant does nothing"
    mutant = Script(script_name, original.text.replace(line, broken))
    monkeypatch.setitem(protocol._KEYS, mutant, protocol._KEYS[original])
    for module in (consumer, producer, results):
        if getattr(module, script_name.upper(), None) is original:
            monkeypatch.setattr(module, script_name.upper(), mutant)

    with pytest.raises(AssertionError):
        run_machine(tmp_path, store, 1, examples=200, steps=50, shrinks=False)
