"""The lease renewer's thread: a close does not interrupt a settlement that is under way."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from overload_demo.queue.consumer import Consumer, Lease, LeasedJob, LeaseEnd, Settlement
from overload_demo.store.connect import Store
from overload_demo.worker.guards import Identity
from overload_demo.worker.journal import WorkerMetrics
from overload_demo.worker.lease_renewer import LeaseRenewer
from tests.support.running import make_settings

JOB = LeasedJob("job_1", "{}", 1, "1", "")


def test_a_close_waits_for_the_settlement_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    is_settling, settled = threading.Event(), []

    async def lease(*_: Any) -> Lease:
        return Lease([JOB], 0, 1)

    async def settle(_: Consumer, settlements: Sequence[Settlement]) -> int:
        is_settling.set()
        await asyncio.sleep(0.3)
        settled.extend(one.job.job_id for one in settlements)
        return 0

    monkeypatch.setattr(Consumer, "lease", lease)
    monkeypatch.setattr(Consumer, "settle", settle)
    renewer = LeaseRenewer(
        make_settings(tmp_path),
        store,
        Identity("name", "name/0123456789abcdef"),
        WorkerMetrics(),
        on_overdue=lambda _: None,
        on_lost=lambda _: None,
    )
    renewer.fetch()
    assert renewer.take() == JOB
    renewer.finish(Settlement(JOB, LeaseEnd.DONE, "{}"))
    assert is_settling.wait(5.0)

    renewer.close()

    assert settled == ["job_1"]
