"""Two handlers that charge an account, and the ledger that records each charge.

The ledger is a SQLite file beside the worker's effect log: another system, which no queue can roll back. A charge is
one transaction, committed before the slower rest of the job, so that a worker can be killed between the effect and the
moment its result is stored.

``WORKER_HANDLER=overload_demo.lab.ledger:charge`` or ``...:charge_once``.
"""

import sqlite3
from collections import Counter
from contextlib import closing
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
    """Charge ``payload["value"]``, then do the rest of the job. Not idempotent: two calls charge twice."""
    return _charged("INSERT INTO charge VALUES (?, ?)", payload, context)


def charge_once(payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    """Charge like :func:`charge`, but idempotently: the job's id is the primary key of its entry."""
    return _charged("INSERT INTO charge_once VALUES (?, ?) ON CONFLICT (job_id) DO NOTHING", payload, context)


def _charged(statement: str, payload: dict[str, Any], context: JobContext) -> dict[str, Any]:
    ledger, delay_s = _opened()
    ledger.execute(statement, (context.job_id, payload["value"]))
    return process(payload, delay_s=delay_s)


def ledger_of(effect_log: Path) -> Path:
    """Return the path of the ledger beside a worker's effect log."""
    return effect_log.with_suffix(".ledger.sqlite")


def read_charges(ledger: Path) -> Counter[str]:
    """Count the charges of each job by either handler; a missing ledger is empty."""
    if not ledger.exists():
        return Counter()
    with closing(sqlite3.connect(ledger)) as connection:
        rows = connection.execute("SELECT job_id FROM charge UNION ALL SELECT job_id FROM charge_once").fetchall()
    return Counter(job_id for (job_id,) in rows)


@lru_cache(maxsize=1)
def _opened() -> tuple[sqlite3.Connection, float]:
    """Open the ledger of this worker process, each statement a transaction; also return a job's duration, seconds."""
    settings = load_settings()
    if settings.worker_effect_log is None:
        raise ConfigurationError("WORKER_EFFECT_LOG must be set: the ledger is stored beside it")
    connection = sqlite3.connect(ledger_of(settings.worker_effect_log), isolation_level=None)
    # Without the fsync, a commit is short beside the job. It survives every kill, but not a power loss.
    connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _TABLES)
    return connection, settings.worker_processing_delay
