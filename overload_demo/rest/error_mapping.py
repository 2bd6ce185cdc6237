"""What an answer of the store means that is no result: which typed error, and whether anything was done."""

from typing import Any

from overload_demo.errors import (
    Outcome,
    StoreAuthError,
    StoreError,
    StoreFullError,
    StoreQuotaError,
    StoreRefusedError,
    StoreUnavailableError,
)

# Starts of error texts that mean "nothing was done, and later it may well work".
_NOT_NOW = ("LOADING", "BUSY", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF")
_NO_ACCESS = ("WRONGPASS", "NOAUTH")


def error_in(status: int, body: Any, *, scripted: bool = False) -> StoreError:
    """The typed error for an answer that is not a result.

    ``scripted``: an error in the middle of a script leaves open what it had done before, so its outcome is unknown.
    """
    text = body.get("error") if isinstance(body, dict) else None
    if status == 401:
        return StoreAuthError("the store refused the token (401): check UPSTASH_REDIS_REST_TOKEN")
    if status == 413:  # refused for its size before anything ran; the same text with a 200 is about the reply's
        return StoreRefusedError(f"the store refused the request as too large: {str(text)[:200]}")
    if not isinstance(text, str):
        return StoreUnavailableError(f"the store answered {status} in an unexpected form", Outcome.UNKNOWN)
    if status >= 500 or status == 429:
        # our own gateway says so when it had no server to send the command to
        outcome = Outcome.NOT_ENQUEUED if status == 503 and "nothing was done" in text else Outcome.UNKNOWN
        return StoreUnavailableError(f"the store answered {status}: {text[:200]}", outcome)
    if text.startswith("NOPERM"):
        return StoreAuthError("the store's token does not allow this (NOPERM): is it the read-only one?")
    if text.startswith(_NO_ACCESS):
        return StoreAuthError(f"the store refused the token: {text.split(' ', 1)[0]}")
    if "OOM command" in text or "capacity quota exceeded" in text:
        return StoreFullError("the store is full: it refuses writes until jobs are drained")
    if "max requests limit" in text:  # its numbers change with every attempt; a reason that stays is told once
        return StoreQuotaError("the database's commands of this month are used up (max requests limit exceeded)")
    if text.startswith(_NOT_NOW):
        return StoreUnavailableError(f"the store is not ready: {text[:200]}")
    definite = not scripted or text.startswith("NOSCRIPT")
    outcome = Outcome.NOT_ENQUEUED if definite else Outcome.UNKNOWN
    return StoreRefusedError(f"the store refused the command: {text[:200]}", outcome)
