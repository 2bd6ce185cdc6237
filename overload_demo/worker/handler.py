"""The handler: the function that runs a job, found by WORKER_HANDLER, and how it is called."""

import asyncio
import contextlib
import importlib
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overload_demo.config import Settings
from overload_demo.console import one_line
from overload_demo.errors import ConfigurationError
from overload_demo.work import Slot, process
from overload_demo.worker.journal import describe

log = logging.getLogger("overload_demo.worker")

CANCEL_WITHIN_S = 1.0


@dataclass(frozen=True)
class JobContext:
    """What an idempotent handler needs: after a crash the same ``job_id`` comes again with a higher ``attempt``."""

    job_id: str
    attempt: int


Handler = Callable[[dict[str, Any], JobContext], Any]


def load_handler(settings: Settings, runner: "AsyncRunner") -> Handler:
    """Return the handler: the demo job, or ``WORKER_HANDLER=module:function``, sync or async.

    A handler takes the payload (a dict) and, in a parameter named ``context`` or annotated with it, the
    :class:`JobContext`; what it returns must be JSON. ``module:Class.method`` is a method of one instance, made without
    arguments. Async ones run on ``runner``. Raises :class:`ConfigurationError` if there is no such function.
    """
    if settings.worker_handler is None:
        slot, delay_s = Slot(), settings.worker_processing_delay
        return lambda payload, _: process(payload, delay_s=delay_s, slot=slot)
    with contextlib.suppress(FileNotFoundError):  # a working directory that was removed
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # last: a queue.py there must not shadow the standard library's
    try:
        call = _adapted(_find(settings.worker_handler))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may even exit while it is imported
        reason = one_line(describe(error))
        raise ConfigurationError(f"WORKER_HANDLER: cannot load {settings.worker_handler!r}: {reason}") from None

    def handle(payload: dict[str, Any], context: JobContext) -> Any:
        result = call(payload, context)
        return runner.run(result) if inspect.iscoroutine(result) else result

    return handle


def _find(name: str) -> Callable[..., Any]:
    """The callable that ``module:function`` or ``module:Class.method`` names."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise ValueError("it must look like module:function")
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        owner, found = found, getattr(found, part)
        if inspect.isclass(owner) and inspect.isfunction(inspect.getattr_static(owner, part)):
            found = getattr(owner(), part)
    if not callable(found):
        raise TypeError(f"it is of type {type(found).__name__}, which cannot be called")
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise TypeError("it is a generator function; a handler returns its result")
    return found  # type: ignore[no-any-return]


def _adapted(function: Callable[..., Any]) -> Handler:
    """Return ``function`` with the signature of a handler. Raises TypeError if it takes other arguments."""
    signature = inspect.signature(function)
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    others = [one for one in list(signature.parameters.values())[1:] if one.kind not in variable]
    wanted = next((one for one in others if one.name == "context" or "JobContext" in str(one.annotation)), None)

    def with_context(call: Callable[..., Any]) -> Handler:
        if wanted is None:
            return lambda payload, _: call(payload)
        if wanted.kind is inspect.Parameter.POSITIONAL_ONLY:
            return call
        return lambda payload, context: call(payload, **{wanted.name: context})

    try:
        with_context(signature.bind)({}, JobContext("", 0))
    except TypeError as error:
        accepted = "a handler takes the payload and optionally a JobContext as `context`"
        raise TypeError(f"{error} in {signature}: {accepted}") from None
    return with_context(function)


class AsyncRunner:
    """One event loop for all async handlers, created by the first of them."""

    _runner: asyncio.Runner | None = None

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine to its end and return the result."""
        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(coroutine)

    def close(self) -> None:
        """Cancel the tasks that handlers have left running; the next :meth:`run` starts a new loop.

        A task that is still running a second after its cancellation is logged and abandoned.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            return
        loop = runner.get_loop()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        uncancelled = _wait(loop, tasks) or _wait(loop, {loop.create_task(loop.shutdown_asyncgens())})
        for task in uncancelled:
            log.warning("abandoning a task that the handler has left and that ignores its cancellation: %r", task)
        if not uncancelled:
            loop.close()  # not runner.close(), which waits for the threads of asyncio.to_thread without a bound


def _wait(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Run tasks for up to a second; returns those that have not ended."""
    return loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_WITHIN_S))[1] if tasks else tasks


def end_forked_child(worker_pid: int, error: BaseException | None) -> None:
    """End a forked child in which the handler has returned or raised ``error``; the jobs belong to the parent."""
    if os.getpid() == worker_pid:
        return
    status = 1
    try:
        if error is None or isinstance(error, SystemExit):
            code: object = None if error is None else error.code
            if code is None or isinstance(code, int):
                status = (code or 0) & 0xFF
            else:
                sys.stderr.write(f"{code}\n")  # as the interpreter does
        else:
            traceback.print_exception(error)
        sys.stdout.flush()
    finally:
        os._exit(status)
