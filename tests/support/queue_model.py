"""The promises of the queue's scripts as plain Python: each method does what one call must do and returns its reply."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from overload_demo.queue.consumer import LeasedJob, LeaseEnd, Settlement
from overload_demo.queue.producer import NewJob

CONFLICT, FULL = "conflict", "full"
MOST_PASSED_OVER = 200  # finished entries in one lease call; the page that reaches it is still read whole
ENDS_AS = {LeaseEnd.DONE: "done", LeaseEnd.FAILED: "failed", LeaseEnd.DEAD: "failed", LeaseEnd.RELEASED: "queued"}


@dataclass
class ModelJob:
    """One job; ``fence`` is that of its latest lease, 0 before the first; ``text`` its result or error.

    ``is_late`` once its deadline has passed, even if the deadline no longer applies.
    """

    new: NewJob
    seq: int
    status: str = "queued"
    attempts: int = 0
    fence: int = 0
    text: str = ""
    is_late: bool = False

    @property
    def is_finished(self) -> bool:
        return self.status in ("done", "failed", "cancelled")


@dataclass
class ModelLease:
    """A live lease; while ``is_over`` the next lease call may take it back."""

    worker: str
    fence: int
    is_over: bool = False


@dataclass
class QueueModel:
    """One queue. A new command becomes a method here and a rule of the machine.

    ``waiting`` is the list in the store, cancelled entries included. ``published`` counts the wake-ups.
    """

    max_attempts: int = 1
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    leases: dict[str, ModelLease] = field(default_factory=dict)
    records: dict[str, NewJob] = field(default_factory=dict)
    workers: set[str] = field(default_factory=set)
    dead: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    last_fence: int = 0
    is_paused: bool = False
    is_asleep: bool = False
    published: int = 0

    @property
    def tombstones(self) -> int:
        return sum(self.jobs[one].status == "cancelled" for one in self.waiting)

    @property
    def depth(self) -> int:
        """Waiting jobs; a late one waits until a lease reaches it."""
        return len(self.waiting) - self.tombstones

    def position(self, job_id: str) -> int:
        """The reported position of a waiting job: its place in the list, at most the number of waiting jobs."""
        return min(self.waiting.index(job_id) + 1, self.depth)

    def true_position(self, job_id: str) -> int:
        """The number of waiting jobs up to this one, itself included."""
        before = self.waiting[: self.waiting.index(job_id)]
        return 1 + sum(self.jobs[one].status != "cancelled" for one in before)

    def is_kept(self, job_id: str) -> bool:
        """Whether a job has no TTL: it is not finished, or still in a list."""
        return not self.jobs[job_id].is_finished or job_id in self.waiting or job_id in self.dead

    def enqueue(self, batch: Sequence[NewJob], max_depth: int) -> list[str]:
        """For each job the id it is accepted as, CONFLICT or FULL."""
        self._take_out_cancelled()
        before = self.counted["accepted"]
        outcomes = [self._enqueue_one(new, max_depth) for new in batch]
        if self.counted["accepted"] > before:
            self._wake()
        return outcomes

    def _wake(self) -> None:
        self.published += self.is_asleep
        self.is_asleep = False

    def _take_out_cancelled(self) -> None:
        """The ids at the head, at most ``count``."""
        for _ in range(MOST_PASSED_OVER):
            if self.waiting and self.jobs[self.waiting[0]].status == "cancelled":
                self.waiting.pop(0)

    def _enqueue_one(self, new: NewJob, max_depth: int) -> str:
        earlier = self.records.get(new.idempotency_record) if new.idempotency_record else None
        if new.job_id in self.jobs:
            return new.job_id
        if earlier:
            return earlier.job_id if earlier.fingerprint == new.fingerprint else CONFLICT
        if max_depth and (self.depth >= max_depth or len(self.waiting) >= 2 * max_depth):
            return FULL
        self.counted["accepted"] += 1
        self.jobs[new.job_id] = ModelJob(new, self.counted["accepted"])
        self.waiting.append(new.job_id)
        if new.idempotency_record:
            self.records[new.idempotency_record] = new
        return new.job_id

    def lease(
        self, worker: str, max_jobs: int, max_bytes: int, dead: Collection[str] = (), sleeps: bool = False
    ) -> list[LeasedJob]:
        """The jobs leased, in order, after expired leases and those of ``dead`` workers have returned."""
        self.workers.add(worker)
        self.workers.difference_update(dead)
        self._take_back([one for one, lease in self.leases.items() if lease.is_over or lease.worker in dead])
        chosen = self._choose(max_jobs, max_bytes)
        self.last_fence += bool(chosen)
        for job_id in chosen:
            job = self.jobs[job_id]
            job.status, job.attempts, job.fence = "processing", job.attempts + 1, self.last_fence
            self.leases[job_id] = ModelLease(worker, self.last_fence)
        if self.depth and not self.is_paused:
            self._wake()
        self.is_asleep |= sleeps and not chosen and not self.waiting and not self.is_paused
        return [
            LeasedJob(
                one,
                self.jobs[one].new.payload,
                self.jobs[one].attempts,
                str(self.last_fence),
                self.idempotency_record_of(one),
            )
            for one in chosen
        ]

    def idempotency_record_of(self, job_id: str) -> str:
        return self.jobs[job_id].new.idempotency_record

    def _take_back(self, job_ids: list[str]) -> None:
        """To the head in their old order, or to the dead letters when no attempts are left."""
        again = []
        for job_id in job_ids:
            del self.leases[job_id]
            job = self.jobs[job_id]
            if job.attempts >= self.max_attempts:
                self._finish(
                    job_id, "failed", f"interrupted {job.attempts} times: the worker died or the job ran too long"
                )
                self._add_dead_letter(job_id)
            else:
                job.status = "queued"
                again.append(job_id)
        again.sort(key=lambda one: self.jobs[one].seq)
        self.waiting[:0] = again
        self.counted["interrupted"] += len(again)

    def _choose(self, max_jobs: int, max_bytes: int) -> list[str]:
        """Taken from the head, page by page until there is a job; nothing while paused."""
        chosen: list[str] = []
        passed_over = 0
        while self.waiting and not self.is_paused and not chosen and passed_over < MOST_PASSED_OVER:
            passed_over += self._choose_from(self.waiting[:max_jobs], max_bytes, chosen)
        return chosen

    def _choose_from(self, portion: list[str], max_bytes: int, chosen: list[str]) -> int:
        """Within both bounds but at least one job; an interrupted one alone. Returns how many ids left the list."""
        size = 0
        for index, job_id in enumerate(portion):
            job = self.jobs[job_id]
            size += 0 if job.status == "cancelled" else len(job.new.payload)
            if chosen and (job.attempts or size > max_bytes):
                return index
            self.waiting.pop(0)
            if job.status == "cancelled":
                continue
            if job.is_late and not job.attempts:
                self._finish(job_id, "failed", f"expired: not started within {job.new.expires_in_s!r} s")
                self.counted["expired"] += 1
                size -= len(job.new.payload)
            else:
                chosen.append(job_id)
                if job.attempts:
                    return index + 1
        return len(portion)

    def extend(self, jobs: Iterable[LeasedJob], worker: str) -> set[str]:
        """The ids whose lease is lost."""
        self.workers.add(worker)
        lost = set()
        for job in jobs:
            if self._holds(job):
                self.leases[job.job_id].is_over = False
            else:
                lost.add(job.job_id)
        return lost

    def settle(self, settlements: Sequence[Settlement]) -> int:
        """How many were fenced. Only the present lease counts; a repeated call reports what it did before."""
        fenced = 0
        released = []
        for one in settlements:
            if not self._holds(one.job):
                fenced += not self._was_settled_so(one)
                continue
            del self.leases[one.job.job_id]
            if one.end is LeaseEnd.RELEASED:
                job = self.jobs[one.job.job_id]
                job.status, job.attempts = "queued", job.attempts - 1
                released.append(one.job.job_id)
            else:
                self._finish(one.job.job_id, ENDS_AS[one.end], one.text)
                if one.end is LeaseEnd.DEAD:
                    self._add_dead_letter(one.job.job_id)
        self.waiting[:0] = released
        if released:
            self._wake()
        return fenced

    def expire(self, job_ids: Iterable[str]) -> None:
        """These leases have expired; no call has noticed yet."""
        for job_id in job_ids:
            self.leases[job_id].is_over = True

    def pass_deadlines(self, job_ids: Iterable[str]) -> None:
        """The deadlines of these jobs have passed; no call has noticed yet."""
        for job_id in job_ids:
            self.jobs[job_id].is_late = True

    def cancel(self, asked: Sequence[tuple[str, str]]) -> list[str | None]:
        """For each job and requesting owner ("" = any) its state afterwards; None if unknown or of another owner."""
        return [self._cancel_one(*one) for one in asked]

    def _cancel_one(self, job_id: str, owner: str) -> str | None:
        job = self.jobs.get(job_id)
        if not job or (owner and job.new.owner != owner):
            return None
        if job.status == "queued":
            self._finish(job_id, "cancelled", "")
        return job.status

    def _holds(self, job: LeasedJob) -> bool:
        lease = self.leases.get(job.job_id)
        return lease is not None and str(lease.fence) == job.fence

    def _was_settled_so(self, one: Settlement) -> bool:
        job = self.jobs[one.job.job_id]
        if str(job.fence) != one.job.fence or job.status != ENDS_AS[one.end]:
            return False
        return job.attempts == one.job.attempt - 1 if one.end is LeaseEnd.RELEASED else job.text == one.text

    def _finish(self, job_id: str, status: str, text: str) -> None:
        job = self.jobs[job_id]
        assert not job.is_finished, "the model is wrong"
        job.status, job.text = status, text
        self.counted[status] += 1

    def _add_dead_letter(self, job_id: str) -> None:
        self.dead.append(job_id)
        self.counted["dead"] += 1
