"""Which function does a job, and how it is called."""

import asyncio
import contextlib
import importlib
import inspect
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overload_demo.config import Settings
from overload_demo.errors import ConfigurationError
from overload_demo.logs import one_line
from overload_demo.work import Slot, process
from overload_demo.worker.journal import describe

log = logging.getLogger("overload_demo.worker")

CANCEL_WITHIN_S = 1.0
_ACCEPTED = "a handler takes the payload and, if it wants it, a JobContext as `context`"


@dataclass(frozen=True)
class JobContext:
    """What a handler may need to be idempotent: the same ``job_id`` comes again after a crash, with a later attempt."""

    job_id: str
    attempt: int


Handler = Callable[[dict[str, Any], JobContext], Any]


def load_handler(settings: Settings, slot: Slot, runner: "LazyRunner") -> Handler:
    """The function that does a job: the demo's own, or ``WORKER_HANDLER=module:function``, sync or async.

    A handler takes the payload (a dict) and, in a parameter named ``context`` or annotated with it, the
    :class:`JobContext`; what it returns must be JSON. ``module:Class.method`` is a method of one instance, made without
    arguments. Async ones run on ``runner``. Raises :class:`ConfigurationError` if there is no such function.
    """
    if settings.worker_handler is None:
        delay_s = settings.worker_processing_delay
        return lambda payload, _: process(payload, delay_s=delay_s, slot=slot)
    with contextlib.suppress(FileNotFoundError):  # a working directory that was removed
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # last: a queue.py there must not shadow the standard library's
    try:
        function = _find(settings.worker_handler)
        context_name, by_keyword = _wanted_context(function)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may even exit while it is imported
        reason = one_line(describe(error))
        raise ConfigurationError(f"WORKER_HANDLER: cannot load {settings.worker_handler!r}: {reason}") from None

    def handle(payload: dict[str, Any], context: JobContext) -> Any:
        if context_name is None:
            result = function(payload)
        elif by_keyword:
            result = function(payload, **{context_name: context})
        else:
            result = function(payload, context)
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


def _wanted_context(function: Callable[..., Any]) -> tuple[str | None, bool]:
    """The parameter that asks for the context, if any, and whether it takes it by keyword.

    Raises TypeError when the function cannot be called with a payload and that.
    """
    signature = inspect.signature(function)
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    one: inspect.Parameter | None = None
    for parameter in list(signature.parameters.values())[1:]:
        is_annotated = parameter.annotation is JobContext or "JobContext" in str(parameter.annotation)
        if parameter.kind not in variable and (parameter.name == "context" or is_annotated):
            one = parameter
            break
    by_keyword = one is not None and one.kind is not inspect.Parameter.POSITIONAL_ONLY
    try:
        if one is None:
            signature.bind({})
        elif by_keyword:
            signature.bind({}, **{one.name: None})
        else:
            signature.bind({}, None)
    except TypeError as error:
        raise TypeError(f"{error} in {signature}: {_ACCEPTED}") from None
    return (one.name if one else None), by_keyword


class LazyRunner:
    """One event loop for all async handlers, made at the first of them."""

    _runner: asyncio.Runner | None = None

    def run(self, coroutine: Any) -> Any:
        """Run to the end and return the result."""
        self._runner = self._runner or asyncio.Runner()
        return self._runner.run(coroutine)

    def close(self) -> None:
        """End what handlers have left running; the next :meth:`run` begins anew.

        A task that is still there a second after its cancellation is named in the log and abandoned.
        """
        runner, self._runner = self._runner, None
        if runner is None:
            return
        loop = runner.get_loop()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        stubborn = _wait(loop, tasks) or _wait(loop, {loop.create_task(loop.shutdown_asyncgens())})
        for task in stubborn:
            log.warning("the handler has left a task that ignores its cancellation, it is abandoned: %r", task)
        if not stubborn:
            loop.close()  # not runner.close(), which waits for the threads of asyncio.to_thread without a bound


def _wait(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Run tasks for up to a second; returns those that have not ended."""
    return loop.run_until_complete(asyncio.wait(tasks, timeout=CANCEL_WITHIN_S))[1] if tasks else tasks
