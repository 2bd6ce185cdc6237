"""``python -m overload_demo.worker``: one worker, one job at a time, until Ctrl-C or SIGTERM."""

import logging
import os
import threading
from functools import partial
from typing import Annotated

import typer

from overload_demo.children import watch_parent
from overload_demo.config import load_settings
from overload_demo.doors import on_stop_signals, one_line_errors, run_command
from overload_demo.logs import log_to_stderr
from overload_demo.queue.consumer import LeasedJob, about
from overload_demo.store.opening import open_store
from overload_demo.worker.loop import Worker
from overload_demo.worker.metrics import WorkerMetrics, serving

EXIT_JOB_OVERDUE = 3
log = logging.getLogger("overload_demo.worker")


def _give_up(job: LeasedJob) -> None:
    """The running job cannot be stopped from outside; the process can. Its lease expires or is reclaimed."""
    what = "%s has run over WORKER_JOB_TIMEOUT_S; this worker ends and the job counts as interrupted"
    log.error(what, job.job_id, extra=about(job))
    os._exit(EXIT_JOB_OVERDUE)


def _stop(one: Worker, grace_s: float) -> None:
    """Let the running job end, but not for ever. By then the others of its batch are settled or given back."""

    def leave() -> None:
        log.error("the running job did not end within WORKER_GRACE_S and counts as interrupted")
        os._exit(EXIT_JOB_OVERDUE)

    one.stop()
    patience = threading.Timer(grace_s, leave)
    patience.daemon = True
    patience.start()


def worker(
    processing_delay: Annotated[
        float | None,
        typer.Option(help="Simulated work, seconds a job.", show_default="WORKER_PROCESSING_DELAY, else 2.0"),
    ] = None,
    until_empty: Annotated[bool, typer.Option(help="End when nothing is waiting or in flight.")] = False,
    parent_pipe: Annotated[bool, typer.Option(hidden=True, help="Ignore SIGINT, stop when stdin ends.")] = False,
) -> None:
    """Do jobs, one at a time, until stopped; the running one is finished, unstarted ones go back to the queue.

    All settings are environment variables: WORKER_PROCESSING_DELAY (seconds, 2.0), WORKER_POLL_INTERVAL (seconds, 1.0),
    WORKER_JOB_TIMEOUT_S (seconds, 300), WORKER_HANDLER (module:function), WORKER_ID, QUEUE_RESULT_TTL (seconds, 3600),
    UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN, WORKER_METRICS_PORT (unset: no /metrics), OVERLOAD_LOG_FORMAT
    (text or json). Exit code 3: a job
    ran over its time limit, or at a stop over WORKER_GRACE_S (seconds, 25).
    """
    with one_line_errors():
        overrides = {} if processing_delay is None else {"worker_processing_delay": processing_delay}
        settings = load_settings(**overrides)
        log_to_stderr(settings.overload_log_format)
        metrics = WorkerMetrics()
        with serving(metrics, settings), open_store(settings) as (address, refresh):
            one = Worker(settings, address, refresh, metrics=metrics, on_overdue=_give_up)
            stop = partial(_stop, one, settings.worker_grace_s)
            on_stop_signals(stop)
            if parent_pipe:
                watch_parent(stop)
            one.run(until_empty=until_empty)


if __name__ == "__main__":
    run_command(worker, "python -m overload_demo.worker")
