"""Every error the package raises on purpose; each carries whether its effect may have happened."""

from enum import StrEnum


class Outcome(StrEnum):
    """What the caller of a failed operation may assume about its effect.

    ``NOT_ENQUEUED``: it did not happen and never will. ``UNKNOWN``: it may have happened, so the caller must check
    before it repeats anything that is not idempotent.
    """

    NOT_ENQUEUED = "not_enqueued"
    UNKNOWN = "unknown"


class OverloadDemoError(Exception):
    """The base of all errors raised on purpose; its text is one line and never contains a secret."""

    outcome: Outcome = Outcome.NOT_ENQUEUED


class ConfigurationError(OverloadDemoError):
    """A setting, argument or environment is wrong; nothing was started."""


class StoreError(OverloadDemoError):
    """The store did not confirm a request; ``outcome`` is whether it may have carried it out."""

    def __init__(self, message: str, outcome: Outcome = Outcome.NOT_ENQUEUED) -> None:
        super().__init__(message)
        self.outcome = outcome


class StoreUnavailableError(StoreError):
    """No usable reply came from the store: refused, timed out, cut off, garbage, 5xx."""


class StoreAuthError(StoreError):
    """The store refused the token (401, WRONGPASS, NOPERM)."""


class StoreFullError(StoreError):
    """The store is full: writes are refused, reads and draining go on."""


class StoreQuotaError(StoreError):
    """The monthly command quota is used up, until upgrade or reset."""


class StoreRefusedError(StoreError):
    """The store replied with another error to the command (syntax, type, limits)."""


class QueueFullError(OverloadDemoError):
    """A configured bound on depth or waiting time refused the job; nothing was enqueued."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IdempotencyConflictError(OverloadDemoError):
    """The Idempotency-Key was used before with another body; nothing was enqueued."""
