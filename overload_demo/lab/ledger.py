"""Two handlers that charge an account, and the ledger that tells afterwards who was charged how often.

The ledger is a SQLite file beside the worker's effect log: another system, with a memory of its own, that no queue can
roll back. A charge is one transaction, written before the slower rest of the job, so that a worker can be killed
between the effect and the moment its result is stored. A kill -9 does not undo what was committed.

``WORKER_HANDLER=overload_demo.lab.ledger:charge`` or ``...:charge_once``.
"""

import sqlite3
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

from overload_demo.config import load_settings
from overload_demo.errors import ConfigurationError
from overload_demo.work import process
from overload_demo.worker import JobContext

_TABLES = """
    CREATE TABLE IF NOT EXISTS charge (job_id TEXT, amount REAL);
    CREATE TABLE IF NOT EXISTS charge_once (job_id TEXT PRIMARY KEY, amount REAL) WITHOUT ROWID;
"""


def charge(payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Charge ``payload["value"]``, then do the rest of the job. Not idempotent: called twice, it charges twice."""
    ledger, delay_s = _opened()
    ledger.execute("INSERT INTO charge VALUES (?, ?)", (context.job_id, payload["value"]))
    return process(payload, delay_s=delay_s)


def charge_once(payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """The same, idempotent: the job's id is the key of its entry, and one statement looks and writes."""
    ledger, delay_s = _opened()
    ledger.execute(
        "INSERT INTO charge_once VALUES (?, ?) ON CONFLICT (job_id) DO NOTHING", (context.job_id, payload["value"])
    )
    return process(payload, delay_s=delay_s)


def ledger_of(effect_log: Path) -> Path:
    """Where the ledger lies that belongs to a worker's effect log."""
    return effect_log.with_suffix(".ledger.sqlite")


def read_charges(ledger: Path) -> Counter[str]:
    """How often each job was charged, by either handler; no ledger is an empty one."""
    if not ledger.exists():
        return Counter()
    connection = sqlite3.connect(ledger)
    try:
        rows = connection.execute("SELECT job_id FROM charge UNION ALL SELECT job_id FROM charge_once").fetchall()
    finally:
        connection.close()
    return Counter(job_id for (job_id,) in rows)


@lru_cache(maxsize=1)
def _opened() -> tuple[sqlite3.Connection, float]:
    """The ledger of this worker process, each statement a transaction, and the seconds a job takes besides."""
    settings = load_settings()
    if settings.worker_effect_log is None:
        raise ConfigurationError("WORKER_EFFECT_LOG: the ledger lies beside it, so it must be set")
    connection = sqlite3.connect(ledger_of(settings.worker_effect_log), isolation_level=None)
    # In the file once committed, whoever is killed; only a power loss could still take it. Not waiting for the disk
    # keeps the effect short beside the job.
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _TABLES)
    return connection, settings.worker_processing_delay
