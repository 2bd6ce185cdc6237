"""``python -m overload_demo.worker``: one worker, one job at a time, until Ctrl-C, SIGTERM or SIGHUP."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Annotated

import typer

from overload_demo.config import load_settings
from overload_demo.console import log_to_stderr, one_line_errors, run_command
from overload_demo.process import on_stop_signals, watch_parent
from overload_demo.store.connect import open_store
from overload_demo.worker.guards import Watchdog
from overload_demo.worker.journal import WorkerMetrics, serving
from overload_demo.worker.loop import EXIT_JOB_OVERDUE, Worker

WARN_AFTER_S = 1.0
log = logging.getLogger("overload_demo.worker")


class _Shutdown:
    """Bounds the end of the process by WORKER_GRACE_S, from a stop on and again from the end of the last job on."""

    def __init__(self, worker: Worker, grace_s: float) -> None:
        self._worker, self._grace_s = worker, grace_s
        self._exit_code: int | None = None

    def stop(self) -> None:
        """Let the running job end within the grace. The others of its batch are settled or released by then."""
        self._worker.stop()
        _later(self._grace_s, self._leave)

    def work_is_over(self, exit_code: int) -> None:
        """End with this code, even if the interpreter would wait for what a handler has left running."""
        self._exit_code = exit_code
        _later(WARN_AFTER_S, self._warn)
        _later(max(self._grace_s, 2 * WARN_AFTER_S), self._leave)

    def _leave(self) -> None:
        if self._exit_code is not None:
            log.warning("WORKER_GRACE_S is over: ending without what a handler has left running: %s", _leftovers())
        elif job_id := self._worker.running_job:
            log.error("%s did not end within WORKER_GRACE_S and counts as interrupted", job_id)
        else:
            log.error("the worker did not end within WORKER_GRACE_S; jobs that are not settled run again")
        sys.stdout.flush()
        os._exit(EXIT_JOB_OVERDUE if self._exit_code is None else self._exit_code)

    def _warn(self) -> None:
        if found := _leftovers():
            log.warning("waiting up to WORKER_GRACE_S for what a handler has left running: %s", found)


def _later(seconds: float, action: Callable[[], object]) -> None:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()


def _leftovers() -> str:
    """The threads and processes that the interpreter waits for at its end."""
    main = threading.main_thread()
    found = [f"thread {one.name!r}" for one in threading.enumerate() if one is not main and not one.daemon]
    if "multiprocessing" in sys.modules:
        children = sys.modules["multiprocessing"].active_children()
        found += [f"process {one.name!r}" for one in children]
    return ", ".join(found)


def worker(
    processing_delay: Annotated[
        float | None,
        typer.Option(help="Simulated work, seconds a job.", show_default="WORKER_PROCESSING_DELAY, else 2.0"),
    ] = None,
    until_empty: Annotated[bool, typer.Option(help="End when no job is waiting or in flight.")] = False,
    parent_pipe: Annotated[bool, typer.Option(hidden=True, help="Ignore SIGINT, stop when stdin ends.")] = False,
) -> None:
    """Run jobs, one at a time, until stopped; the running one is finished, unstarted ones return to the queue.

    All settings are environment variables: WORKER_PROCESSING_DELAY (seconds, 2.0), WORKER_POLL_INTERVAL (seconds, 1.0),
    WORKER_JOB_TIMEOUT_S (seconds, 300), WORKER_HANDLER (module:function), WORKER_ID, QUEUE_RESULT_TTL (seconds, 3600),
    UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN, WORKER_METRICS_PORT (unset: no /metrics), OVERLOAD_LOG_FORMAT
    (text or json). Exit code 3: a job exceeded its time limit, or at a stop WORKER_GRACE_S (seconds, 25). A worker
    whose job blocks the interpreter is killed (SIGKILL) two seconds after these limits.
    """
    with one_line_errors():
        overrides = {} if processing_delay is None else {"worker_processing_delay": processing_delay}
        settings = load_settings(**overrides)
        log_to_stderr(settings.overload_log_format)
        watchdog, metrics = Watchdog(settings), WorkerMetrics()
        with serving(metrics, settings), open_store(settings) as store:
            one = Worker(settings, store, metrics=metrics, watchdog=watchdog)
            shutdown = _Shutdown(one, settings.worker_grace_s)
            on_stop_signals(shutdown.stop)
            if parent_pipe:
                watch_parent(shutdown.stop)
            watchdog.guard_signals()
            exit_code = 1
            try:
                one.run(until_empty=until_empty)
                exit_code = 0
            finally:
                shutdown.work_is_over(exit_code)


if __name__ == "__main__":
    run_command(worker, "python -m overload_demo.worker")
