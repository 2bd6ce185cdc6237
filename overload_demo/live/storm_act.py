"""The act of a retry storm: a frozen store starts it, clients that retry keep it up, a retry budget ends it."""

from collections.abc import Callable

from overload_demo.lab.spike_plan import OnProgress, SpikePlan, SpikeProgress
from overload_demo.load import RetryPolicy, Shape, TokenBucket
from overload_demo.load.plan import BackoffKind, Until

WORK_S = 0.02  # chosen: some 48 jobs a second on any machine; load and polls leave most of two cores free
RATE_PER_S = 15.0  # a third of that: without repeats there is hardly a queue. Four attempts of each are above it
TIMEOUT_S = 1.0
ATTEMPTS = 4
CALM_S, FREEZE_S, OUTAGE_S, CURED_S = 6.0, 5.0, 8.0, 36.0  # chosen: the backlog needs some 20 s after the cure
LASTS_S = CALM_S + FREEZE_S + OUTAGE_S + CURED_S
RATIO = 0.1  # of repeats to requests, which many retry budgets have as their default
STORM_TITLE = f"Retry storm: {RATE_PER_S:g} requests/s, jobs of {WORK_S * 1000:g} ms,"
STORM_TITLE += f" timeout {TIMEOUT_S:g} s, {ATTEMPTS - 1} repeats"


def storm_plan(command: str) -> SpikePlan:
    """Return the load: each accepted attempt is a job of its own, and a request succeeds with a result in time."""
    clients = RetryPolicy(attempts=ATTEMPTS, backoff=BackoffKind.NONE, idempotency_key=False, until=Until.DONE)
    return SpikePlan(
        requests=round(RATE_PER_S * LASTS_S),
        rate_per_s=RATE_PER_S,
        shape=Shape.CONSTANT,
        timeout_s=TIMEOUT_S,
        retry=clients,
        baseline="none",
        command=command,
    )


class StormScript:
    """The course of the act by the clock of its load, and the budget of its clients, which allows all at first."""

    def __init__(self, show: OnProgress, freeze: Callable[[float], None], mark: Callable[[str], None]) -> None:
        self._show, self._freeze, self._mark = show, freeze, mark
        self._is_frozen = False
        self._bucket: TokenBucket | None = None

    def take(self, requests: int) -> bool:
        """Whether one more repeat may be sent (:class:`RetryBudget`)."""
        return self._bucket is None or self._bucket.take(requests)

    def follow(self, progress: SpikeProgress) -> None:
        """Show the progress; freeze the store, and switch the budget on, when it is time."""
        self._show(progress)
        elapsed_s = progress.load.elapsed_s if progress.load else 0.0
        if elapsed_s >= CALM_S and not self._is_frozen:
            self._is_frozen = True
            self._freeze(FREEZE_S)
        if elapsed_s >= CALM_S + FREEZE_S + OUTAGE_S and self._bucket is None:
            self._bucket = TokenBucket(RATIO)
            self._mark(f"retry budget {100 * RATIO:g} %")
