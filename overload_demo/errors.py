"""Every error the package raises on purpose, in one tree, each saying whether its effect may have happened.

::

    OverloadDemoError
    ├── ConfigurationError          a setting, argument or environment is wrong; nothing was started
    ├── StoreError                  the store did not do what was asked
    │   ├── StoreUnavailableError   no usable answer: refused, timed out, garbage, 5xx
    │   ├── StoreAuthError          the store refused our token
    │   ├── StoreFullError          the store has no room for another write
    │   ├── StoreQuotaError         the month's commands are used up
    │   └── StoreRefusedError       the store answered with an error of its own
    ├── QueueFullError              a configured bound refused the job
    └── IdempotencyConflictError    the same Idempotency-Key came with another body

``outcome`` follows Maelstrom's definite/indefinite errors: ``NOT_ENQUEUED`` means the effect did not happen and never
will; ``UNKNOWN`` means it may have happened, so the caller must look before it repeats anything that is not idempotent.
"""

from enum import StrEnum


class Outcome(StrEnum):
    """What the caller of a failed operation may assume about its effect."""

    NOT_ENQUEUED = "not_enqueued"
    UNKNOWN = "unknown"


class OverloadDemoError(Exception):
    """Base of all errors raised on purpose; its text is one line and never holds a secret."""

    outcome: Outcome = Outcome.NOT_ENQUEUED


class ConfigurationError(OverloadDemoError):
    """A setting, an argument or the environment is wrong; nothing was started."""


class StoreError(OverloadDemoError):
    """The store did not do what was asked; ``outcome`` tells whether it may have."""

    def __init__(self, message: str, outcome: Outcome = Outcome.NOT_ENQUEUED) -> None:
        super().__init__(message)
        self.outcome = outcome


class StoreUnavailableError(StoreError):
    """No usable answer came from the store (refused, timed out, cut off, garbage, 5xx)."""


class StoreAuthError(StoreError):
    """The store refused our token (401, WRONGPASS, NOPERM)."""


class StoreFullError(StoreError):
    """The store has no room: writes are refused, reads and draining go on."""


class StoreQuotaError(StoreError):
    """The database's commands of this month are used up: nothing is carried out until it is paid or over."""


class StoreRefusedError(StoreError):
    """The store answered the command with an error of its own (syntax, type, limits)."""


class QueueFullError(OverloadDemoError):
    """A configured bound on depth or waiting time refused the job; nothing was enqueued."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class IdempotencyConflictError(OverloadDemoError):
    """The Idempotency-Key was used before with another body; nothing was enqueued."""
