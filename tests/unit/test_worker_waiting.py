"""How a worker waits for a failing store without flooding the store or the log."""

import logging

import pytest

from overload_demo.errors import StoreAuthError, StoreUnavailableError
from overload_demo.worker.loop import STORE_RETRY_FIRST_S, StoreTrouble


def test_each_failed_attempt_doubles_the_pause_up_to_the_longest_poll() -> None:
    trouble = StoreTrouble(longest_s=1.0)

    pauses = [trouble.met(StoreUnavailableError("gone")) for _ in range(5)]
    trouble.ended()

    assert pauses == [STORE_RETRY_FIRST_S, 2 * STORE_RETRY_FIRST_S, 1.0, 1.0, 1.0]
    assert trouble.met(StoreUnavailableError("gone")) == STORE_RETRY_FIRST_S


def test_a_reason_and_its_end_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trouble = StoreTrouble(longest_s=1.0)

    for error in (StoreAuthError("no entry"), StoreAuthError("no entry"), StoreUnavailableError("gone")):
        trouble.met(error)
    trouble.ended()
    trouble.ended()

    told = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert told == ["no entry", "gone", "the store answers again"]
