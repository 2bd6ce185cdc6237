"""How a worker waits for a failing store without flooding the store or the log."""

import logging
from pathlib import Path
from typing import Any

import pytest

from overload_demo.errors import StoreAuthError, StoreError, StoreUnavailableError
from overload_demo.queue.consumer import Lease
from overload_demo.store.connect import Store
from overload_demo.worker.job_source import Backoff
from overload_demo.worker.loop import Worker
from tests.support.running import make_settings

PAUSED, RESUMED = Lease([], 1, 0, paused=True), Lease([], 0, 0)


def test_each_pause_doubles_up_to_the_longest_and_a_success_resets_it() -> None:
    retry = Backoff(0.25, 1.0, 2.0)

    pauses = [retry.next_s() for _ in range(5)]
    retry.reset()

    assert pauses == [0.25, 0.5, 1.0, 1.0, 1.0]
    assert retry.next_s() == 0.25


class ScriptedRenewer:
    """In the place of the lease renewer: each fetch raises or returns the next of these."""

    script: list[StoreError | Lease]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def fetch(self) -> Lease:
        step = self.script.pop(0)
        if isinstance(step, StoreError):
            raise step
        return step

    def take(self) -> None: ...

    def close(self) -> None: ...


def test_a_reason_a_recovery_and_a_pause_are_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("overload_demo.worker.loop.LeaseRenewer", ScriptedRenewer)
    monkeypatch.setattr("overload_demo.worker.loop.STORE_RETRY_FIRST_S", 0.001)
    denied, gone = StoreAuthError("no entry"), StoreUnavailableError("gone")
    ScriptedRenewer.script = [denied, denied, gone, PAUSED, gone, PAUSED, RESUMED]

    Worker(make_settings(tmp_path), store).run(until_empty=True)

    assert [line for line in caplog.messages if not line.startswith("worker ")] == [
        "store request failed, retrying: no entry",
        "store request failed, retrying: gone",
        "the store answers again",
        "the queue is paused, waiting",
        "store request failed, retrying: gone",
        "the store answers again",
        "the queue is resumed",
    ]
