"""What the queue's scripts promise, as plain Python: each method does what one call must do, and returns its answer."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from overload_demo.queue.consumer import LeasedJob, Settlement, Verdict
from overload_demo.queue.producer import NewJob

CONFLICT, FULL = "conflict", "full"
ENDS_AS = {Verdict.DONE: "done", Verdict.FAILED: "failed", Verdict.DEAD: "failed", Verdict.RELEASED: "queued"}


@dataclass
class ModelJob:
    """One job; ``fence`` is that of its latest lease, 0 before the first; ``text`` its result or error."""

    new: NewJob
    seq: int
    status: str = "queued"
    attempts: int = 0
    fence: int = 0
    text: str = ""

    @property
    def is_finished(self) -> bool:
        return self.status in ("done", "failed")


@dataclass
class ModelLease:
    """A live lease; while ``is_over`` it may be taken back by whoever leases next."""

    worker: str
    fence: int
    is_over: bool = False


@dataclass
class QueueModel:
    """One queue. Commands of later versions (cancel, a deadline) become a method each, and a rule of the machine."""

    max_attempts: int = 1
    jobs: dict[str, ModelJob] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    leases: dict[str, ModelLease] = field(default_factory=dict)
    records: dict[str, NewJob] = field(default_factory=dict)
    workers: set[str] = field(default_factory=set)
    dead: list[str] = field(default_factory=list)
    counted: Counter[str] = field(default_factory=Counter)
    last_fence: int = 0

    def enqueue(self, batch: Sequence[NewJob], max_depth: int) -> list[str]:
        """For each job the id it is accepted as, CONFLICT or FULL."""
        return [self._enqueue_one(new, max_depth) for new in batch]

    def _enqueue_one(self, new: NewJob, max_depth: int) -> str:
        earlier = self.records.get(new.idem) if new.idem else None
        if new.job_id in self.jobs:
            return new.job_id
        if earlier:
            return earlier.job_id if earlier.fingerprint == new.fingerprint else CONFLICT
        if max_depth and len(self.waiting) >= max_depth:
            return FULL
        self.counted["accepted"] += 1
        self.jobs[new.job_id] = ModelJob(new, self.counted["accepted"])
        self.waiting.append(new.job_id)
        if new.idem:
            self.records[new.idem] = new
        return new.job_id

    def lease(self, worker: str, max_jobs: int, max_bytes: int, *, has_just_started: bool) -> list[LeasedJob]:
        """The jobs leased, in order; first what is over, or this worker's own from before, goes back."""
        self.workers.add(worker)
        self._take_back(
            [
                job_id
                for job_id, lease in self.leases.items()
                if lease.is_over or (has_just_started and lease.worker == worker)
            ]
        )
        chosen = self._choose(max_jobs, max_bytes)
        self.last_fence += bool(chosen)
        for job_id in chosen:
            job = self.jobs[job_id]
            job.status, job.attempts, job.fence = "processing", job.attempts + 1, self.last_fence
            self.leases[job_id] = ModelLease(worker, self.last_fence)
            self.waiting.remove(job_id)
        return [
            LeasedJob(one, self.jobs[one].new.payload, self.jobs[one].attempts, str(self.last_fence), self.idem_of(one))
            for one in chosen
        ]

    def idem_of(self, job_id: str) -> str:
        return self.jobs[job_id].new.idem

    def _take_back(self, job_ids: list[str]) -> None:
        """To the head in the order they came in, or to the dead list when their attempts are spent."""
        again = []
        for job_id in job_ids:
            del self.leases[job_id]
            job = self.jobs[job_id]
            if job.attempts >= self.max_attempts:
                self._finish(
                    job_id, "failed", f"interrupted {job.attempts} times: the worker died or the job ran too long"
                )
                self._bury(job_id)
            else:
                job.status = "queued"
                again.append(job_id)
        again.sort(key=lambda one: self.jobs[one].seq)
        self.waiting[:0] = again
        self.counted["interrupted"] += len(again)

    def _choose(self, max_jobs: int, max_bytes: int) -> list[str]:
        """From the head, within both bounds but at least one; a job that was interrupted goes alone."""
        chosen: list[str] = []
        size = 0
        for job_id in self.waiting[:max_jobs]:
            job = self.jobs[job_id]
            size += len(job.new.payload)
            if chosen and (job.attempts or size > max_bytes):
                break
            chosen.append(job_id)
            if job.attempts:
                break
        return chosen

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
        """How many were fenced. Only the present lease counts; of a repeated call all that it did before."""
        fenced = 0
        released = []
        for one in settlements:
            if not self._holds(one.job):
                fenced += not self._was_settled_so(one)
                continue
            del self.leases[one.job.job_id]
            if one.verdict is Verdict.RELEASED:
                job = self.jobs[one.job.job_id]
                job.status, job.attempts = "queued", job.attempts - 1
                released.append(one.job.job_id)
            else:
                self._finish(one.job.job_id, ENDS_AS[one.verdict], one.text)
                if one.verdict is Verdict.DEAD:
                    self._bury(one.job.job_id)
        self.waiting[:0] = released
        return fenced

    def expire(self, job_ids: Iterable[str]) -> None:
        """The time of these leases has passed; nobody has looked yet."""
        for job_id in job_ids:
            self.leases[job_id].is_over = True

    def _holds(self, job: LeasedJob) -> bool:
        lease = self.leases.get(job.job_id)
        return lease is not None and str(lease.fence) == job.fence

    def _was_settled_so(self, one: Settlement) -> bool:
        job = self.jobs[one.job.job_id]
        if str(job.fence) != one.job.fence or job.status != ENDS_AS[one.verdict]:
            return False
        return job.attempts == one.job.attempt - 1 if one.verdict is Verdict.RELEASED else job.text == one.text

    def _finish(self, job_id: str, status: str, text: str) -> None:
        job = self.jobs[job_id]
        assert not job.is_finished, "the model itself is wrong"
        job.status, job.text = status, text
        self.counted[status] += 1

    def _bury(self, job_id: str) -> None:
        self.dead.append(job_id)
        self.counted["dead"] += 1
