"""How a request ended, and with clients that retry: how each attempt ended, and why there was no other one."""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, model_validator

from overload_demo.load.plan import Floats

# What a load process records of a request; a result has an array of each, in the order of the schedule.
RAW = ("intended_s", "sent_s", "done_s", "status", "kind", "job_ids")
RECORD = np.dtype({"names": ["index", *RAW], "formats": ["i8", "f8", "f8", "f8", "i2", "u1", "S64"]})
ATTEMPT = np.dtype({"names": ["index", *RAW[1:]], "formats": ["i8", "f8", "f8", "i2", "u1", "S64"]})


class Kind(IntEnum):
    """How one request ended: the one list of names for load process, arrays and summary."""

    DROPPED = 0  # never sent: the cap of open sockets was reached
    ACCEPTED = 1  # the success status, and a job id; if the client waits for the result, also the result
    OTHER_STATUS = 2
    REFUSED = 3
    RESET = 4
    CONNECT_TIMEOUT = 5
    READ_TIMEOUT = 6
    DISCONNECTED = 7  # closed before the response was complete
    ADDRESS_UNAVAILABLE = 8  # this machine had no ephemeral port left
    OTHER = 9  # anything else, also success without a job id
    NO_RESULT = 10  # accepted, but the client waited for a result, and the job failed or took too long


class Ending(StrEnum):
    """Why an attempt was the last one of its request."""

    ACCEPTED = "accepted"
    EXHAUSTED = "exhausted"  # it was the last of the policy's attempts
    REFUSED_BY_BUDGET = "refused_by_budget"
    OUT_OF_PATIENCE = "out_of_patience"  # the next one would have begun too late
    NOT_REPEATABLE = "not_repeatable"  # as after a 422


class RetrySummary(BaseModel, frozen=True):
    """Every attempt accounted for. Validation fails if the counts do not add up.

    ``attempts = requests + repeats``, the sum of ``attempt_outcomes``, where "accepted" means ended with success.
    ``requests`` is also the sum of those accepted and of the four reasons to give up. ``jobs`` counts the different job
    ids that the clients were given, ``polls`` their requests for a result.
    """

    requests: int
    attempts: int
    repeats: int
    attempts_per_request: float
    attempt_outcomes: dict[str, int]
    accepted: int
    exhausted: int
    refused_by_budget: int
    out_of_patience: int
    not_repeatable: int
    jobs: int
    polls: int

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        outcomes, endings = sum(self.attempt_outcomes.values()), sum(getattr(self, ending) for ending in Ending)
        if not self.attempts == self.requests + self.repeats == outcomes:
            raise ValueError(f"{self.attempts} attempts are not {self.requests} + {self.repeats}, or not {outcomes}")
        if self.requests != endings:
            raise ValueError(f"{self.requests} requests are not the sum of their endings, {endings}")
        return self


@dataclass(frozen=True)
class Attempts:
    """All attempts of a load: arrays of shape ``(attempts,)`` in the order of their sends, seconds as in the result.

    ``index`` is the number of the request in the plan. ``endings`` counts requests by :class:`Ending`.
    """

    index: npt.NDArray[np.int64]
    sent_s: Floats
    done_s: Floats
    status: npt.NDArray[np.int16]
    kind: npt.NDArray[np.uint8]
    job_ids: npt.NDArray[np.bytes_]
    endings: dict[str, int]
    polls: int

    @classmethod
    def of(cls, records: npt.NDArray[Any], counts: npt.NDArray[Any]) -> Self:
        """Make them of records (:data:`ATTEMPT`), and of the counts of all endings and the polls."""
        records = records[np.argsort(records["sent_s"], kind="stable")]
        *endings, polls = counts.tolist()
        arrays: dict[str, Any] = {name: records[name] for name in ATTEMPT.names or ()}
        return cls(**arrays, endings=dict(zip((ending.value for ending in Ending), endings, strict=True)), polls=polls)

    def stored(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arguments of :meth:`of`, to write."""
        records = np.empty(self.index.size, ATTEMPT)
        for name in ATTEMPT.names or ():
            records[name] = getattr(self, name)
        return {"attempts": records, "retries": np.array([*self.endings.values(), self.polls])}

    @property
    def accepted_ids(self) -> list[str]:
        """The different ids of all jobs that clients were given, by the order of the requests."""
        order = np.argsort(self.index, kind="stable")
        return list(dict.fromkeys(job_id.decode() for job_id in self.job_ids[order].tolist() if job_id))

    @property
    def without_job(self) -> dict[str, int]:
        """Count the attempts that brought their client no new job, by outcome; a repeated id is ``the same job``."""
        has_job = np.char.str_len(self.job_ids) > 0
        outcomes = Counter(map(outcome_name, self.kind[~has_job].tolist(), self.status[~has_job].tolist()))
        outcomes["the same job"] = int(np.count_nonzero(has_job)) - len(self.accepted_ids)
        return {name: count for name, count in outcomes.items() if count}

    def summary(self) -> RetrySummary:
        """Count. Raises ValueError if the counts do not add up."""
        outcomes = Counter(map(outcome_name, self.kind.tolist(), self.status.tolist()))
        attempts, requests = int(self.index.size), int(np.unique(self.index).size)
        return RetrySummary(
            **self.endings,
            requests=requests,
            attempts=attempts,
            repeats=attempts - requests,
            attempts_per_request=round(attempts / requests, 3) if requests else 0.0,
            attempt_outcomes=dict(outcomes.most_common()),
            jobs=len(self.accepted_ids),
            polls=self.polls,
        )


def outcome_name(kind: int, status: int) -> str:
    """Return the name of an outcome for a reader: ``accepted``, ``status 503``, ``read timeout``."""
    return f"status {status}" if kind == Kind.OTHER_STATUS else Kind(kind).name.lower().replace("_", " ")
