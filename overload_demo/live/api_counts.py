"""What an API's metrics tell a live view: answers that were errors, and how long acceptance has taken of late."""

from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

ANSWERS, ACCEPTANCE = "overload_http_requests_total", "overload_acceptance_seconds_bucket"
FIRST_ERROR = 429  # below it, a client was told of a mistake of its own


@dataclass(frozen=True)
class ApiCounts:
    """Counts since the API was started: error answers, and acceptances by the upper bound of their time, seconds."""

    errors: int
    within: dict[float, float]

    @classmethod
    def read(cls, text: str) -> Self:
        """From Prometheus' text format. Raises ValueError for anything else."""
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        statuses = [(one.labels["status"], one.value) for one in samples if one.name == ANSWERS]
        errors = sum(count for status, count in statuses if status.isdigit() and int(status) >= FIRST_ERROR)
        within = {float(one.labels["le"]): one.value for one in samples if one.name == ACCEPTANCE}
        return cls(int(errors), dict(sorted(within.items())))

    def p99_s(self, before: "ApiCounts") -> float | None:
        """The time within which 99 % were accepted since ``before``, evenly within a bucket; None without any.

        As Prometheus' ``histogram_quantile`` has it. None also where the API was started again in between.
        """
        since = {bound: count - before.within.get(bound, 0.0) for bound, count in self.within.items()}
        wanted = 0.99 * max(since.values(), default=0.0)
        if wanted <= 0 or min(since.values()) < 0:
            return None
        lower, below = 0.0, 0.0
        for bound, count in since.items():
            if count >= wanted:
                share = (wanted - below) / (count - below)
                return lower if bound == float("inf") else round(lower + share * (bound - lower), 4)
            lower, below = bound, count
        return None
